"""The state of a run on disk: all that the next step depends on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from timesformer.files import replace_file
from timesformer.model.base import VideoModel


@dataclass
class Progress:
    """How far a run has come, and what it has seen.

    Attributes:
        epoch: passes over the data that are complete.
        step: optimizer steps taken in the pass under way.
        seen, loss, correct: videos of the pass under way, sum of their losses, and how many were classified right.
        best: best validation score so far.
        bad: videos that failed to decode, and why.
    """

    epoch: int = 0
    step: int = 0
    seen: int = 0
    loss: float = 0.0
    correct: float = 0.0
    best: float | None = None
    bad: dict[str, str] = field(default_factory=dict)

    def add(self, seen: int, loss: float, correct: float) -> None:
        """Count a step."""
        self.step += 1
        self.seen += seen
        self.loss += loss
        self.correct += correct


def save_checkpoint(file: Path, progress: Progress, states: dict[str, Any]) -> None:
    """Write the progress and the state dicts of model, optimizer and average; the last file stays until then."""
    with replace_file(file) as new:
        torch.save({"progress": vars(progress), **states}, new)


def load_checkpoint(file: Path) -> tuple[Progress, dict[str, Any]]:
    """Read what `save_checkpoint` wrote. No code in the file is run."""
    states = torch.load(file, map_location="cpu", weights_only=True)
    return Progress(**states.pop("progress")), states


class WeightAverage:
    """A model whose weights are the exponential moving average of another's.

    Early on the average is shorter than `decay` says, so that it does not hold on to the start.
    """

    def __init__(self, model: VideoModel, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: VideoModel) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, current in zip(self.model.buffers(), model.buffers(), strict=True):  # statistics of batch norms
            mine.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.model.load_state_dict(state["model"])
