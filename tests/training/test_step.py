"""A step of the optimizer against its arithmetic, written out as loops over clips and classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD

from timesformer.training.optimizer import Optimizers
from timesformer.training.parallel import Alone
from timesformer.training.recipe import DataRecipe, OptimizerRecipe, Recipe
from timesformer.training.step import Step, Turn, take_step
from timesformer.video.clips import BadVideo, Batch

CLASSES, SIZE = 3, 6  # of a clip's numbers: (3, 1, 1, 2)
Rows = NDArray[np.float64]


class Flat(nn.Module):
    """Logits W x of the numbers x of a clip; with `drop`, of those that are left."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.weight = nn.Parameter(torch.from_numpy(rng.normal(size=(CLASSES, SIZE)).astype(np.float32)))
        self.idle = nn.Parameter(torch.ones(1))  # has no gradient
        self.dropout = nn.Dropout(drop)
        self.seen: list[tuple[Tensor, bool]] = []

    def forward(self, clips: Tensor) -> Tensor:
        self.seen.append((clips.clone(), self.training))
        return self.dropout(clips.flatten(1)) @ self.weight.T


def some(count: int, seed: int) -> tuple[Tensor, list[int]]:
    """Clips and their classes."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(count, 3, 1, 1, 2)).astype(np.float32)), [
        (seed + i) % CLASSES for i in range(count)
    ]


def batch(clips: Tensor, labels: Sequence[int | Sequence[int]], bad: tuple[BadVideo, ...] = ()) -> Batch:
    targets = torch.zeros(len(labels), CLASSES)
    for row, label in zip(targets, labels, strict=True):
        row[[label] if isinstance(label, int) else list(label)] = 1
    return Batch(clips, targets, bad)


def take(model: nn.Module, turns: Sequence[Turn], *, multi_label: bool = False, **options: Any) -> Step:
    """A step of plain gradient descent at a learning rate of 1: weights move by minus the gradient."""
    optimizer = Optimizers(SGD(model.parameters(), lr=1.0))
    return take_step(
        Alone(model), optimizer, turns, Recipe(**options),  # type: ignore[arg-type]
        multi_label=multi_label, bf16=False, seed=(1, 2, 3),
    )  # fmt: skip


def by_hand(weight: Rows, clips: Tensor, labels: Sequence[int], smoothing: float = 0.0) -> tuple[float, Rows, int]:
    """Sum over clips of cross entropy, its gradient, and how many are classified right."""
    loss, gradient, correct = 0.0, np.zeros_like(weight), 0
    for clip, label in zip(clips.double().numpy(), labels, strict=True):
        x = clip.reshape(-1)
        logits = [sum(weight[c, i] * x[i] for i in range(SIZE)) for c in range(CLASSES)]
        total = sum(math.exp(logit) for logit in logits)
        for c in range(CLASSES):
            wanted = (1 - smoothing) * (c == label) + smoothing / CLASSES
            share = math.exp(logits[c]) / total
            loss -= wanted * math.log(share)
            gradient[c] += (share - wanted) * x
        correct += max(range(CLASSES), key=lambda c: logits[c]) == label
    return loss, gradient, correct


def weight_of(model: Flat) -> Rows:
    return model.weight.detach().double().numpy().copy()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_step_moves_by_the_mean_over_the_clips_that_were_seen(smoothing: float) -> None:
    """Five of at most eight: in two micro-batches, beside one of broken videos and one of another process's."""
    model = Flat()
    before = weight_of(model)
    (first, ones), (second, others) = some(3, 0), some(2, 1)
    lost, gone = BadVideo("a.mp4", "broken"), BadVideo("b.mp4", "too")
    turns = [
        Turn(0, batch(first, ones, (lost,)), last=False),
        Turn(1, Batch(torch.empty(0), torch.empty(0), (gone,)), last=False),
        Turn(2, batch(second, others), last=False),
        Turn(0, None, last=True),
    ]
    step = take(model, turns, batch_size=8, label_smoothing=smoothing)
    loss, gradient, correct = by_hand(before, torch.cat([first, second]), [*ones, *others], smoothing)
    assert (step.seen, step.correct, step.bad) == (5, correct, (lost, gone))
    assert step.loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(weight_of(model), before - gradient / 5, atol=1e-6)
    assert model.idle.item() == 1
    assert all(training for _, training in model.seen)


@pytest.mark.parametrize("share", [0.5, 0.99, 1.01, 3.0])
def test_the_mean_is_what_is_clipped(share: float) -> None:
    """Norms up to `clip_grad` stay, greater ones become it: of the mean gradient, and not of the sum."""
    model = Flat()
    before = weight_of(model)
    clips, labels = some(4, 2)
    gradient = by_hand(before, clips, labels)[1] / 4
    norm = math.sqrt(sum(value**2 for value in gradient.flatten()))
    take(model, [Turn(0, batch(clips, labels), last=True)], optimizer=OptimizerRecipe(clip_grad=share * norm))
    np.testing.assert_allclose(weight_of(model), before - min(1.0, share) * gradient, atol=2e-6)


def test_each_step_starts_from_no_gradient() -> None:
    model = Flat()
    for seed in (3, 4):
        before = weight_of(model)
        clips, labels = some(2, seed)
        take(model, [Turn(0, batch(clips, labels), last=True)])
        np.testing.assert_allclose(weight_of(model), before - by_hand(before, clips, labels)[1] / 2, atol=1e-6)
        assert model.weight.grad is None or not model.weight.grad.any()


def test_several_labels_are_binary_choices_averaged_over_classes() -> None:
    model = Flat()
    before = weight_of(model)
    clips, labels = some(3, 5)[0], [(0, 2), (1,), (0, 1)]
    step = take(model, [Turn(0, batch(clips, labels), last=True)], multi_label=True, label_smoothing=0.2)
    loss, gradient, correct = 0.0, np.zeros_like(before), 0
    for clip, own in zip(clips.double().numpy(), labels, strict=True):
        x = clip.reshape(-1)
        logits = before @ x
        for c in range(CLASSES):
            share = 1 / (1 + math.exp(-logits[c]))
            target = 0.9 if c in own else 0.1  # half of the smoothed share says yes, half no
            loss -= (target * math.log(share) + (1 - target) * math.log(1 - share)) / CLASSES
            gradient[c] += (share - target) * x / CLASSES
        correct += int(logits.argmax()) in own
    assert step.loss == pytest.approx(loss, rel=1e-5)
    assert step.correct == correct
    np.testing.assert_allclose(weight_of(model), before - gradient / 3, atol=1e-6)


def test_a_step_without_a_clip_moves_nothing() -> None:
    model = Flat()
    before = weight_of(model)
    model.weight.grad = torch.ones_like(model.weight)
    step = take(model, [Turn(0, Batch(torch.empty(0), torch.empty(0), ()), last=True)])
    assert (step.seen, step.loss, step.correct, step.bad) == (0, 0.0, 0, ())
    assert np.array_equal(weight_of(model), before)
    assert model.weight.grad is None


def test_a_loss_that_is_not_finite_moves_nothing_and_says_what_to_try() -> None:
    model = Flat()
    before = weight_of(model)
    clips, labels = some(2, 6)
    with pytest.raises(
        FloatingPointError, match=r"^the loss is nan; try an optimizer\.lr below 0\.25, optimizer\.clip_grad=1 or"
    ):
        take(model, [Turn(0, batch(clips * math.nan, labels), last=True)], optimizer=OptimizerRecipe(lr=0.25))
    assert np.array_equal(weight_of(model), before)


def test_what_is_random_depends_on_the_place_in_the_step_alone() -> None:
    """Dropped elements and mixing; whatever was drawn before, and in whichever turn the place comes."""
    clips, labels = some(4, 7)
    options: dict[str, Any] = {"data": DataRecipe(mixup=0.8, cutmix=0)}

    def moved(*places: int) -> list[Tensor]:
        torch.manual_seed(len(places))
        torch.rand(len(places))
        model = Flat(drop=0.5)
        turns = [Turn(place, batch(clips, labels), last=place == places[-1]) for place in places]
        take(model, turns, **options)
        return [*(seen for seen, _ in model.seen), model.weight.detach()]

    one, two, both, turned = moved(0), moved(1), moved(0, 1), moved(1, 0)
    assert not torch.equal(one[0], clips), "clips are mixed"
    assert not torch.equal(one[0], two[0])
    assert torch.equal(both[0], one[0])
    assert torch.equal(both[1], two[0])
    torch.testing.assert_close(both[2], turned[2])
    start = Flat().weight.detach()
    torch.testing.assert_close(both[2] - start, ((one[1] - start) + (two[1] - start)) / 2)


def test_places_and_steps_drop_other_elements() -> None:
    """The same clips, unmixed: only by what is dropped can gradients differ."""
    clips, labels = some(4, 7)
    moved: list[Tensor] = []
    for place, seed in ((0, 1), (1, 1), (0, 2), (0, 1)):
        model = Flat(drop=0.5)
        take_step(
            Alone(model), Optimizers(SGD(model.parameters(), lr=1.0)),  # type: ignore[arg-type]
            [Turn(place, batch(clips, labels), last=True)], Recipe(), multi_label=False, bf16=False, seed=(0, seed),
        )  # fmt: skip
        moved.append(model.weight.detach())
    assert torch.equal(moved[0], moved[3])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(moved[one], moved[other])


def test_mixed_targets_weigh_the_loss() -> None:
    """With two clips a mixture is a line between them, and the target shares are those of the line."""
    model = Flat()
    before = weight_of(model)
    clips, labels = some(2, 8)
    for seed in range(20):  # until they are mixed with each other
        model = Flat()
        step = take_step(
            Alone(model), Optimizers(SGD(model.parameters(), lr=1.0)),  # type: ignore[arg-type]
            [Turn(0, batch(clips, labels), last=True)], Recipe(data=DataRecipe(mixup=1.0, cutmix=0)),
            multi_label=False, bf16=False, seed=(seed,),
        )  # fmt: skip
        mixed = model.seen[0][0]
        if not torch.equal(mixed, clips):
            break
    line = (clips[0] - clips[1]).flatten().double()
    kept = float((mixed[0] - clips[1]).flatten().double() @ line / (line @ line))
    loss, correct = 0.0, 0
    for clip, share in zip(mixed.double().numpy(), (kept, 1 - kept), strict=True):
        logits = before @ clip.reshape(-1)
        logs = logits - math.log(sum(math.exp(logit) for logit in logits))
        loss -= share * logs[labels[0]] + (1 - share) * logs[labels[1]]
        strongest = labels[0] if share > 0.5 else labels[1]
        correct += int(logits.argmax()) == strongest
    assert 0 < kept < 1
    assert step.loss == pytest.approx(loss, rel=1e-5)
    assert step.correct == correct


def test_bfloat16_is_used_where_it_is_asked_for() -> None:
    kinds: list[torch.dtype] = []

    class Kind(Flat):
        def forward(self, clips: Tensor) -> Tensor:
            logits = super().forward(clips)
            kinds.append(logits.dtype)
            return logits

    clips, labels = some(2, 9)
    for bf16 in (False, True):
        model = Kind()
        take_step(
            Alone(model), Optimizers(SGD(model.parameters(), lr=1.0)),  # type: ignore[arg-type]
            [Turn(0, batch(clips, labels), last=True)], Recipe(), multi_label=False, bf16=bf16, seed=(0,),
        )  # fmt: skip
    assert kinds == [torch.float32, torch.bfloat16]
