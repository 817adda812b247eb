"""Labelled videos, as lists and folders name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from timesformer.video.shards import PackedVideo, VideoPath

SPLITS = ("train", "val", "test")
LIST_SUFFIXES = (".csv", ".txt", ".tsv")
_SPELLINGS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}


class DataError(Exception):
    """A list or folder of videos cannot be used; the message is one line that says where and why."""


class NoLabel(DataError):
    """A video has no label, or only what stands for a missing one."""


def split_of(name: str) -> str | None:
    """The split that a folder, list or cell of this name is: `Validation` is "val"; None if it is none."""
    return _SPELLINGS.get(name.strip().lower())


@dataclass(frozen=True)
class VideoItem:
    """A video, and the indices of its classes."""

    path: VideoPath
    labels: tuple[int, ...]


@dataclass(frozen=True)
class VideoList:
    """Labelled videos.

    Attributes:
        items: the videos.
        classes: names of the classes, which the videos' labels index.
        multi_label: some video of the data, of whichever split, has several labels.
        source: the file or folder that they were read from, or an address.
        missing: names of videos that a benchmark lists and that are not on disk.
        notes: how the data was read where it could have been meant otherwise; a line each, for people.
    """

    items: tuple[VideoItem, ...]
    classes: tuple[str, ...]
    multi_label: bool
    source: Path | str
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def for_task(self, multi_label: bool) -> VideoList:
        """The same list for a model with several labels a video, or with one; DataError if it has more than one."""
        if self.multi_label and not multi_label:
            raise DataError(f"{self.source}: has several labels a video, the model only one")
        return replace(self, multi_label=multi_label)


@dataclass(frozen=True)
class Entry:
    """A video that a list or a class folder names, its labels not yet understood.

    Attributes:
        path: the video.
        text: what the list has for its labels, or the name of the class folder; "" for nothing.
        list_file, line: where it is listed.
        cells: the fields of `text`, where the list separates them by more than blanks.
        split: what its list says in a column for splits; "" without one.
    """

    path: VideoPath
    text: str
    list_file: Path | None = None
    line: int = 0
    cells: tuple[str, ...] | None = None
    split: str = ""

    @property
    def where(self) -> str:
        """What an error message says of where it is listed: file and line, or the video's own path."""
        return f"{self.list_file}:{self.line}" if self.list_file else str(self.path)


@dataclass(frozen=True)
class Listing:
    """The videos that a list or folder names, by split ("" where it has none), and notes on how it was read."""

    parts: Mapping[str, list[Entry]]
    notes: tuple[str, ...] = field(default=())


def fault_of(path: VideoPath) -> str:
    """Why a video must not be opened; "" if it may be."""
    return path.fault if isinstance(path, PackedVideo) else ""
