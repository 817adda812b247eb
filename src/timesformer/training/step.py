"""One step of the optimizer, shared by all processes of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.distributed import gather
from timesformer.training.optimizer import Optimizers
from timesformer.training.parallel import Alone
from timesformer.training.recipe import Recipe
from timesformer.video.clips import BadVideo, Batch
from timesformer.video.transforms import mixup_cutmix


@dataclass(frozen=True)
class Turn:
    """A forward and backward pass of a process in a step.

    Attributes:
        place: of the micro-batch within the step.
        batch: its clips; None where other processes have one and this has not.
        last: whether it is the process's last turn of the step.
    """

    place: int
    batch: Batch | None
    last: bool


@dataclass(frozen=True)
class Step:
    """What a step was taken on, in all processes.

    Attributes:
        seen: videos.
        loss: the sum of their losses.
        correct: how many were classified right.
        bad: videos that could not be read.
    """

    seen: int
    loss: float
    correct: int
    bad: tuple[BadVideo, ...]


def take_step(
    parallel: Alone,
    optimizer: Optimizers,
    turns: Iterable[Turn],
    recipe: Recipe,
    *,
    multi_label: bool,
    bf16: bool,
    seed: Sequence[int],
) -> Step:
    """One step: the gradients of all micro-batches add up, then the optimizer moves; no move without videos.

    What is random in a micro-batch is a function of `seed` and of its place in the step, whoever computes it.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    model = parallel.model
    device = next(model.parameters()).device
    model.train()
    seen, loss_sum, correct = 0, 0.0, 0
    bad: list[BadVideo] = []
    for turn in turns:
        with parallel.turn(last=turn.last):
            if turn.batch:
                bad += turn.batch.bad
            if not turn.batch or not len(turn.batch.clips):
                parallel.blank()
                continue
            rng = np.random.default_rng([*seed, turn.place])
            torch.manual_seed(int(rng.integers(2**63)))
            clips, targets = turn.batch.clips.to(device), turn.batch.targets.to(device)
            mixed, soft = mixup_cutmix(clips, targets, recipe.data.mixup, recipe.data.cutmix, rng)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = parallel.module(mixed).float()
            loss = _loss(logits, soft, multi_label, recipe.label_smoothing)
            loss.backward()
            seen += len(clips)
            loss_sum += loss.item()
            correct += _num_correct(logits, soft)
    step = _sum(gather(Step(seen, loss_sum, correct, tuple(bad))))
    if not np.isfinite(step.loss):
        raise FloatingPointError(
            f"the loss is {step.loss}; try an optimizer.lr below {recipe.optimizer.lr}, optimizer.clip_grad=1 "
            f"or precision=float32"
        )
    if step.seen:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= step.seen
        if recipe.optimizer.clip_grad:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_grad)
        optimizer.step()
        parallel.share_buffers()
    optimizer.zero_grad()
    return step


def _sum(steps: Sequence[Step]) -> Step:
    return Step(
        sum(step.seen for step in steps),
        sum(step.loss for step in steps),
        sum(step.correct for step in steps),
        tuple(bad for step in steps for bad in step.bad),
    )


def _loss(logits: Tensor, targets: Tensor, multi_label: bool, smoothing: float) -> Tensor:
    """Sum over the batch of cross entropy; of binary cross entropy, averaged over classes, for several labels.

    A share of the target is spread over the classes, or, for several labels, over yes and no of each.
    """
    if multi_label:
        targets = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1).sum()
    return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)


def _num_correct(logits: Tensor, targets: Tensor) -> int:
    """Samples whose top class is (one of) their strongest label(s)."""
    top = targets.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]
    return int((top == targets.amax(dim=1)).sum())
