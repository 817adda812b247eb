"""What figures are of: which videos, tested how, and whether the model had anything to do with them before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timesformer.documents import read_json
from timesformer.evaluation.protocols import Clips, Protocol
from timesformer.files import write_json
from timesformer.model.card import run_folder
from timesformer.model.weights import model_folder
from timesformer.ranges import shown
from timesformer.video.datasets import splits
from timesformer.video.items import VideoItem, VideoList
from timesformer.video.shards import PackedVideo

_FILE = "videos.json"  # of a run


def write_used_videos(run: Path, train: VideoList, validation: VideoList | None) -> None:
    """Write which videos a run learns from, and which it is validated on, into its folder: short digests of paths."""
    chosen_by = _names(validation.items) if validation else []
    write_json(run / _FILE, {"train": _names(train.items), "validation": chosen_by})


def about_evaluation(
    model: str | Path, data: str | Path, split: str, videos: VideoList, protocol: Protocol, clips: Clips, crops: int
) -> dict[str, Any]:
    """What `metrics.json` says beside the figures.

    `split` is the one that was read: `all` where the data have none, `val` where they have no test split.
    `trained_on` and `chosen_by` are how many of the videos the model was trained on, and how many its weights were
    chosen by, among those of other epochs; null where the model's run does not tell. A video is known by its path.

    Raises:
        ValueError: what the run says of its videos is not understood.
    """
    own = () if Path(data).is_file() else splits(data)
    read = split if split in own else "val" if own else "all"
    about: dict[str, Any] = {"model": str(model), "data": str(data), "split": read}
    about |= {"protocol": protocol.name, "clips": clips, "crops": crops}
    return {**about, **_overlap(Path(model), videos)}


def _overlap(model: Path, videos: VideoList) -> dict[str, int | None]:
    run = run_folder(model)
    if run is None or not (run / _FILE).is_file():
        return {"trained_on": None, "chosen_by": None}
    used = _read_used(run / _FILE)
    folder = model_folder(model)
    was_chosen = folder is not None and folder.resolve().name == "best"
    names = set(_names(videos.items))
    return {
        "trained_on": len(names.intersection(used["train"])),
        "chosen_by": len(names.intersection(used["validation"])) if was_chosen else 0,
    }


def _read_used(file: Path) -> dict[str, list[str]]:
    used = read_json(file)
    for name in ("train", "validation"):
        digests = used.get(name) if isinstance(used, dict) else None
        if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
            raise ValueError(f"{file}: {name}={shown(digests)} must be a list of digests, as a run writes it")
    return {name: used[name] for name in ("train", "validation")}


def _names(items: Iterable[VideoItem]) -> list[str]:
    def name(item: VideoItem) -> str:
        path = item.path.absolute() if isinstance(item.path, PackedVideo) else item.path.resolve()
        return hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:16]

    return sorted({name(item) for item in items})
