"""What a benchmark's annotation is, whatever its format, and reading its files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from timesformer import documents
from timesformer.limits import limit
from timesformer.video.items import SPLITS, DataError


class Row(NamedTuple):
    """A listed video: what its file may be called, best first, and what the annotation calls its label."""

    names: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Found:
    """The files of a benchmark.

    Attributes:
        lists: the file of each split whose labels are published.
        labels: the file that says what the labels mean, if the benchmark has one.
        others: files that are the benchmark's, but list no labelled videos.
        layout: where a video is usually put.
        read: the name of each class by what the annotation calls it, in order; and the rows of each split.
        root: the folder that the videos are in, at whatever depth.
        only: the split that alone was asked for, by its file.
    """

    name: str
    lists: Mapping[str, Path]
    labels: Path | None
    others: tuple[Path, ...]
    layout: str
    read: Callable[[Found], tuple[dict[str, str], dict[str, list[Row]]]]
    root: Path = Path()
    only: str | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that there are; none where one was asked for by its file."""
        return () if self.only else tuple(split for split in SPLITS if split in self.lists)


def beside(lists: Mapping[str, Path], name: str, there: Mapping[str, Path]) -> Path:
    """The file of this name, or where it would be: beside the lists. `there` is by names in lower case."""
    return there.get(name.lower()) or next(iter(lists.values())).with_name(name)


def as_file_name(name: str) -> str:
    """A name from an annotation as that of one file, whatever it says: no folder, and none above."""
    plain = re.sub(r"[/\\\0]", "_", name)
    return "_" if plain in ("", ".", "..") else plain


def read_header(file: Path) -> list[str]:
    """The column names of a CSV file; [""] at least."""
    try:
        with file.open("rb") as content:
            line = content.readline(4096).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    return [name.strip().strip('"').lower() for name in line.split(",")]


def records(file: Path, *columns: str) -> Iterator[tuple[int, list[str]]]:
    """The line number and these columns of each line of a CSV file."""
    header = read_header(file)
    if lacking := [name for name in columns if name not in header]:
        raise DataError(f"{file}: has no column {lacking[0]}; it has {', '.join(header)}")
    at = [header.index(name) for name in columns]
    try:
        if file.stat().st_size > (most := limit("MAX_LIST_BYTES")):
            raise DataError(f"{file}: has more than {most} bytes (TIMESFORMER_MAX_LIST_BYTES)")
        with file.open(encoding="utf-8-sig", newline="") as content:
            reader = csv.reader(content)
            next(reader)
            for row in filter(None, reader):
                if len(row) <= max(at):
                    raise DataError(f"{file}:{reader.line_num}: has {len(row)} of {len(header)} columns")
                yield reader.line_num, [row[i].strip() for i in at]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: is no CSV file in UTF-8: {error}") from None


def integer(text: str, file: Path, line: int) -> int:
    """A number as such files write it, `12` or `12.0`; DataError that names file and line."""
    try:
        return int(text) if text.isdecimal() else int(float(text))
    except (ValueError, OverflowError):
        raise DataError(f"{file}:{line}: {text!r} is no number") from None


def objects(file: Path, *keys: str) -> Iterator[tuple[str, ...]]:
    """These values of each object in a JSON list."""
    entries = read_json(file)
    if not isinstance(entries, list):
        raise DataError(f"{file}: is no list of objects with {' and '.join(keys)}")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise DataError(f"{file}: entry {number} is no object with {' and '.join(keys)}")
        for key in keys:
            if not isinstance(entry[key], str | int) or isinstance(entry[key], bool):
                raise DataError(f"{file}: entry {number}: {key}={entry[key]!r:.80} is no text or whole number")
        yield tuple(str(entry[key]) for key in keys)


def read_json(file: Path) -> object:
    """The content of a JSON file; DataError that says what is wrong with it."""
    try:
        content: object = documents.read_json(file, max_bytes=limit("MAX_LIST_BYTES"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(str(error)) from None
    return content


def read_text(file: Path) -> str:
    """A text in UTF-8; DataError where it is none, or can't be read."""
    most = limit("MAX_LIST_BYTES")
    try:
        with file.open("rb") as content:
            text = content.read(most + 1)
        if len(text) > most:
            raise DataError(f"{file}: has more than {most} bytes (TIMESFORMER_MAX_LIST_BYTES)")
        return text.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise DataError(f"{file}: is no text in UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
