"""The state of a run on disk: all that the next step depends on."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import secrets
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer import models
from timesformer.files import replace_file
from timesformer.model.base import VideoModel
from timesformer.model.containers import check_container
from timesformer.model.formats import shape_of
from timesformer.model.tensors import WeightsError, check_tensors
from timesformer.model.weights import check_shapes
from timesformer.ranges import shown
from timesformer.training.errors import TrainingError
from timesformer.typed import STRICT, build

logger = logging.getLogger(__name__)


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

    __pydantic_config__ = STRICT

    def add(self, seen: int, loss: float, correct: float) -> None:
        """Count a step."""
        self.step += 1
        self.seen += seen
        self.loss += loss
        self.correct += correct


# What reading a file of another kind ends in.
_NO_CHECKPOINT = (
    WeightsError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError,
    AssertionError, MemoryError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip
# What a run, and the command `train`, put into a folder after its recipe.
_WRITTEN = (
    "best", "last", "metrics.jsonl", "tensorboard", "report.html", "held_out.csv", "videos.json", "bad_videos.txt",
    "bad_validation_videos.txt",
)  # fmt: skip
LATEST, PREVIOUS, UNREADABLE = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.unreadable.pt"


def save_checkpoint(folder: Path, progress: Progress, states: dict[str, Any]) -> None:
    """Write the progress and the state dicts of model, optimizer and average as `checkpoint.pt` of a folder.

    What was of that name becomes `checkpoint.previous.pt`, once the new one is complete.

    Raises:
        TrainingError: it can't be written, as on a full disk; what was there stays.
    """
    file = folder / LATEST
    try:
        with replace_file(file) as new:
            with new.open("wb") as out:  # by Python, which says why where it fails
                torch.save({"progress": vars(progress), **states}, out)
                out.flush()
                os.fsync(out.fileno())
            if file.exists():
                _keep(file, folder / PREVIOUS)
    except OSError as error:
        kept = checkpoints(folder)
        going_on = f"make room, then go on (--resume) from {kept[0]}" if kept else "there is none to go on from yet"
        raise TrainingError(f"{error}: {going_on}") from error


def _keep(file: Path, other: Path) -> None:
    """Give a file another name as well, so that at no moment there is none; where a disk can't do that, instead."""
    link = other.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{other.name}")
    try:
        os.link(file, link)
    except OSError:
        os.replace(file, other)
    else:
        os.replace(link, other)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    return [file for name in (LATEST, PREVIOUS) if (file := folder / name).exists()]


def check_folder(out: Path) -> None:
    """See that what a run writes replaces nothing that no run wrote: where one was begun there is its recipe.

    Raises:
        TrainingError: the folder holds something else of these names.
    """
    if (out / "recipe.yaml").exists() or checkpoints(out):
        return
    for name in _WRITTEN:
        if (out / name).exists():
            raise TrainingError(f"{out / name}: exists, and no run wrote it: move it, or name another folder")


def latest_readable(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that is whole; None where there is none at all.

    One that is truncated or damaged is warned of, and put aside as `checkpoint.unreadable.pt` if the one before it
    is whole.

    Raises:
        TrainingError: there are some, but none that is whole.
    """
    problems: list[str] = []
    for file in checkpoints(folder):
        try:
            check_container(file)
            with zipfile.ZipFile(file) as content:
                if (damaged := content.testzip()) is not None:
                    raise zipfile.BadZipFile(f"its part {damaged} is damaged")
        except Exception as error:  # what the zip reader raises over damaged bytes is not told, and is of many kinds
            problems.append(f"{file} can't be read ({error})")
            continue
        if problems:
            logger.warning("%s: going on from the one before it, %s", problems[0], file)
            os.replace(folder / LATEST, folder / UNREADABLE)
        return file
    if problems:
        raise TrainingError(f"{'; '.join(problems)}: remove what can't be read to start anew")
    return None


def load_checkpoint(file: Path) -> tuple[Progress, dict[str, Any]]:
    """Read what `save_checkpoint` wrote; tensors stay on the disk until they are used. No code in the file is run.

    Raises:
        TrainingError: it is no such file.
    """
    with as_checkpoint(file):
        check_container(file)
        states = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return _checked(file, states), states


@contextmanager
def as_checkpoint(file: Path) -> Iterator[None]:
    """Name the checkpoint in what is wrong with it, as a TrainingError."""
    try:
        yield
    except _NO_CHECKPOINT as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        raise TrainingError(f"{file} is no checkpoint ({reason}): remove it to start anew") from error


def _checked(file: Path, states: Any) -> Progress:
    """The progress of a checkpoint, taken out of its states, which are seen to fit each other before a model is made.

    Raises:
        ValueError, WeightsError: something is missing, of another kind than it must be, or larger than the file.
    """
    kinds: dict[str, Any] = {"progress": dict, "model": dict, "optimizer": dict | list, "run": dict}
    for name, kind in {**kinds, "architecture": str, "config": dict}.items():
        if not isinstance(states, dict) or not isinstance(states.get(name), kind):
            raise ValueError(f"it has no {name}, or one that is not understood")
    check_tensors(file, dict(_tensors(states, "")))
    progress = build(Progress, states.pop("progress"))
    numbers = [progress.epoch, progress.step, progress.seen]
    if not all(0 <= number < 2**53 for number in numbers):
        raise ValueError(f"its progress of {shown(numbers)} epochs, steps and videos")
    blank = shape_of(lambda: models.build(states["architecture"], states["config"]), "its config")
    check_shapes(states["model"], blank, "its model")
    return progress


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors among nested states, with names for errors."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from _tensors(each, f"{name}.{key}" if name else str(key))


class WeightAverage:
    """A model whose weights are the exponential moving average of another's.

    Early on the average is shorter than `decay` says, so that it does not hold on to the start.
    """

    def __init__(self, model: VideoModel, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: VideoModel) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, current in zip(self.model.buffers(), model.buffers(), strict=True):  # statistics of batch norms
            mine.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """The averages, for a checkpoint."""
        return {"updates": self.updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.updates = state["updates"]
        self.model.load_state_dict(state["model"])
