"""Which runs may go on from a checkpoint: the same run, or one that is longer and has been the same until now."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from timesformer.training.checkpoint import Progress, as_checkpoint
from timesformer.training.errors import TrainingError
from timesformer.training.optimizer import learning_rate
from timesformer.training.recipe import OptimizerRecipe, Recipe
from timesformer.typed import build

# Settings of a run's length: they may change where the learning rate of all steps so far stays what it was.
_LENGTH = ("epochs", "steps", "optimizer.milestones", "optimizer.warmup")


def check_same_run(
    checkpoint: Path, then: dict[str, Any], now: dict[str, Any], recipe: Recipe, num_videos: int, progress: Progress
) -> None:
    """See that a run can go on from a checkpoint: TrainingError that names the setting that is another.

    Args:
        checkpoint: its file.
        then, now: the settings of the run that wrote it, and of this one.
        recipe, num_videos: of this run.
        progress: how far the checkpoint is.
    """
    changed = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    for name in changed:
        if name not in _LENGTH:
            values = "" if name == "videos" else f" ({then.get(name)}, now {now.get(name)})"
            raise TrainingError(
                f"{checkpoint} is of a run with other {name}{values}: resume with the same, or choose another folder"
            )
    if changed:
        _check_length(checkpoint, then, changed, recipe, num_videos, progress)


def _check_length(
    checkpoint: Path, then: dict[str, Any], changed: list[str], recipe: Recipe, num_videos: int, progress: Progress
) -> None:
    with as_checkpoint(checkpoint):
        before = dataclasses.replace(recipe, epochs=then["epochs"], steps=then["steps"])
        names = [field.name for field in dataclasses.fields(OptimizerRecipe)]
        optimizer = build(OptimizerRecipe, {name: then[f"optimizer.{name}"] for name in names})
    own, other = before.num_epochs(num_videos), recipe.num_epochs(num_videos)
    if other < progress.epoch + (progress.step > 0):
        raise TrainingError(
            f"{checkpoint}: epochs={other}: the run has begun or finished {progress.epoch + (progress.step > 0)} epochs"
            " already: give at least as many"
        )
    steps = math.ceil(num_videos / recipe.batch_size)
    for step in range(progress.epoch * steps + progress.step):
        rates = learning_rate(optimizer, step / steps, own), learning_rate(recipe.optimizer, step / steps, other)
        if not math.isclose(*rates, rel_tol=1e-9):
            raise TrainingError(_why_not(checkpoint, changed, optimizer, recipe.optimizer, own, other))


def _why_not(
    checkpoint: Path, changed: list[str], then: OptimizerRecipe, now: OptimizerRecipe, own: int, other: int
) -> str:
    new_run = "start a new run from this one's model: another --out, with --set init=RUN"
    if now.schedule == "cosine":
        return (
            f"{checkpoint}: a run of {own} epochs can't become one of {other}: its learning rate follows a cosine over "
            f"all of them (optimizer.schedule=cosine); {new_run}"
        )
    if then.milestones != now.milestones:
        return (
            f"{checkpoint}: optimizer.milestones={list(now.milestones)}, {list(then.milestones)} until now: epochs "
            f"that are over would have had another learning rate; only later milestones can change, or {new_run}"
        )
    was = round(then.warmup * own, 6)
    return (
        f"{checkpoint}: optimizer.warmup={now.warmup:g} of {other} epochs, {then.warmup:g} of {own} until now: the "
        f"warm-up would have been another; set optimizer.warmup={was / other:.6g}, or {new_run}"
    )
