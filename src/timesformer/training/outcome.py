"""What a run with validation has reached: its best model, which is the one that is used, and its last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer import models
from timesformer.evaluation.evaluate import Evaluation, evaluate
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing


@dataclass(frozen=True)
class Outcome:
    """The epochs of the best model and of the last one, and what validation gave for each.

    Attributes:
        best_epoch, last_epoch: numbers from 1.
        best, last: top-1 accuracy, or mean average precision where a video can have several labels; in [0, 1].
    """

    best_epoch: int
    best: float
    last_epoch: int
    last: float

    def lines(self, epochs: int) -> list[str]:
        """For a reader, where the run has so many epochs."""
        lines = [f"best: {self.best:.1%} on the validation videos, epoch {self.best_epoch} of {epochs}"]
        if self.last_epoch != self.best_epoch:
            lines.append(f"last: {self.last:.1%}, epoch {self.last_epoch}")
        return lines


def outcome(epochs: Sequence[Mapping[str, Any]]) -> Outcome | None:
    """From the figures of a run's epochs (`timesformer.epochs.read_epochs`); None where nothing was validated."""
    tested = [(each["epoch"], each["validation_accuracy"]) for each in epochs if _is_number(each)]
    if not tested:
        return None
    highest = max(value for _, value in tested)
    best = max(epoch for epoch, value in tested if value == highest)  # of equal ones the later is kept
    return Outcome(best, highest, *tested[-1])


def _is_number(epoch: Mapping[str, Any]) -> bool:
    value = epoch.get("validation_accuracy")
    return isinstance(value, int | float) and not isinstance(value, bool)


def evaluation_of_best(
    folder: Path, reached: Outcome, made: Mapping[int, Evaluation], validation: VideoList, workers: int
) -> Evaluation:
    """The evaluation of a run's best model: the one that training made, by epoch, or a new one.

    A run that was resumed may have made it in a process that is gone.
    """
    if reached.best_epoch in made:
        return made[reached.best_epoch]
    model = models.load(folder / "best")
    assert model.preprocessing is not None
    return evaluate(model, validation, Preprocessing(**model.preprocessing), workers=workers)
