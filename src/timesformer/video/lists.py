"""Text files that list videos: `path label` lines, or columns that a header names."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from timesformer.limits import limit
from timesformer.video.columns import Columns, is_header, is_known, read_columns, unknown_header
from timesformer.video.decode import VIDEO_SUFFIXES
from timesformer.video.items import LIST_SUFFIXES, SPLITS, DataError, Entry, split_of
from timesformer.video.lines import GAPS, is_integer, names_other_machine, split_line, split_unlisted
from timesformer.video.shards import PackedVideo, VideoPath, find_packed, is_address, without_credentials

_SUFFIX = re.compile(rf"(?:{'|'.join(re.escape(s) for s in sorted(VIDEO_SUFFIXES))})(?=[\s,;|\"]|$)", re.I)
_LIKE_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a drive of Windows has one letter
_ADDRESS = (
    "it is an address, and lists name files on disk: only --data may be an address, or the one that lists may "
    "name below (TIMESFORMER_LISTED_ADDRESS)"
)


@dataclass(frozen=True)
class ListFile:
    """The videos of a list in their order, and notes on how it was read."""

    entries: list[Entry]
    notes: tuple[str, ...]


def find_lists(folder: Path) -> dict[str, Path]:
    """The lists of a folder by split, by any usual spelling. Raises DataError where a split has two."""
    lists: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in sorted(folder.iterdir()):
        split = split_of(path.stem) if path.suffix.lower() in LIST_SUFFIXES else None
        if split and path.is_file():
            lists[split].append(path)
    for files in lists.values():
        if len(files) > 1:
            raise DataError(f"{folder}: holds both {files[0].name} and {files[1].name}; keep one")
    return {split: files[0] for split, files in lists.items() if files}


def read_list(path: Path) -> ListFile:
    """Read a list; blank lines, and those that begin with #, are left out. Raises DataError if it is no text.

    A line names a file on disk or a video in a shard on disk. One that names an address, unless it lies below the one
    that TIMESFORMER_LISTED_ADDRESS gives, or that is too long to be one of a list, is a video that cannot be read.

    Raises:
        DataError: it is no text, or has columns that are not understood.
    """
    lines = list(_lines(path))
    notes = []
    comments = {line for line in lines if line[1].startswith("#") and not os.path.exists(path.parent / line[1][:255])}
    columns = _header(lines, path)
    if columns:
        notes.append(columns.note(path))
    elif index := _numbered(lines):
        lines = [(number, index.sub("", line)) for number, line in lines]
        notes.append(f"{path}: the first field of each line was taken for its number")
    if ignored := len(comments) - bool(columns and lines[0] in comments):
        notes.append(f"{path}: {ignored} lines that begin with '#' were taken for comments")
    rows = lines[1:] if columns else lines
    if comments:
        rows = [line for line in rows if line not in comments]
    entries = [_entry(number, line, columns, path) for number, line in rows]
    if not columns:
        _refuse_bare_split(entries, path)
    entries, slashed = _with_slashes(entries, path.parent)
    if slashed:
        notes.append(f"{path}: backslashes were read as slashes in the paths of {slashed} videos")
    return ListFile(entries, tuple(notes))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(io.StringIO(read_text(path)), 1):
        if (stripped := line.rstrip("\n").strip(" ")).strip(GAPS):
            yield number, stripped


def _header(lines: Sequence[tuple[int, str]], path: Path) -> Columns | None:
    """The columns that the first line names; None if it is a video's. DataError if it can be neither."""
    if not lines or len(lines[0][1]) > 4096:
        return None
    number, first = lines[0]
    if os.path.exists(path.parent / first[:255]):
        return None
    where = f"{path}:{number}"
    for separator in (",", "\t", ";", "|", " "):
        cells = _cells(first.lstrip("# ") if separator != "\t" else first, separator)
        if (separator in first or separator == " ") and is_header(cells):
            return read_columns(cells, separator, where)
    if _SUFFIX.search(first) or first.startswith("#"):
        return None
    separator = next((mark for mark in ",\t;|" if mark in first), " ")
    cells = _cells(first, separator)
    others = [line for _, line in lines[1:] if not line.startswith("#")]
    same_form = others and all(_SUFFIX.search(line) and len(_cells(line, separator)) == len(cells) for line in others)
    numbered = any(is_integer(cell) for cell in cells)  # which is a label
    if same_form and not numbered and (separator != " " or any(is_known(cell) for cell in cells)):
        raise unknown_header(cells, where)
    return None


def _cells(line: str, separator: str) -> list[str]:
    if separator == " ":
        line = " ".join(line.split())
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]
    except csv.Error:
        return [line]


def _numbered(lines: Sequence[tuple[int, str]]) -> re.Pattern[str] | None:
    """What the lines begin with, where that is a number that counts them and a field with a video follows it."""
    pattern = re.compile(r'^"?([0-9]{1,9})"?[,;\t]\s*(?=.*[,;\t])')
    if len(lines) < 2:
        return None
    numbers = []
    for _, line in lines:
        match = pattern.match(line)
        if not match or not _SUFFIX.search(line, match.end()):
            return None
        numbers.append(int(match[1]))
    counts = numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return pattern if counts else None


def _entry(number: int, line: str, columns: Columns | None, file: Path) -> Entry:
    """The video of a line."""
    folder = file.parent
    if len(line) > (longest := limit("MAX_LINE")):
        fault = f"its line has {len(line)} characters, more than {longest} (TIMESFORMER_MAX_LINE)"
        return Entry(PackedVideo.refused(f"{line[:60]}...", fault), "", file, number)
    if columns and not columns.is_path_label:
        return _entry_by_columns(number, line, columns, file)
    line = line.strip(GAPS)
    parts = split_unlisted(line) if names_other_machine(line.lstrip('"')) else split_line(line, folder)
    return Entry(_video(parts.path, folder), parts.text, file, number, parts.cells)


def _entry_by_columns(number: int, line: str, columns: Columns, file: Path) -> Entry:
    where = f"{file}:{number}"
    cells = _cells(line, columns.separator)
    if len(cells) != len(columns.names):
        raise DataError(
            f"{where}: has {len(cells)} fields, the header {len(columns.names)}; a field that holds "
            f"{columns.separator!r} must be in quotes"
        )
    if not cells[columns.path]:
        raise DataError(f"{where}: has no path in the column {columns.names[columns.path]!r}")
    label = "" if columns.label is None else cells[columns.label]
    split = ""
    if columns.split is not None:
        cell = cells[columns.split]
        split = split_of(cell) or ""
        if not split:
            raise DataError(
                f"{where}: {columns.names[columns.split]}={cell!r} is no split; allowed: {', '.join(SPLITS)}"
            )
    return Entry(_video(cells[columns.path], file.parent), label, file, number, (label,) if label else (), split)


def _video(name: str, folder: Path) -> VideoPath:
    """The video that a list in `folder` calls by this name."""
    if names_other_machine(name):  # before anything asks whether it is there
        return PackedVideo.refused(name, "it is on another machine; lists name files on this one")
    if is_address(name) and not _may_be_listed(name):
        return PackedVideo.refused(without_credentials(name), _ADDRESS)
    path = folder / name
    if not is_address(name) and _LIKE_ADDRESS.match(name) and not os.path.exists(path):
        return PackedVideo.refused(name, _ADDRESS)
    try:
        return find_packed(name if is_address(name) else path) or path
    except (OSError, ValueError) as error:  # the shard, or the index beside it, can't be read
        return PackedVideo.refused(without_credentials(str(path)), str(error))


def _may_be_listed(address: str) -> bool:
    """Whether an address lies below the one that the user, by an environment variable, lets lists name."""
    allowed = os.environ.get("TIMESFORMER_LISTED_ADDRESS", "").rstrip("/")
    return bool(allowed) and address.startswith(f"{allowed}/") and "/../" not in address and "::" not in address


def _with_slashes(entries: list[Entry], folder: Path) -> tuple[list[Entry], int]:
    """The same with Windows' paths as this machine has them, where that is where the video is; and how many."""
    if os.name == "nt":
        return entries, 0
    count, new = 0, []
    for entry in entries:
        if isinstance(entry.path, Path) and "\\" in str(entry.path) and not os.path.exists(entry.path):
            other = Path(str(entry.path).replace("\\", "/"))
            if os.path.exists(other):
                count += 1
                entry = Entry(other, entry.text, entry.list_file, entry.line, entry.cells, entry.split)
        new.append(entry)
    return new, count


def _refuse_bare_split(entries: Sequence[Entry], file: Path) -> None:
    """DataError where the last of several fields is a split in every line, which no header says."""
    rows = [entry.cells or () for entry in entries]
    if rows and all(len(cells) > 1 and split_of(cells[-1]) for cells in rows):
        raise DataError(
            f"{entries[0].where}: {entries[0].text!r}: the last field of each line is the name of a split; begin the "
            "list with a header line that says so: path,label,split"
        )


def by_split(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The videos of lists by what their column for splits says; by "" without one."""
    parts: dict[str, list[Entry]] = {}
    for split in ("", *SPLITS):
        if part := [entry for entry in entries if entry.split == split]:
            parts[split] = part
    return parts


def repeated(entries: Sequence[Entry]) -> tuple[str, ...]:
    """A note on videos that are named more than once."""
    counts = Counter(entry.path for entry in entries)
    twice = [path for path, count in counts.items() if count > 1]
    return (f"{len(twice)} videos are named more than once, such as {twice[0]}",) if twice else ()


def read_text(path: Path) -> str:
    """The text of a list or of classes.txt; DataError if it is none."""
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
