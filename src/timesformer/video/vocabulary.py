"""What the labels of a list or folder mean: which fields are one label, and which class each is."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from timesformer.class_names import parse_class_names, same_name, some
from timesformer.limits import limit
from timesformer.text import text_of
from timesformer.video.items import DataError, Entry, NoLabel, fault_of
from timesformer.video.lines import is_integer
from timesformer.video.lists import read_text

_MISSING = frozenset({"", "nan", "none", "null", "<na>", "nat", "n/a", "#n/a"})  # what programs write for no value
_MARKS = "|;,"  # that may separate labels within one field
_WHOLE = re.compile(r"-?[0-9]{1,18}\.0+")
_DECIMAL = re.compile(r"-?[0-9]*\.[0-9]+")


@dataclass(frozen=True)
class Vocabulary:
    """What labels mean: `names` maps whatever one may be called in the data to a name in `classes`.

    Attributes:
        marks: characters that separate labels within a field.
        notes: how labels were read where they could have been meant otherwise.
    """

    classes: tuple[str, ...]
    names: Mapping[str, str]
    multi_label: bool
    marks: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, parts: Mapping[str, list[Entry]], source: Path, classes: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary of all splits together; the arguments are as in `read_videos`, which explains it."""
        labelled = [entry for part in parts.values() for entry in part if entry.text]
        names, notes = _names_given(labelled, source, classes)
        marks, of_marks = _separating_marks(labelled, names)
        reader = _Reader(names, marks)
        if names is None:
            names, of_numbers = _occurring(labelled, reader)
            notes += of_numbers
        elif classes is None:
            notes += _note_on_unused(labelled, reader, names)
        reader = _Reader(names, marks)
        several = [entry for entry in labelled if len(set(reader.labels_of(entry))) > 1]
        if several:
            example = ", ".join(reader.labels_of(several[0]))
            notes += (
                f"several labels a video: {len(several)} of {len(labelled)} videos have more than one, such as "
                f"{several[0].where}: {example}",
            )
        own = tuple(dict.fromkeys(names.values())) if classes is None else tuple(classes)
        return cls(own, names, bool(several), marks, (*of_marks, *notes, *_notes_on_classes(own, classes)))

    def labels(self, entry: Entry) -> tuple[int, ...]:
        """The classes of a video, each once; raises DataError if it has none or one that is unknown."""
        if not entry.text and fault_of(entry.path):  # a line that can't be read costs its own video only
            return ()
        tokens = self._reader.labels_of(entry)
        for token in tokens or [""]:
            if token not in self.names and token.lower() in _MISSING:
                raise NoLabel(_no_label(entry, token))
        return tuple(dict.fromkeys(self._label(token, entry) for token in tokens))

    @cached_property
    def _reader(self) -> _Reader:
        return _Reader(self.names, self.marks)

    def _label(self, token: str, entry: Entry) -> int:
        name = self.names.get(token)
        if name in self._index:
            return self._index[name]
        allowed = [token for token, name in self.names.items() if name in self._index] or list(self.classes)
        allowed.sort(key=lambda token: token != self.names.get(token, token))  # names, and then their numbers
        raise DataError(f"{entry.where}: {entry.text!r}: {name or token!r} is no class; allowed: {some(allowed)}")

    @cached_property
    def _index(self) -> dict[str | None, int]:
        return {same_name(name): index for index, name in enumerate(self.classes)}


@dataclass(frozen=True)
class _Reader:
    """Takes the labels of a video apart, knowing the names that there are (None: not yet) and the marks."""

    names: Mapping[str, str] | None
    marks: str

    def labels_of(self, entry: Entry) -> list[str]:
        """The labels of a video, as written but for leading zeros and the form of their characters."""
        text = same_name(entry.text)
        if entry.list_file is None or self._is_name(text):
            return [text]
        labels = []
        for field in map(same_name, _fields(entry)):
            mark = next((mark for mark in self.marks if mark in field), "")
            for part in [field] if self._is_name(field) or not mark else field.split(mark):
                labels.append(self._plain(part.strip()))
        return labels

    def _is_name(self, text: str) -> bool:
        return self.names is not None and text in self.names

    def _plain(self, text: str) -> str:
        if self._is_name(text):
            return text
        if _WHOLE.fullmatch(text):  # as pandas writes integers of a column where some are missing
            text = text.partition(".")[0]
        return str(int(text)) if is_integer(text) else text


def _fields(entry: Entry) -> list[str]:
    if entry.cells is not None:
        fields = list(entry.cells)
        words = [field.split() for field in fields]
        if any(len(each) > 1 and all(map(is_integer, each)) for each in words):  # `video,0 2`
            return [word for each in words for word in each]
        return fields
    delimiter = next((mark for mark in "\t,;" if mark in entry.text), " ")
    try:
        fields = next(csv.reader([entry.text], delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        fields = [entry.text]
    fields = [field.strip() for field in fields]
    return fields if delimiter != " " else [field for field in fields if field] or fields[:1]


def _separating_marks(entries: Iterable[Entry], names: Mapping[str, str] | None) -> tuple[str, tuple[str, ...]]:
    """Which of `|`, `;` and `,` separate labels within a field, by what the other fields show; and notes on it."""
    fields: dict[str, Entry] = {}
    for entry in entries:
        if entry.list_file:
            for field in _fields(entry):
                fields.setdefault(same_name(field), entry)
    known = names or {}
    marks, notes = "", []
    for mark in _MARKS:
        composed = [field for field in fields if mark in field and field not in known]
        if not composed:
            continue
        parts = {field: [part.strip() for part in field.split(mark)] for field in composed}
        if names is not None:
            separates = any(all(part in known for part in own) for own in parts.values())
        else:
            occurs = Counter(part for own in parts.values() for part in set(own))
            separates = (
                mark == "|"
                or all(is_integer(part) for own in parts.values() for part in own)
                or any(part in fields or occurs[part] > 1 for part in occurs)
            )
        example = f"{fields[composed[0]].where}: {composed[0]!r}"
        if separates:
            marks += mark
            notes.append(f"{mark!r} within a field was taken to separate labels, as in {example}")
        elif names is None:
            notes.append(f"{mark!r} within a field was taken for a part of the name, as in {example}")
    return marks, tuple(notes)


def _names_given(
    entries: Sequence[Entry], source: Path, classes: Sequence[str] | None
) -> tuple[dict[str, str] | None, tuple[str, ...]]:
    """From what a label may be called to the name of its class, by classes.txt or a model's classes; and notes.

    None where neither is there. Integers are indices, unless all labels of the data are names that are numbers.
    """
    file = (source.parent if source.is_file() else source) / "classes.txt"
    if file.is_file():
        own, start = _read_class_file(file)
    elif classes is not None:
        own, start = tuple(map(same_name, classes)), 0
    else:
        return None, ()
    by_name = {name: name for name in own}
    by_index = {str(index): name for index, name in enumerate(own, start)}
    if not any(entry.list_file for entry in entries):  # a class folder called "1" is not the class of index 1
        return by_name, ()
    both = by_index | {name: name for name in own if name not in by_index}
    different = {token for token, name in by_index.items() if token in by_name and name != token}
    first: dict[str, Entry] = {}
    for entry in entries:
        for token in _Reader(both, "".join(_MARKS)).labels_of(entry) if different else ():
            first.setdefault(token, entry)
    unclear = next((token for token in first if token in different), None)
    if unclear is None:
        return both, ()
    if all(token in by_name or token.lower() in _MISSING for token in first):
        return by_name, (
            f"{source}: numbers were taken for the names of classes, not for indices, as all of them are names",
        )
    other = next(token for token in first if token not in by_name)
    raise DataError(
        f"{first[unclear].where}: {unclear!r} is the name of a class and the index of {by_index[unclear]!r}, another, "
        f"while {other!r} ({first[other].where}) is no name; allowed: names alone, or classes.txt beside the list"
    )


def _occurring(entries: Sequence[Entry], reader: _Reader) -> tuple[dict[str, str], tuple[str, ...]]:
    """The labels that occur, as the names of the classes, and notes on integers that are not used."""
    first: dict[str, Entry] = {}
    for entry in entries:
        for token in reader.labels_of(entry):
            if entry.list_file is None or token.lower() not in _MISSING:  # that is its own video's fault
                first.setdefault(token, entry)
    listed = any(entry.list_file for entry in entries)
    integers = [int(token) for token in first if is_integer(token)]
    if listed and (decimal := next((token for token in first if _DECIMAL.fullmatch(token)), None)):
        raise DataError(
            f"{first[decimal].where}: {decimal!r} is a decimal number; allowed: names and whole numbers (lists of "
            "spans, with start and end, are not read yet)"
        )
    if not integers or not listed:
        return {name: name for name in sorted(first)}, ()
    if len(integers) < len(first):
        token, entry = next((token, entry) for token, entry in first.items() if not is_integer(token))
        raise DataError(
            f"{entry.where}: {entry.text!r}: {token!r} is a name where others are integers; "
            f"allowed: names alone, integers alone, or both with a classes.txt beside the list"
        )
    if max(integers) >= (most := limit("MAX_CLASSES")):
        token, entry = next((token, entry) for token, entry in first.items() if int(token) >= most)
        raise DataError(f"{entry.where}: the label {token[:40]} is more than {most - 1} (TIMESFORMER_MAX_CLASSES)")
    count = max(integers) + 1
    if len(integers) > 1 and sorted(integers) == list(range(1, count)):
        note = f"labels are the integers 1 to {count - 1}: {count - 1} classes of these names"
        return {str(i): str(i) for i in range(1, count)}, (note,)
    unused = sorted(set(range(count)).difference(integers))
    notes: tuple[str, ...] = ()
    if unused:
        notes = (
            f"labels are integers up to {count - 1}: {len(unused)} of {count} classes have no videos, such as "
            f"{unused[0]}; name the classes in classes.txt, or number them without gaps",
        )
    return {str(i): str(i) for i in range(count)}, notes


def _note_on_unused(entries: Sequence[Entry], reader: _Reader, names: Mapping[str, str]) -> tuple[str, ...]:
    """A note on classes of classes.txt that no video has."""
    used = {names.get(token) for entry in entries for token in reader.labels_of(entry)}
    own = dict.fromkeys(names.values())
    unused = [name for name in own if name not in used]
    if not unused or not entries:
        return ()
    return (f"classes.txt has classes without videos, {len(unused)} of {len(own)}: {some(unused)}",)


def _notes_on_classes(own: Sequence[str], classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is not None:
        return ()
    alike: dict[str, list[str]] = defaultdict(list)
    for name in own:
        alike[name.casefold()].append(name)
    notes = tuple(
        f"classes that differ in capitals only are different classes: {', '.join(map(repr, names))}"
        for names in alike.values()
        if len(names) > 1
    )
    if len(own) == 1:
        notes += (f"there is one class alone, '{text_of(own[0])}': whatever a model learns, it is always right",)
    return notes


def _no_label(entry: Entry, token: str) -> str:
    what = f"; {token!r} stands for a missing one, unless classes.txt has a class of this name" if token else ""
    return f"{entry.where}: {entry.path.name!r} has no label; allowed: `path label` lines{what}"


def _read_class_file(file: Path) -> tuple[tuple[str, ...], int]:
    """The names of classes.txt, and the index of the first."""
    try:
        return parse_class_names(read_text(file))
    except ValueError as error:
        raise DataError(f"{file}: {error}") from None
