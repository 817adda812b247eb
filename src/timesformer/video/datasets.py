"""Labelled videos: lists of `path label` lines, or folders of class folders."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from timesformer.files import replace_file
from timesformer.limits import limit
from timesformer.video.decode import VIDEO_SUFFIXES, is_video_path
from timesformer.video.shards import (
    PackedVideo,
    Shards,
    VideoPath,
    find_packed,
    is_address,
    read_shards,
    without_credentials,
)

SPLITS = ("train", "val", "test")
LIST_SUFFIXES = (".csv", ".txt")
T = TypeVar("T")


class DataError(Exception):
    """A list or folder of videos cannot be used; the message is one line that says where and why."""


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
    """

    items: tuple[VideoItem, ...]
    classes: tuple[str, ...]
    multi_label: bool
    source: Path | str
    missing: tuple[str, ...] = ()

    def for_task(self, multi_label: bool) -> VideoList:
        """The same list for a model with several labels a video, or with one; DataError if it has more than one."""
        if self.multi_label and not multi_label:
            raise DataError(f"{self.source}: has several labels a video, the model only one")
        return replace(self, multi_label=multi_label)


@dataclass(frozen=True)
class Entry:
    """A video as it was found; `text` is what its list says of labels, or the name of the class folder."""

    path: VideoPath
    text: str
    list_file: Path | None = None
    line: int = 0

    @property
    def where(self) -> str:
        """What an error message says of where it is listed: file and line, or the video's own path."""
        return f"{self.list_file}:{self.line}" if self.list_file else str(self.path)


def read_videos(data: str | Path, split: str | None = None, classes: Sequence[str] | None = None) -> VideoList:
    """Reads the videos of a split with their labels. No video is opened; only a benchmark's are looked for.

    Args:
        data: one of
            - the annotation files that the makers of a benchmark publish, see `benchmarks.read_benchmark`;
            - a list: a text file (UTF-8) with a line `path label [label ...]` for each video. Separators are
              spaces, tabs, commas or semicolons; paths are relative to the list. Paths may hold spaces; one
              that ends neither in a video suffix nor at an existing folder is best quoted, as in CSV files.
            - a folder with lists named train, val, test (.csv or .txt), which then count alone;
            - a folder with folders train, val, test, each a folder of class folders;
            - a folder of class folders: CLASS/video, or deeper. Hidden and other files are passed over; a
              folder of images (and no video) is one video;
            - a folder of shards that `pack` wrote, or an address of one for fsspec (s3://..., memory://...).
        split: "train", "val" or "test"; None is everything. "test" is "val" where there is no test split; any
            other split that is lacking is an error (see `splits`, `hold_out`). A single list and a folder of
            class folders have no splits: all of it is read.
        classes: names that the labels must be mapped to, such as a trained model's.

    Labels are all integers or all names. Integers index `classes.txt` beside the list (a name a line; or
    `index name` lines, which may count from 0 or 1); without it, `classes`; without these they are their own
    names, "0" to the largest one. Names are those of classes.txt, or else the sorted ones that occur, in all
    splits together, so that the splits agree. A name with spaces must be quoted, separated by commas, or in
    classes.txt. Several labels anywhere make the task a multi-label one.

    Raises:
        DataError: nothing is there, a line has no label, or one that is not allowed.
        OSError: nothing is at the address.
        ValueError: the split is unknown.
    """
    from timesformer.video.benchmarks import read_benchmark  # which imports this module

    if shards := read_shards(data):
        videos = _packed(shards, split, classes)
        if bare := next((item for item in videos.items if not (item.labels or _fault(item.path))), None):
            raise DataError(f"{bare.path}: has no label; it was packed without")
        return videos
    source = Path(data)
    if benchmark := read_benchmark(source, split, classes):
        return replace(benchmark.videos, missing=benchmark.missing)
    parts = find_entries(source)
    vocabulary = Vocabulary.of(parts, source, classes)
    items = tuple(VideoItem(entry.path, vocabulary.labels(entry)) for entry in _choose(parts, split, source))
    return VideoList(items, vocabulary.classes, vocabulary.multi_label, source)


def read_unlabelled(data: str | Path, split: str | None = None) -> VideoList:
    """Reads videos that need no labels: a folder that holds videos itself, or as `read_videos`, labels and all."""
    if shards := read_shards(data):
        return _packed(shards, split)
    source = Path(data)
    if not source.is_dir() or splits(source):
        return read_videos(source, split)
    if paths := [path for path in sorted(source.iterdir()) if _is_plain_video(path)]:
        return VideoList(tuple(VideoItem(path, ()) for path in paths), (), False, source)
    return read_videos(source, split)


def _fault(path: VideoPath) -> str:
    return path.fault if isinstance(path, PackedVideo) else ""


def _packed(shards: Shards, split: str | None, classes: Sequence[str] | None = None) -> VideoList:
    """The videos of shards, with the indices of their labels among the classes."""
    parts: dict[str, list[tuple[PackedVideo, tuple[str, ...]]]] = defaultdict(list)
    for video, part, labels in shards.videos:
        parts[part].append((video, labels))
    own = shards.classes if classes is None else tuple(classes)
    index = {name: place for place, name in enumerate(own)}
    items = []
    for video, labels in _choose(parts, split, shards.source):
        if unknown := next((label for label in labels if label not in index), None):
            raise DataError(f"{video}: {unknown!r} is no class; allowed: {_some(own)}")
        items.append(VideoItem(video, tuple(index[label] for label in labels)))
    return VideoList(tuple(items), own, shards.multi_label, shards.source)


def _is_plain_video(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and is_video_path(path)


def splits(data: str | Path) -> tuple[str, ...]:
    """Which of "train", "val", "test" `data` has; none for a single list or a folder of class folders."""
    from timesformer.video.benchmarks import benchmark_splits

    if shards := read_shards(data):
        return shards.splits
    source = Path(data)
    if (own := benchmark_splits(source)) is not None:
        return own
    return () if source.is_file() else tuple(find_lists(source) or _split_folders(source))


def hold_out(videos: VideoList, fraction: float, seed: int) -> tuple[VideoList, VideoList]:
    """Parts videos at random into (rest, held), both in their old order.

    Of each class, `fraction` of its videos is held, rounded, but one at least (if the fraction is not 0), and
    one at least stays. With several labels a video, a class may get fewer. Raises ValueError unless
    0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction: {fraction} is outside 0 <= fraction < 1")
    left = Counter(label for item in videos.items for label in item.labels)
    room = {label: max(1, round(count * fraction)) if fraction else 0 for label, count in left.items()}
    held = set()
    for at in np.random.default_rng(seed).permutation(len(videos.items)).tolist():
        labels = videos.items[at].labels
        if all(left[label] > 1 and room[label] > 0 for label in labels):
            held.add(at)
            for label in labels:
                left[label] -= 1
                room[label] -= 1
    rest = tuple(item for at, item in enumerate(videos.items) if at not in held)
    return replace(videos, items=rest), replace(videos, items=tuple(videos.items[at] for at in sorted(held)))


def take_fraction(videos: VideoList, fraction: float, seed: int) -> VideoList:
    """A random part of the videos in their old order, as for Figure 4; a larger fraction holds the smaller ones.

    Of each class `fraction` of its videos is kept, rounded, but one at least. Of videos with several labels, those
    that have the same rarest class are such a group, and each class still keeps one. Raises ValueError unless
    0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: {fraction} is outside 0 < fraction <= 1")
    sizes = Counter(label for item in videos.items for label in item.labels)
    groups: dict[int, list[int]] = defaultdict(list)
    covered: set[int] = set()
    kept: set[int] = set()
    for at in np.random.default_rng(seed).permutation(len(videos.items)).tolist():
        labels = videos.items[at].labels
        if not covered.issuperset(labels):
            kept.add(at)
            covered.update(labels)
        groups[min(labels, key=lambda label: (sizes[label], label), default=-1)].append(at)
    for group in groups.values():
        kept.update(group[: round(len(group) * fraction)])
    return replace(videos, items=tuple(videos.items[at] for at in sorted(kept)))


@dataclass(frozen=True)
class Vocabulary:
    """What labels mean: `names` maps whatever one may be called in the data to a name in `classes`."""

    classes: tuple[str, ...]
    names: Mapping[str, str]
    multi_label: bool

    @classmethod
    def of(cls, parts: Mapping[str, list[Entry]], source: Path, classes: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary of all splits together; the arguments are as in `read_videos`, which explains it."""
        labelled = [entry for part in parts.values() for entry in part if entry.text]
        names = _names(labelled, source, classes)
        multi_label = any(len(set(_tokens(entry, names))) > 1 for entry in labelled)
        return cls(tuple(dict.fromkeys(names.values()) if classes is None else classes), names, multi_label)

    def labels(self, entry: Entry) -> tuple[int, ...]:
        """The classes of a video, each once; raises DataError if it has none or one that is unknown."""
        if not entry.text and _fault(entry.path):  # a line that can't be read costs its own video only
            return ()
        return tuple(dict.fromkeys(self._label(token, entry) for token in _tokens(entry, self.names)))

    def _label(self, token: str, entry: Entry) -> int:
        name = self.names.get(token)
        if name in self._index:
            return self._index[name]
        allowed = [token for token, name in self.names.items() if name in self._index] or list(self.classes)
        allowed.sort(key=lambda token: token != self.names.get(token, token))  # names, and then their numbers
        raise DataError(f"{entry.where}: {entry.text!r}: {name or token!r} is no class; allowed: {_some(allowed)}")

    @cached_property
    def _index(self) -> dict[str | None, int]:
        return {name: index for index, name in enumerate(self.classes)}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (f", … and {len(names) - 40} more" if len(names) > 40 else "")


def write_list(file: Path, videos: VideoList) -> None:
    """Write a list that `read_videos` reads: absolute paths and the names of the labels.

    Where names are numbers, which would be read as indices, it is the indices that are written.
    """
    by_index = any(_is_integer(name) for name in videos.classes)
    with (
        replace_file(file) as new,
        new.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out,
    ):
        rows = csv.writer(out, quoting=csv.QUOTE_ALL)
        for item in videos.items:
            labels = [str(label) if by_index else videos.classes[label] for label in item.labels]
            path = os.path.abspath(item.path) if isinstance(item.path, Path) else item.path.absolute()
            rows.writerow([path, *labels])


def find_entries(source: Path) -> dict[str, list[Entry]]:
    """The videos that `source` names, by split ("" where it has none), labels unread and perhaps lacking."""
    if source.is_file():
        # A list called like a split belongs to the others beside it: they must agree on the classes.
        beside = [source.with_name(f"{split}{source.suffix}") for split in SPLITS]
        others = [path for path in beside if path != source and path.is_file()] if source in beside else []
        return {"": read_list(source)} | {path.stem: read_list(path) for path in others}
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    if lists := find_lists(source):
        return {split: read_list(path) for split, path in lists.items()}
    folders = _split_folders(source) or {"": source}
    return {split: _class_folders(folder) for split, folder in folders.items()}


def find_lists(folder: Path) -> dict[str, Path]:
    """The lists of a folder by split. Raises DataError where a split has two."""
    lists = {}
    for split in SPLITS:
        found = [path for suffix in LIST_SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
        if len(found) > 1:
            raise DataError(f"{folder}: holds both {found[0].name} and {found[1].name}; keep one")
        if found:
            lists[split] = found[0]
    return lists


def read_list(path: Path) -> list[Entry]:
    """The lines of a list that are not blank, in their order; raises DataError if it is no text.

    A line names a file on disk or a video in a shard on disk. One that names an address, unless it lies below the one
    that TIMESFORMER_LISTED_ADDRESS gives, or that is too long to be one of a list, is a video that cannot be read.
    """
    entries = []
    for number, line in enumerate(io.StringIO(_read_text(path)), 1):
        line = line.rstrip("\n")
        if line.strip(_GAPS) and not (number == 1 and _HEADER.fullmatch(line.strip())):
            video, text = _listed(line.strip(_GAPS), path.parent)
            entries.append(Entry(video, text, path, number))
    return entries


def _listed(line: str, folder: Path) -> tuple[VideoPath, str]:
    """The video that a line names, and the labels' text."""
    if len(line) > (longest := limit("MAX_LINE")):
        fault = f"its line has {len(line)} characters, more than {longest} (TIMESFORMER_MAX_LINE)"
        return PackedVideo.refused(f"{line[:60]}...", fault), ""
    if line.lstrip('"').startswith(_OTHER_MACHINES):  # before anything asks whether it is there
        match = _QUOTED.fullmatch(line) or _SUFFIXED.fullmatch(line)
        video, text = (match[1], match[2] or "") if match else (line, "")
        return PackedVideo.refused(video, "it is on another machine; lists name files on this one"), text
    video, text = _split_line(line, folder)
    if is_address(video) and not _may_be_listed(video):
        fault = (
            "it is an address, and lists name files on disk: only --data may be an address, or the one that lists may "
            "name below (TIMESFORMER_LISTED_ADDRESS)"
        )
        return PackedVideo.refused(without_credentials(video), fault), text
    path = folder / video
    try:
        return find_packed(video if is_address(video) else path) or path, text
    except (OSError, ValueError) as error:  # the shard, or the index beside it, can't be read
        return PackedVideo.refused(without_credentials(str(path)), str(error)), text


def _may_be_listed(address: str) -> bool:
    """Whether an address lies below the one that the user, by an environment variable, lets lists name."""
    allowed = os.environ.get("TIMESFORMER_LISTED_ADDRESS", "").rstrip("/")
    return bool(allowed) and address.startswith(f"{allowed}/") and "/../" not in address and "::" not in address


def find_videos(folder: Path) -> Iterator[Path]:
    """Videos in a folder and all below it, sorted within each: files by suffix, and folders of images.

    Images directly in `folder` are no video. Hidden files and folders are passed over, links are followed.
    """
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(here)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        visible = (here / name for name in sorted(files) if not name.startswith("."))
        videos = [path for path in visible if path.suffix.lower() in VIDEO_SUFFIXES]
        yield from videos
        if not videos and here != folder and is_video_path(here):
            yield here


def _choose(parts: Mapping[str, list[T]], split: str | None, source: Path | str) -> list[T]:
    if split not in (None, *SPLITS):
        raise ValueError(f"split: {split!r} is unknown; allowed: {', '.join(SPLITS)} or None")
    if "" in parts:
        chosen = parts[""]
    elif split is None:
        chosen = [entry for part in parts.values() for entry in part]
    elif split in parts or (split == "test" and "val" in parts):
        chosen = parts[split if split in parts else "val"]
    else:
        raise DataError(f"{source}: has no {split} split; it has {', '.join(parts)}")
    if not chosen:
        raise DataError(
            f"{source}: names no videos{f' for {split}' if split else ''}; allowed: a list of `path label` "
            f"lines, a folder with such lists (train.csv, ...), or one of class folders (CLASS/video.mp4)"
        )
    return chosen


def _split_folders(folder: Path) -> dict[str, Path]:
    """The split folders of a folder that holds no others; otherwise `train` may be a class, beside `bus`."""
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    return {split: folder / split for split in SPLITS if split in names} if names <= set(SPLITS) else {}


def _class_folders(folder: Path) -> list[Entry]:
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [Entry(video, path.name) for path in folders for video in find_videos(path)]


# `path label` lines. The path ends at its suffix; one without a suffix ends where a file or folder of that
# name exists (the longest), or at a comma or the like, or before the last integers, or before the last word.

_GAPS = " \t,;"
_OTHER_MACHINES = ("\\\\", "//") if os.name == "nt" else ("\\\\",)  # as Windows names shared folders
_LONGEST_PATH = 4096  # characters
_HEADER = re.compile(r'"?(path|video|file|filename)"?[\s,;]+"?(label|labels|class)"?', re.I)
_QUOTED = re.compile(r'"((?:[^"]|"")+)"(?:[\s,;]+(.*))?')
_SUFFIXED = re.compile(rf"(.*(?:{'|'.join(re.escape(s) for s in sorted(VIDEO_SUFFIXES))}))(?:[\s,;]+(.*))?", re.I)
_SEPARATED = re.compile(r"([^\t,;]+)[\t,;][\s,;]*(.*)")


def _split_line(line: str, folder: Path) -> tuple[str, str]:
    """The path and the labels' text of a stripped line; the latter is "" where there is none."""
    if match := _QUOTED.fullmatch(line):
        return match[1].replace('""', '"'), match[2] or ""
    if match := _SUFFIXED.fullmatch(line):
        return match[1], match[2] or ""
    for gap in [re.compile("$").search(line), *reversed(list(re.finditer(r"[\s,;]+", line[:_LONGEST_PATH])))]:
        if gap and 0 < gap.start() <= _LONGEST_PATH and os.path.exists(folder / line[: gap.start()]):
            return line[: gap.start()], line[gap.end() :]
    if match := _SEPARATED.fullmatch(line):
        return match[1], match[2]
    return _split_at_space(line)


def _split_at_space(line: str) -> tuple[str, str]:
    """Before the last integers, or else before the last word. In one pass: a line may be long and come from anyone."""
    words = line.split(" ")
    first = len(words) - 1
    if _is_integer(words[first]):
        while first > 1 and (not words[first - 1] or _is_integer(words[first - 1])):
            first -= 1
    head, tail = " ".join(words[:first]).rstrip(" "), " ".join(words[first:]).lstrip(" ")
    return (head, tail) if head else (line, "")


def _tokens(entry: Entry, names: Mapping[str, str]) -> list[str]:
    """The labels of a video, as written but for leading zeros."""
    if not entry.text:
        raise DataError(f"{entry.where}: {entry.path.name!r} has no label; allowed: `path label` lines")
    if entry.list_file is None or entry.text in names:
        return [entry.text]
    delimiter = next((mark for mark in "\t,;" if mark in entry.text), " ")
    fields = next(csv.reader([entry.text], delimiter=delimiter, skipinitialspace=True))
    return [str(int(text)) if _is_integer(text) else text for field in fields if (text := field.strip())]


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,4000}", text) is not None  # more digits are no number for Python either


def _names(entries: list[Entry], source: Path, classes: Sequence[str] | None) -> dict[str, str]:
    """From what a label may be called in the data to the name of its class, in the order of the classes."""
    file = (source.parent if source.is_file() else source) / "classes.txt"
    if file.is_file():
        indexed = _read_classes(file)
    elif classes is not None:
        indexed = {str(i): name for i, name in enumerate(classes)}
    else:
        return _occurring(entries)
    if not any(entry.list_file for entry in entries):  # a class folder called "1" is not the class of index 1
        return {name: name for name in indexed.values()}
    return indexed | {name: name for name in indexed.values() if name not in indexed}


def _occurring(entries: list[Entry]) -> dict[str, str]:
    first: dict[str, Entry] = {}
    for entry in entries:
        for token in _tokens(entry, {}):
            first.setdefault(token, entry)
    integers = [int(token) for token in first if _is_integer(token)]
    if not integers or not any(entry.list_file for entry in entries):
        return {name: name for name in sorted(first)}
    if len(integers) < len(first):
        token, entry = next((token, entry) for token, entry in first.items() if not _is_integer(token))
        raise DataError(
            f"{entry.where}: {entry.text!r}: {token!r} is a name where others are integers; "
            f"allowed: names alone, integers alone, or both with a classes.txt beside the list"
        )
    if max(integers) >= (most := limit("MAX_CLASSES")):
        token, entry = next((token, entry) for token, entry in first.items() if int(token) >= most)
        raise DataError(f"{entry.where}: the label {token[:40]} is more than {most - 1} (TIMESFORMER_MAX_CLASSES)")
    return {str(i): str(i) for i in range(max(integers) + 1)}


def _read_classes(file: Path) -> dict[str, str]:
    """The names of classes.txt by their index, as text."""
    names = [name for line in _read_text(file).split("\n") if (name := line.strip())]
    numbered = [re.fullmatch(r"([0-9]{1,18})[\s,;:]+(.+)", name) for name in names]
    indices = sorted(int(match[1]) for match in numbered if match)
    if names and indices in (list(range(len(names))), list(range(1, len(names) + 1))):
        pairs = sorted((int(match[1]), match[2]) for match in numbered if match)
    else:
        pairs = list(enumerate(names))
    for name, count in Counter(name for _, name in pairs).items():
        if count > 1:
            raise DataError(f"{file}: {name!r} occurs {count} times; allowed: each name once")
    return {str(i): name for i, name in pairs}


def _read_text(path: Path) -> str:
    most = limit("MAX_LIST_BYTES")
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")  # without a byte order mark
    except UnicodeDecodeError:
        text = "\0"
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise DataError(f"{path}: has more than {most} bytes, the most of a list (TIMESFORMER_MAX_LIST_BYTES)")
    if "\0" in text:
        raise DataError(f"{path}: is not a list, which is a text file in UTF-8 with `path label` lines")
    return text
