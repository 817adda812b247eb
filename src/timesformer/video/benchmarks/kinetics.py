"""Kinetics (400 and 600): CSV files of labels and clips of YouTube videos."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from timesformer.video.benchmarks.annotation import Found, Row, integer, read_header, records
from timesformer.video.items import LIST_SUFFIXES, DataError

KINETICS_COLUMNS = frozenset(["youtube_id", "time_start", "time_end"])
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|validation|validate|val|test)(?![a-z])", re.I)


def find_kinetics(files: list[Path], source: Path) -> Found | None:
    # Lists of the same name but for the split belong together: kinetics-400_train.csv and kinetics-400_val.csv.
    families: dict[str, dict[str, Path]] = {}
    unlabelled = []
    for file in files:
        word = _SPLIT_WORD.search(file.stem)
        if file.suffix.lower() not in LIST_SUFFIXES or not (word or file == source):
            continue
        if not KINETICS_COLUMNS.issubset(header := read_header(file)):
            continue
        if "label" not in header:
            unlabelled.append(file)
            continue
        split = _split(word[0]) if word else "train"
        family = families.setdefault(_SPLIT_WORD.sub("*", file.stem, count=1), {})
        if (other := family.setdefault(split, file)) != file and source.is_dir():
            raise DataError(f"{source}: holds both {other.name} and {file.name}; keep one")
        if file == source:
            family[split] = file
    mine = [family for family in families.values() if source.is_dir() or source in family.values()]
    if len(mine) > 1:
        names = ", ".join(next(iter(family.values())).name for family in mine)
        raise DataError(f"{source}: holds annotations of several releases: {names}; keep one, or name one of the files")
    if not mine and not unlabelled:
        return None
    lists = mine[0] if mine else {}
    return Found("Kinetics", lists, None, tuple(unlabelled), "{split}/{label}/{name}.mp4", _read_kinetics)


def _split(word: str) -> str:
    return "val" if word.lower().startswith("val") else word.lower()


def _read_kinetics(found: Found) -> tuple[dict[str, str], dict[str, list[Row]]]:
    parts = {split: list(_kinetics_rows(file)) for split, file in found.lists.items()}
    rows = parts["train"] if "train" in parts else [row for part in parts.values() for row in part]
    return {label: label for label in sorted({row.label for row in rows if row.label})}, parts


def _kinetics_rows(file: Path) -> Iterator[Row]:
    for line, (label, video, start, end) in records(file, "label", "youtube_id", "time_start", "time_end"):
        first, last = integer(start, file, line), integer(end, file, line)
        yield Row((f"{video}_{first:06d}_{last:06d}", video), label)
