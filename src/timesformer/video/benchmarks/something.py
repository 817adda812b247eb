"""Something-Something-V2: JSON files of templates, their objects in brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from timesformer.video.benchmarks.annotation import Found, Row, beside, objects, read_json, read_text
from timesformer.video.items import DataError


def find_something(files: list[Path], source: Path) -> Found | None:
    there = {file.name.lower(): file for file in reversed(files)}
    for prefix in ("something-something-v2-", ""):
        names = {"train": "train.json", "val": "validation.json", "test": "test-answers.csv"}
        lists = {split: there[prefix + name] for split, name in names.items() if prefix + name in there}
        if "val" not in lists and f"{prefix}val.json" in there:
            lists["val"] = there[f"{prefix}val.json"]
        if not lists.keys() & {"train", "val"}:
            continue
        labels = beside(lists, f"{prefix}labels.json", there)
        if not prefix and _label_indices(labels) is None:
            continue  # without the prefix the names say little, so that the content must
        others = (labels, *(there[name] for name in [f"{prefix}test.json"] if name in there))
        layout = "20bn-something-something-v2/{name}.webm"
        return Found("Something-Something-V2", lists, labels, others, layout, _read_something)
    return None


def _label_indices(file: Path) -> dict[str, int] | None:
    """The labels of a file and their numbers; None if it holds anything else."""
    try:
        content = read_json(file)
    except DataError:
        return None
    if not isinstance(content, dict) or not all(_is_number(number) for number in content.values()):
        return None
    return {label: int(number) for label, number in content.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, str | int) and re.fullmatch("[0-9]{1,9}", str(value)) is not None


def _read_something(found: Found) -> tuple[dict[str, str], dict[str, list[Row]]]:
    assert found.labels is not None
    indices = _label_indices(found.labels)
    if indices is None or sorted(indices.values()) != list(range(len(indices))):
        raise DataError(
            f"{found.labels}: is no object of labels and their numbers, from 0 up, each once, as in "
            f'{{"Closing something": "0"}}'
        )
    parts = {}
    for split, file in found.lists.items():
        rows = _answers(file) if file.suffix.lower() == ".csv" else objects(file, "id", "template")
        parts[split] = [Row((video,), label.replace("[", "").replace("]", "")) for video, label in rows]
    return {name: name for name in sorted(indices, key=indices.__getitem__)}, parts


def _answers(file: Path) -> Iterator[tuple[str, str]]:
    """The lines `id;label` of a file; labels hold commas."""
    for line in read_text(file).splitlines():
        video, _, label = line.partition(";")
        if video.strip():
            yield video.strip(), label.strip().strip('"')
