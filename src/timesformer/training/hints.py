"""What a run shows early when it learns nothing, and what to try: a line each, once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timesformer.training.loop import Report

_SHARE = 0.05  # of a run's epochs, after which something should be seen
_STEPS = 50  # and at least so many steps


class Hints:
    """Hints to the end of each epoch.

    Args:
        classes: how many there are; 0 where a video can have several labels, whose loss has no such chance level.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.at_chance = self.still = False  # what was said already

    def after(self, report: Report, *, moving: bool = True) -> str | None:
        """A hint to an epoch's last report, if there is one.

        Args:
            report: its loss and top-1.
            moving: whether anything moves in the clips that the model gets.
        """
        if not moving and not self.still:
            self.still = True
            return (
                "hint: all frames of the first clips are identical: nothing moves in what the model sees. Look at the "
                "videos, and at data.stride, which may be too small for them, or data.sampling=segments"
            )
        if self.classes < 2 or self.at_chance or not self._is_late(report):
            return None
        chance = math.log(self.classes)
        if report.loss < 0.97 * chance or report.top1 > 1.5 / self.classes:
            return None
        self.at_chance = True
        return (
            f"hint: the loss {report.loss:.3f} is that of chance (ln {self.classes} = {chance:.3f}), and so is top-1: "
            "nothing is learned so far. Try another optimizer.lr (a third, or three times as much), more steps "
            "(--set steps=…), less augmentation (data.rand_augment=0 data.scale=null), a model that was trained before "
            "(init=MODEL); and see that labels are right (`timesformer check`)"
        )

    @staticmethod
    def _is_late(report: Report) -> bool:
        epochs = report.epoch + 1
        return epochs >= _SHARE * report.epochs and epochs * report.steps >= _STEPS
