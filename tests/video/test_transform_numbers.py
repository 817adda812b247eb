"""Transforms against numbers and arithmetic that are written out here: constants, ends of ranges, borders."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.video.test_transforms import as_planes, batch, coordinates, noise
from timesformer.video import transforms
from timesformer.video.transforms import TrainTransform


def test_normalized_values_are_the_released_ones() -> None:
    clip = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    expected = [(0 - 0.45) / 0.225, (0.2 - 0.45) / 0.225, (1 - 0.45) / 0.225]
    assert transforms.normalize(clip).flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [(0.05, 0.1), (0.3, 0.5)])
def test_boxes_have_the_usual_aspects(scale: tuple[float, float]) -> None:
    """From 3 : 4 to 4 : 3 for crops and from 0.3 to 1 / 0.3 for erasing, as likely upright as lying."""
    for aspect, lowest in ((transforms.CROP_ASPECT, 3 / 4), (transforms.ERASING_ASPECT, 0.3)):
        rng = np.random.default_rng(0)
        boxes = np.array([transforms._random_box(2000, 2000, scale, aspect, rng) for _ in range(1000)], float)
        ratio, area = boxes[:, 3] / boxes[:, 2], boxes[:, 2] * boxes[:, 3] / 2000**2
        assert ratio.min() == pytest.approx(lowest, rel=0.03)
        assert ratio.max() == pytest.approx(1 / lowest, rel=0.03)
        assert np.log(ratio).mean() == pytest.approx(0, abs=0.1)
        assert area.min() == pytest.approx(scale[0], rel=0.03)
        assert area.max() == pytest.approx(scale[1], rel=0.03)
    assert pytest.approx((0.02, 1 / 3)) == transforms.ERASING_AREA


def test_the_ends_of_every_range_are_allowed() -> None:
    clip = noise(2, 12, 10)
    rng = np.random.default_rng(0)
    for options in (
        {"flip": 0.0}, {"flip": 1.0}, {"erasing": 0.0}, {"erasing": 1.0}, {"rand_augment": 0}, {"rand_augment": 10},
        {"rand_augment": 1}, {"scale": (1.0, 1.0)}, {"scale": (0.01, 0.01)}, {"short_side": (8, 8)},
    ):  # fmt: skip
        transform = TrainTransform(**({"image_size": 8, "short_side": (8, 9)} | options))  # type: ignore[arg-type]
        assert transform(clip, rng).shape == (3, 2, 8, 8)
    assert TrainTransform(1, (1, 1))(clip, rng).shape == (3, 2, 1, 1)
    assert transforms.resize_short_side(clip, 1).shape == (2, 1, 1, 3)
    assert torch.equal(transforms.crop(clip, 0, 0, 12, 10), clip)
    assert torch.equal(transforms.crop(clip, 11, 9, 1, 1), clip[:, 11:, 9:])
    assert torch.equal(transforms.crop(clip, 1, 2, 3, 4), clip[:, 1:4, 2:6])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: transforms.crop(c, 0, -1, 8, 8), "at (0, -1)"),
        (lambda c: transforms.crop(c, 0, 0, 8, 0), "got 8x0 px"),
        (lambda c: transforms.crop(c, 3, 0, 8, 8), "at (3, 0)"),
        (lambda c: transforms.spatial_crops(c, 11, 3), "got 11x11 px"),
        (lambda c: transforms.normalize(c[0]), "got torch.uint8 (10, 12, 3)"),
        (lambda c: transforms.normalize(c[..., :2]), "got torch.uint8 (2, 10, 12, 2)"),
        (lambda c: transforms.rand_augment(c.float(), 5, np.random.default_rng(0)), "got torch.float32"),
        (lambda c: TrainTransform(8, (8, 9), scale=(0.5, 1.1)), "scale must be"),
        (lambda c: TrainTransform(8, (8, 9), scale=(0.6, 0.5)), "scale must be"),
        (lambda c: TrainTransform(8, (8, 9), flip=-0.1), "flip must be in 0..1, got -0.1"),
        (lambda c: TrainTransform(8, (8, 9), erasing=1.1), "erasing must be in 0..1, got 1.1"),
        (lambda c: TrainTransform(8, (8, 9), rand_augment=-1), "rand_augment must be in 0..10, got -1"),
        (lambda c: transforms.mixup_cutmix(*batch(), -1, 0, np.random.default_rng(0)), "mixup must be at least 0"),
    ],
)
def test_one_step_beyond_every_range_is_refused(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call(noise(2, 10, 12))
    assert message in str(error.value)


def test_a_plain_transform_neither_augments_nor_erases_but_flips_half() -> None:
    clip = noise(2, 16, 16)
    plain = transforms.normalize(clip)
    rng = np.random.default_rng(0)
    flipped = 0
    for _ in range(100):
        planes = TrainTransform(16, (16, 16))(clip, rng)
        mirrored = torch.equal(planes, plain.flip(-1))
        flipped += mirrored
        assert mirrored or torch.equal(planes, plain)
    assert 30 <= flipped <= 70


def test_shears_move_along_one_axis() -> None:
    ramp = as_planes(coordinates(1, 80, 40))
    x, y = transforms._shear_x(ramp.clone(), 1.0)[0, :2]
    torch.testing.assert_close(y[30:50, 15:25], ramp[0, 1, 30:50, 15:25], rtol=0, atol=1e-2)
    rows = torch.arange(30, 50) + 0.5 - 40
    torch.testing.assert_close(x[30:50, 20], 20 + 0.3 * rows, rtol=0, atol=1e-2)
    x, y = transforms._shear_y(ramp.clone(), -1.0)[0, :2]
    torch.testing.assert_close(x[30:50, 15:25], ramp[0, 0, 30:50, 15:25], rtol=0, atol=1e-2)
    columns = torch.arange(15, 25) + 0.5 - 20
    torch.testing.assert_close(y[40, 15:25], 40 - 0.3 * columns, rtol=0, atol=1e-2)


def test_rotation_turns_about_the_centre() -> None:
    x, y = transforms._rotate(as_planes(coordinates(1, 60, 60)), 0.5)[0, :2]
    angle = math.radians(15)
    for row, column in ((29, 29), (20, 35), (40, 28)):
        dx, dy = column + 0.5 - 30, row + 0.5 - 30
        expected = (
            30 + math.cos(angle) * dx - math.sin(angle) * dy - 0.5,
            30 + math.sin(angle) * dx + math.cos(angle) * dy - 0.5,
        )
        assert (x[row, column].item(), y[row, column].item()) == (
            pytest.approx(expected[0], abs=1e-2),
            pytest.approx(expected[1], abs=1e-2),
        )


def test_sharpness_at_the_borders_takes_the_border_for_what_lies_beyond() -> None:
    """The smoothing kernel has 5 parts of 13 in the middle and 1 around; full strength goes 0.9 of the way."""
    planes = as_planes(noise(1, 5, 6))
    result = transforms._sharpness(planes.clone(), -1.0)
    for y in range(5):
        for x in range(6):
            around = [(min(max(y + i, 0), 4), min(max(x + j, 0), 5)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            smooth = (sum(planes[0, 1, i, j].item() for i, j in around) + 4 * planes[0, 1, y, x].item()) / 13
            expected = planes[0, 1, y, x].item() + 0.9 * (smooth - planes[0, 1, y, x].item())
            assert result[0, 1, y, x].item() == pytest.approx(expected, abs=1e-2)


def test_a_clip_of_one_batch_is_mixed_with_itself_at_most() -> None:
    clips, targets = batch(1)
    for mixup, cutmix in ((1.0, 0.0), (0.0, 1.0)):
        mixed, soft = transforms.mixup_cutmix(clips, targets, mixup, cutmix, np.random.default_rng(0))
        torch.testing.assert_close(mixed, clips)
        torch.testing.assert_close(soft, targets)


def test_mixup_keeps_the_share_that_beta_draws() -> None:
    """A clip of zeros and one of ones: what is kept is read off, and has the mean and variance of Beta(a, a)."""
    clips = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1).expand(2, 3, 1, 2, 2).contiguous()
    for alpha in (0.2, 2.0):
        kept = []
        for seed in range(1000):
            mixed, _ = transforms.mixup_cutmix(clips, torch.eye(2), alpha, 0, np.random.default_rng(seed))
            if not torch.equal(mixed, clips):
                kept.append(mixed[1, 0, 0, 0, 0].item())
        assert len(kept) == pytest.approx(500, abs=75), "half of the pairs are of two clips"
        assert np.mean(kept) == pytest.approx(0.5, abs=0.05)
        assert np.var(kept) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)
