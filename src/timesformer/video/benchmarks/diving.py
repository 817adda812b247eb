"""Diving-48 (V2): JSON files of dives, each of four words."""

from __future__ import annotations

from pathlib import Path

from timesformer.video.benchmarks.annotation import Found, Row, beside, objects, read_json
from timesformer.video.items import DataError


def find_diving(files: list[Path], source: Path) -> Found | None:
    there = {file.name.lower(): file for file in reversed(files)}
    names = {split: f"diving48_v2_{split}.json" for split in ("train", "test")}
    lists = {split: there[name] for split, name in names.items() if name in there}
    if not lists:
        return None
    vocabulary = beside(lists, "Diving48_vocab.json", there)
    return Found("Diving-48", lists, vocabulary, (vocabulary,), "rgb/{name}.mp4", _read_diving)


def _read_diving(found: Found) -> tuple[dict[str, str], dict[str, list[Row]]]:
    assert found.labels is not None
    dives = read_json(found.labels)
    if not isinstance(dives, list) or not all(isinstance(dive, list | str) for dive in dives):
        raise DataError(f"{found.labels}: is no list of classes, each a list of four words")
    names = {str(i): dive if isinstance(dive, str) else " ".join(map(str, dive)) for i, dive in enumerate(dives)}
    parts = {
        split: [Row((video,), label) for video, label in objects(file, "vid_name", "label")]
        for split, file in found.lists.items()
    }
    return names, parts
