"""One `path label` line of a list, taken apart.

The path ends at its suffix; one without a suffix ends where a file or folder of that name exists (the longest), or at a
comma or the like, or before the last integers, or before the last word.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import NamedTuple

from timesformer.video.decode import VIDEO_SUFFIXES

GAPS = " \t,;"
_OTHER_MACHINES = ("\\\\", "//") if os.name == "nt" else ("\\\\",)  # as Windows names shared folders
_LONGEST_PATH = 4096  # characters
_SEPARATORS = "\t,;|"
_QUOTED = re.compile(r'"((?:[^"]|"")+)"(?:([\s,;|]+)(.*))?')
_SUFFIX = re.compile(rf"(?:{'|'.join(re.escape(s) for s in sorted(VIDEO_SUFFIXES))})(?=[\s,;|]|$)", re.I)
_SEPARATED = re.compile(r"([^\t,;]+)([\t,;][\s,;]*)(.*)")


class Line(NamedTuple):
    """A line's path, the text of its labels ("" for none), and the fields of that; None if blanks separate them."""

    path: str
    text: str
    cells: tuple[str, ...] | None


def names_other_machine(path: str) -> bool:
    """Whether a path is one of a shared folder, for which the system would ask the network."""
    return path.startswith(_OTHER_MACHINES)


def is_integer(text: str) -> bool:
    """Whether it is a whole number of a length that Python reads."""
    return re.fullmatch(r"-?[0-9]{1,4000}", text) is not None


def split_unlisted(line: str) -> Line:
    """The parts of a line, without a look at the disk."""
    if match := _QUOTED.fullmatch(line):
        return _line(match[1].replace('""', '"'), match[2] or "", match[3] or "")
    ends = _ends(line)
    return _cut(line, ends[-1]) if ends else Line(line, "", None)


def split_line(line: str, folder: Path) -> Line:
    """The parts of a stripped line of a list in `folder`."""
    if match := _QUOTED.fullmatch(line):
        return _line(match[1].replace('""', '"'), match[2] or "", match[3] or "")
    if ends := _ends(line):
        return _cut(line, _best_end(line, ends, folder))
    for gap in [re.compile("$").search(line), *reversed(list(re.finditer(r"[\s,;|]+", line[:_LONGEST_PATH])))]:
        if gap and 0 < gap.start() <= _LONGEST_PATH and os.path.exists(folder / line[: gap.start()]):
            return _cut(line, gap.start())
    if match := _SEPARATED.fullmatch(line):
        return _line(match[1], match[2], match[3])
    return _split_at_space(line)


def _ends(line: str) -> list[int]:
    """Where the line has a suffix of a video that a separator follows."""
    return [match.end() for match in _SUFFIX.finditer(line)]


def _best_end(line: str, ends: list[int], folder: Path) -> int:
    """The end of the longest path that exists; or else of the first before a comma or the like; or the last."""
    if len(ends) == 1:
        return ends[0]
    near = [end for end in ends if end <= _LONGEST_PATH]
    there = (end for end in reversed(near[:100]) if os.path.exists(folder / line[:end]))
    first = next((end for end in ends if line[end : end + 1] and line[end] in _SEPARATORS), ends[-1])
    return next(there, first)


def _cut(line: str, end: int) -> Line:
    rest = line[end:]
    text = rest.lstrip(f" {_SEPARATORS}")
    return _line(line[:end], rest[: len(rest) - len(text)], text)


def _line(path: str, gap: str, text: str) -> Line:
    """The line's parts, with the fields of its text by the separator that follows the path."""
    separator = next((mark for mark in _SEPARATORS if mark in gap), "")
    if not text or not separator:
        return Line(path, text, None)
    try:
        fields = next(csv.reader([text], delimiter=separator, skipinitialspace=True))
    except csv.Error:
        fields = [text]
    return Line(path, text, tuple(field.strip() for field in fields))


def _split_at_space(line: str) -> Line:
    """Before the last integers, or else before the last word. In one pass: a line may be long and come from anyone."""
    words = line.split(" ")
    first = len(words) - 1
    if is_integer(words[first]):
        while first > 1 and (not words[first - 1] or is_integer(words[first - 1])):
            first -= 1
    head, tail = " ".join(words[:first]).rstrip(" "), " ".join(words[first:]).lstrip(" ")
    return Line(head, tail, None) if head else Line(line, "", None)
