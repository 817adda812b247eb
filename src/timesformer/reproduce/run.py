"""Running an experiment: every row, column and seed is a training and a test, kept on disk, so that it can go on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from timesformer import models
from timesformer.evaluation.evaluate import evaluate
from timesformer.evaluation.protocols import PROTOCOLS
from timesformer.files import write_json
from timesformer.predictor import VideoClassifier
from timesformer.reproduce.experiment import Experiment, Results
from timesformer.training.loop import train
from timesformer.training.recipe import load_recipe
from timesformer.video.datasets import read_videos
from timesformer.video.synthetic import Task, write_dataset


@dataclass(frozen=True)
class Part:
    """One training and test."""

    row: str
    column: str
    seed: int
    recipe: str
    settings: tuple[str, ...]
    data: Path

    def folder(self, out: Path) -> Path:
        """Where it is kept: parts of different experiments that come to the same are one."""
        recipe = asdict(load_recipe(self.recipe, [*self.settings, f"seed={self.seed}"]))
        options = recipe.pop("model")
        with torch.device("meta"):
            model = models.create(options.pop("name", "timesformer_base"), **options)
        told = json.dumps([model.architecture, asdict(model.config), recipe, str(self.data)])
        return out / "parts" / hashlib.sha256(told.encode()).hexdigest()[:16]


def mini_parts(experiment: Experiment, out: Path, seeds: Sequence[int], data: Path | None = None) -> list[Part]:
    """The parts of an experiment in miniature; with `data`, on a labelled folder of one's own as well."""
    folders = {column: out / "data" / task for column, task in experiment.columns.items()}
    if data:
        folders[data.name] = data
    return [
        Part(row.name, column, seed, "mini", row.settings, folder)
        for row in experiment.rows
        for column, folder in folders.items()
        for seed in seeds
    ]


def full_parts(experiment: Experiment, data: Mapping[str, Path], seeds: Sequence[int]) -> list[Part]:
    """The parts of an experiment as the paper has it, on those of its data sets that are there.

    Raises:
        ValueError: none of them, or one that the experiment does not have.
    """
    known = list(dict.fromkeys(column for row in experiment.rows for column in row.full))
    for column in data:
        if column not in known:
            raise ValueError(f"{experiment.name}: data set {column!r} is not one of {', '.join(known)}")
    if not data:
        raise ValueError(f"{experiment.name} in full needs data: --data {known[0]}=DIR")
    return [
        Part(row.name, column, seed, row.full[column], (), folder)
        for row in experiment.rows
        for column, folder in data.items()
        if column in row.full
        for seed in seeds
    ]


def write_tasks(parts: Sequence[Part], out: Path) -> None:
    """The generated data of some parts, where they are not there yet."""
    for task in get_args(Task):
        folder = out / "data" / task
        if not folder.exists() and any(part.data == folder for part in parts):
            write_dataset(folder, task, train=800, val=0, test=160)


def run(
    experiment: Experiment, parts: Sequence[Part], out: Path, on_part: Callable[[str], None] = lambda line: None
) -> Results:
    """Train and test what is not done yet.

    Args:
        experiment: what it is for.
        parts: what to do; generated data that they need are written first.
        out: folder for data, parts and results.
        on_part: called with a line after each part.
    """
    write_tasks(parts, out)
    scores: dict[tuple[str, str], list[float]] = {}
    for number, part in enumerate(parts, 1):
        started = time.monotonic()
        result = run_part(part, out)
        scores.setdefault((part.row, part.column), []).append(result["top1"])
        what = f"{experiment.name} {number}/{len(parts)}: {part.row} on {part.data.name}, seed {part.seed}"
        on_part(f"{what}: {result['top1']:.1f} %  ({time.monotonic() - started:.0f} s)")
    return Results(scores)


def run_part(part: Part, out: Path) -> dict[str, Any]:
    """The figures of one part, trained and tested if need be: `top1` in percent."""
    folder = part.folder(out)
    done = folder / "result.json"
    if done.exists():
        result: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return result
    settings = [*part.settings, f"seed={part.seed}"]
    if part.recipe == "mini":
        settings.append(f"data.cache={out / 'frames'}")
    recipe = load_recipe(part.recipe, settings)
    videos = read_videos(part.data, "train")
    train(videos, folder / "run", recipe, resume=True)
    classifier = VideoClassifier.from_pretrained(folder / "run")
    test = read_videos(part.data, "test", classes=videos.classes)
    paper = PROTOCOLS["paper"]
    tested = evaluate(classifier.model, test, classifier.preprocessing, clips=paper.clips, crops=1, protocol=paper)
    result = {"top1": 100 * tested.accuracy, "videos": len(tested.items), **asdict(part), "data": str(part.data)}
    write_json(done, result)
    return result
