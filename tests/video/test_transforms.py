from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from timesformer.video import transforms
from timesformer.video.transforms import MEAN, STD, TrainTransform

GEOMETRIC = (
    transforms._translate_x,
    transforms._translate_y,
    transforms._shear_x,
    transforms._shear_y,
    transforms._rotate,
)


def noise(num_frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8))


def coordinates(num_frames: int, height: int, width: int) -> Tensor:
    """Red is x, green is y, blue the number of the frame: every pixel tells where it comes from."""
    t, y, x = torch.meshgrid(*(torch.arange(n) for n in (num_frames, height, width)), indexing="ij")
    return torch.stack([x, y, t], dim=-1).to(torch.uint8)


def denormalize(planes: Tensor) -> Tensor:
    return (planes.double() * STD + MEAN) * 255


def source_box(planes: Tensor) -> tuple[float, float, float, float]:
    """(top, left, height, width) that a transformed `coordinates` clip shows of it; width < 0 if flipped.

    From two pixels well inside, where the resampling of a linear ramp is exact but for rounding.
    """
    size = planes.shape[-1]
    near, far = size // 8, size - 1 - size // 8
    values = denormalize(planes)[:, 0]
    box = []
    for line in (values[1, :, size // 2], values[0, size // 2, :]):
        step = float(line[far] - line[near]) / (far - near)
        box.append((float(line[near]) + 0.5 - step * (near + 0.5), step * size))
    (top, height), (left, width) = box
    return top, left, height, width


# Resizing, cropping, normalising


@pytest.mark.parametrize(
    ("height", "width", "size"), [(120, 160, 64), (97, 61, 40), (48, 64, 100), (50, 50, 49), (240, 426, 224)]
)
def test_resize_agrees_with_pillow_and_with_the_exact_result(height: int, width: int, size: int) -> None:
    clip = noise(2, height, width)
    resized = transforms.resize_short_side(clip, size)
    assert min(resized.shape[1:3]) == size
    assert abs(resized.shape[2] / resized.shape[1] / (width / height) - 1) < 1 / size
    for frame, result in zip(clip, resized, strict=True):
        shape = (resized.shape[2], resized.shape[1])
        expected = np.asarray(Image.fromarray(frame.numpy()).resize(shape, Image.Resampling.BILINEAR))
        apart = np.abs(expected.astype(int) - result.numpy().astype(int))
        assert (apart > 1).mean() < 1e-3  # both round twice, once for each axis: rarely, in opposite directions
        assert apart.max() <= 2
    exact = torch.nn.functional.interpolate(
        clip.permute(0, 3, 1, 2).double(), resized.shape[1:3], mode="bilinear", antialias=True
    )
    assert float((resized.permute(0, 3, 1, 2) - exact).abs().max()) < 1.1


def test_resize_of_a_crop_view_is_that_of_its_copy() -> None:
    view = transforms.crop(noise(3, 60, 80), 5, 7, 41, 50)
    assert torch.equal(transforms.resize_short_side(view, 32), transforms.resize_short_side(view.clone(), 32))


def test_resize_to_the_same_size_costs_nothing() -> None:
    clip = noise(2, 32, 48)
    assert transforms.resize_short_side(clip, 32) is clip


def test_crops_show_the_right_place_without_a_copy() -> None:
    clip = coordinates(3, 30, 50)
    box = transforms.crop(clip, 4, 6, 10, 20)
    assert box.shape == (3, 10, 20, 3)
    assert box[2, 0, 0].tolist() == [6, 4, 2]
    assert box[2, -1, -1].tolist() == [25, 13, 2]
    assert box.untyped_storage().data_ptr() == clip.untyped_storage().data_ptr()
    assert transforms.center_crop(clip, 20)[0, 0, 0].tolist() == [15, 5, 0]


@pytest.mark.parametrize("size", [20, 30])
def test_spatial_crops_lie_along_the_longer_side(size: int) -> None:
    middle = (30 - size) // 2
    for clip, along, across in ((coordinates(2, 30, 51), 0, 1), (coordinates(2, 51, 30), 1, 0)):
        crops = transforms.spatial_crops(clip, size, 3)
        assert [c.shape[1:3] for c in crops] == [(size, size)] * 3
        assert [int(c[0, 0, 0, along]) for c in crops] == [0, (51 - size) // 2, 51 - size]
        assert [int(c[0, 0, 0, across]) for c in crops] == [middle] * 3
        (centre,) = transforms.spatial_crops(clip, size, 1)
        assert torch.equal(centre, crops[1])


def test_normalize_is_the_formula() -> None:
    clip = noise(4, 9, 7)
    planes = transforms.normalize(clip)
    assert planes.dtype == torch.float32
    assert planes.is_contiguous()
    expected = ((clip.double() / 255 - MEAN) / STD).permute(3, 0, 1, 2)
    torch.testing.assert_close(planes, expected.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: transforms.crop(c, 0, 5, 8, 8), "inside the frame of 10x12 px, got 8x8 px at (0, 5)"),
        (lambda c: transforms.crop(c, -1, 0, 8, 8), "got 8x8 px at (-1, 0)"),
        (lambda c: transforms.crop(c, 0, 0, 0, 8), "got 0x8 px at (0, 0)"),
        (lambda c: transforms.center_crop(c, 11), "got 11x11 px"),
        (lambda c: transforms.spatial_crops(c, 8, 2), "num_crops must be 1 or 3, got 2"),
        (
            lambda c: transforms.normalize(c.float()),
            "must be uint8 (F, H, W, 3), got torch.float32 (2, 10, 12, 3)",
        ),
        (lambda c: transforms.resize_short_side(c.permute(0, 3, 1, 2), 8), "got torch.uint8 (2, 3, 10, 12)"),
        (lambda c: transforms.resize_short_side(c, 0), "size must be at least 1, got 0"),
    ],
)
def test_bad_clips_and_boxes_are_named(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call(noise(2, 10, 12))
    assert message in str(error.value)


# The training transform


@pytest.mark.parametrize(
    "transform",
    [
        TrainTransform(32, (36, 48)),
        TrainTransform(32, (36, 48), scale=(0.2, 1.0)),
        TrainTransform(32, (36, 48), rand_augment=10, erasing=0.5),
    ],
)
def test_transform_is_a_function_of_clip_and_generator(transform: TrainTransform) -> None:
    clip = noise(4, 45, 60)
    before, global_state = clip.clone(), torch.get_rng_state()
    first = [transform(clip, rng) for rng in [np.random.default_rng(5)] for _ in range(6)]
    again = [transform(clip, rng) for rng in [np.random.default_rng(5)] for _ in range(6)]
    other = [transform(clip, rng) for rng in [np.random.default_rng(6)] for _ in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(clip, before)
    assert torch.equal(torch.get_rng_state(), global_state)
    for planes in first:
        assert planes.shape == (3, 4, 32, 32)
        assert planes.dtype == torch.float32
        assert planes.is_contiguous()


def test_jitter_cuts_square_boxes_of_every_size_and_place() -> None:
    rng = np.random.default_rng(0)
    transform = TrainTransform(48, (60, 96), flip=0)
    clip = coordinates(2, 120, 160)
    boxes = np.array([source_box(transform(clip, rng)) for _ in range(1500)])
    top, left, height, width = boxes.T
    assert np.abs(height - width).max() < 3.1  # a level of rounding at either pixel measured
    short_side = 48 * 120 / height
    assert short_side.min() == pytest.approx(60, abs=2.5)
    assert short_side.max() == pytest.approx(96, abs=4.5)
    assert short_side.mean() == pytest.approx(78, abs=1.5)
    for start, extent, side in ((top, height, 120), (left, width, 160)):
        place = start / (side - extent)
        assert place.min() == pytest.approx(0, abs=0.05)
        assert place.max() == pytest.approx(1, abs=0.05)
        assert place.mean() == pytest.approx(0.5, abs=0.03)


def test_cut_then_resize_is_resize_then_cut() -> None:
    clip = coordinates(2, 120, 160)
    for seed in range(50):
        planes = TrainTransform(48, (60, 60), flip=0)(clip, np.random.default_rng(seed))
        top, left, height, width = source_box(planes)
        assert (height, width) == (pytest.approx(96, abs=2), pytest.approx(96, abs=2))
        resized = transforms.resize_short_side(clip, 60)
        y, x = round(top / 2), round(left / 2)
        expected = transforms.normalize(transforms.crop(resized, y, x, 48, 48))
        assert float((denormalize(planes) - denormalize(expected)).abs().max()) <= 3  # within a px of the result


def test_without_jitter_or_room_the_transform_only_resizes() -> None:
    clip = noise(3, 50, 50)
    expected = transforms.normalize(transforms.resize_short_side(clip, 32))
    assert torch.equal(TrainTransform(32, (32, 32), flip=0)(clip, np.random.default_rng(0)), expected)


def test_at_the_source_size_the_transform_only_crops() -> None:
    clip = coordinates(2, 40, 60)
    planes = denormalize(TrainTransform(32, (40, 40), flip=0)(clip, np.random.default_rng(0))).round().int()
    left, top = planes[:2, 0, 0, 0].tolist()
    assert torch.equal(planes, transforms.crop(clip, top, left, 32, 32).permute(3, 0, 1, 2).int())


def test_all_frames_get_the_same_augmentation() -> None:
    clip = noise(1, 60, 80).expand(5, -1, -1, -1)
    transform = TrainTransform(32, (36, 48), rand_augment=9, erasing=0.5)
    for seed in range(40):
        planes = transform(clip, np.random.default_rng(seed))
        torch.testing.assert_close(planes, planes[:, :1].expand_as(planes), rtol=0, atol=0)


def test_frames_keep_their_order() -> None:
    planes = denormalize(TrainTransform(32, (36, 48))(coordinates(5, 60, 80), np.random.default_rng(0)))
    assert planes[2].mean((1, 2)).round().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("flip", "low", "high"), [(0.0, 0, 0), (0.5, 160, 240), (1.0, 400, 400)])
def test_flip_has_its_probability(flip: float, low: int, high: int) -> None:
    rng = np.random.default_rng(1)
    transform = TrainTransform(16, (18, 24), flip=flip)
    clip = coordinates(1, 30, 40)
    flipped = sum(source_box(transform(clip, rng))[3] < 0 for _ in range(400))
    assert low <= flipped <= high


def test_flip_mirrors_and_nothing_else() -> None:
    clip = noise(3, 40, 60)
    for seed in range(5):
        plain = TrainTransform(32, (36, 48), flip=0)(clip, np.random.default_rng(seed))
        mirrored = TrainTransform(32, (36, 48), flip=1)(clip, np.random.default_rng(seed))
        assert torch.equal(mirrored, plain.flip(-1))


def test_random_resized_crop_keeps_its_ranges() -> None:
    rng = np.random.default_rng(0)
    transform = TrainTransform(64, (64, 64), flip=0, scale=(0.25, 0.6))
    clip = coordinates(2, 180, 240)
    top, left, height, width = np.array([source_box(transform(clip, rng)) for _ in range(800)]).T
    area, aspect = height * width / (180 * 240), width / height
    assert area.min() == pytest.approx(0.25, abs=0.02)
    assert area.max() == pytest.approx(0.6, abs=0.02)
    assert area.mean() == pytest.approx(0.425, abs=0.015)
    assert aspect.min() == pytest.approx(3 / 4, abs=0.04)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.06)
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.03)
    assert min(top.min(), left.min()) == pytest.approx(0, abs=1.5)
    assert (top + height).max() == pytest.approx(180, abs=2)
    assert (left + width).max() == pytest.approx(240, abs=2)


@pytest.mark.parametrize(("height", "width"), [(90, 30), (30, 90), (1, 1), (3, 200)])
def test_random_box_fits_any_frame(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, left, rows, columns = transforms._random_box(height, width, (0.9, 1), (3 / 4, 4 / 3), rng)
        assert 0 <= top < top + rows <= height
        assert 0 <= left < left + columns <= width
        assert 3 / 4 - 1 / rows <= columns / rows <= 4 / 3 + 1 / rows


def test_erasing_covers_one_box_with_still_noise_and_leaves_the_rest() -> None:
    clip = coordinates(4, 64, 64)
    shares, pixels = [], []
    for seed in range(200):
        plain = TrainTransform(64, (64, 64))(clip, np.random.default_rng(seed))
        erased = TrainTransform(64, (64, 64), erasing=1)(clip, np.random.default_rng(seed))
        changed = (plain != erased).any(0)
        assert torch.equal(changed, changed[:1].expand_as(changed))
        rows, columns = changed[0].any(1).nonzero(), changed[0].any(0).nonzero()
        top, bottom, left, right = (int(e) for e in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
        assert changed[0, top:bottom, left:right].all()
        assert torch.equal(erased[:, :1, top:bottom, left:right], erased[:, 3:, top:bottom, left:right])
        shares.append((bottom - top) * (right - left) / 64**2)
        pixels.append(erased[:, 0, top:bottom, left:right].flatten())
    assert 0.01 < min(shares) < 0.06
    assert 0.28 < max(shares) < 0.35
    values = torch.cat(pixels)
    assert float(values.mean()) == pytest.approx(0, abs=0.02)
    assert float(values.std()) == pytest.approx(1, abs=0.02)


def test_erasing_has_its_probability() -> None:
    clip = coordinates(1, 32, 32)
    plain = transforms.normalize(clip)
    rng = np.random.default_rng(0)
    transform = TrainTransform(32, (32, 32), flip=0, erasing=0.25)
    assert 75 <= sum(not torch.equal(transform(clip, rng), plain) for _ in range(400)) <= 125


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"short_side": (31, 40)}, "short_side must be .* 32 .image_size. <= low <= high, got .31, 40."),
        ({"short_side": (50, 40)}, "short_side must be .*, got .50, 40."),
        ({"scale": (0.0, 1.0)}, "scale must be .* 0 < low <= high <= 1, got .0.0, 1.0."),
        ({"flip": 1.5}, r"flip must be in 0..1, got 1.5"),
        ({"rand_augment": 11}, r"rand_augment must be in 0..10, got 11"),
        ({"erasing": -0.1}, r"erasing must be in 0..1, got -0.1"),
    ],
)
def test_bad_settings_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainTransform(**({"image_size": 32, "short_side": (36, 48)} | arguments))  # type: ignore[arg-type]


def test_scale_makes_short_side_irrelevant() -> None:
    TrainTransform(32, (0, 0), scale=(0.5, 1.0))


# RandAugment


def as_planes(clip: Tensor) -> Tensor:
    return clip.permute(0, 3, 1, 2).float().contiguous()


def test_rand_augment_stays_a_clip_and_never_overwrites() -> None:
    clip = noise(3, 24, 40)
    before = clip.clone()
    for seed in range(60):
        result = transforms.rand_augment(clip, 10, np.random.default_rng(seed))
        assert result.dtype == torch.uint8
        assert result.shape == clip.shape
    assert torch.equal(clip, before)


def test_rand_augment_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_OPERATIONS", (transforms._brightness,))
    clip = torch.full((1, 2, 2, 3), 200, dtype=torch.uint8)
    results = {
        int(transforms.rand_augment(clip, 10, np.random.default_rng(seed), num_ops=1)[0, 0, 0, 0]) for seed in range(20)
    }
    assert results == {20, 255}


def test_rand_augment_uses_every_operation_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, list[float]] = {}

    def spy(index: int) -> Callable[[Tensor, float], Tensor]:
        return lambda planes, strength: (seen.setdefault(index, []).append(strength), planes)[1]

    monkeypatch.setattr(transforms, "_OPERATIONS", tuple(spy(i) for i in range(11)))
    rng = np.random.default_rng(0)
    for _ in range(1100):
        transforms.rand_augment(noise(1, 2, 2), 7, rng)
    assert sorted(seen) == list(range(11))
    for strengths in seen.values():
        assert len(strengths) == pytest.approx(200, abs=60)
        assert set(strengths) == {0.7, -0.7}
        assert sum(strengths) == pytest.approx(0, abs=0.7 * 60)


@pytest.mark.parametrize("operation", [op for op in transforms._OPERATIONS if op is not transforms._autocontrast])
def test_strength_grows_from_nothing(operation: Callable[[Tensor, float], Tensor]) -> None:
    planes = as_planes(noise(2, 33, 47))
    torch.testing.assert_close(operation(planes.clone(), 0.0), planes, rtol=0, atol=2e-2)
    for sign in (1, -1):
        change = [float((operation(planes.clone(), sign * s) - planes).abs().mean()) for s in (0.4, 1.0)]
        assert change[0] > 0
        assert change[0] < change[1] or operation in GEOMETRIC  # in noise every shift is as far as another


@pytest.mark.parametrize("operation", GEOMETRIC)
@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.3, 1.0])
def test_geometric_operations_never_mirror(operation: Callable[[Tensor, float], Tensor], strength: float) -> None:
    clip = coordinates(1, 100, 100)
    clip[..., 2] = 255
    x, y, inside = operation(as_planes(clip), strength)[0]
    inner = inside > 254.9
    along_x = (x[:, 1:] - x[:, :-1])[inner[:, 1:] & inner[:, :-1]]
    along_y = (y[1:] - y[:-1])[inner[1:] & inner[:-1]]
    assert along_x.numel() > 3000
    assert float(along_x.min()) > 0.8
    assert float(along_y.min()) > 0.8
    outside = inside < 255 * MEAN + 1e-3
    assert torch.all((x[outside] - 255 * MEAN).abs() < 1e-3), "what is uncovered is the mean grey"


def test_translate_and_shear_move_by_the_pixel() -> None:
    planes = as_planes(noise(2, 20, 40))
    right = transforms._translate_x(planes.clone(), 0.5)  # 0.5 · 0.45 · 40 = 9 px
    torch.testing.assert_close(right[..., 9:], planes[..., :-9], rtol=0, atol=2e-3)
    up = transforms._translate_y(planes.clone(), -1 / 3)  # 3 px
    torch.testing.assert_close(up[..., :-3, :], planes[..., 3:, :], rtol=0, atol=2e-3)
    ramp = as_planes(coordinates(1, 40, 80))
    sheared = transforms._shear_x(ramp.clone(), 1.0)[0, 0]
    torch.testing.assert_close(sheared[30, 20:60], ramp[0, 0, 30, 20:60] + 0.3 * 10.5, rtol=0, atol=1e-2)


def test_rotation_keeps_distances_in_any_frame() -> None:
    x, y = transforms._rotate(as_planes(coordinates(1, 60, 120)), 1.0)[0, :2]
    step_x = torch.stack([x[30, 61] - x[30, 60], y[30, 61] - y[30, 60]])
    step_y = torch.stack([x[31, 60] - x[30, 60], y[31, 60] - y[30, 60]])
    assert float(step_x.norm()) == pytest.approx(1, abs=1e-3)
    assert float(step_y.norm()) == pytest.approx(1, abs=1e-3)
    assert float(step_x @ step_y) == pytest.approx(0, abs=1e-3)
    assert math.degrees(math.acos(float(step_x[0]))) == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize("strength", [-0.6, 0.5])
def test_enhancements_blend_as_pillow_does(strength: float) -> None:
    from PIL import ImageEnhance

    frame = noise(1, 24, 32)
    image = Image.fromarray(frame[0].numpy())
    for operation, enhancement in (
        (transforms._brightness, ImageEnhance.Brightness),
        (transforms._color, ImageEnhance.Color),
        (transforms._sharpness, ImageEnhance.Sharpness),
    ):
        result = operation(as_planes(frame), strength).clamp(0, 255)[0].permute(1, 2, 0)
        expected = torch.from_numpy(np.array(enhancement(image).enhance(1 + 0.9 * strength))).float()
        inside = (slice(1, -1), slice(1, -1))  # Pillow leaves the border as it is
        assert float((result - expected)[inside].abs().max()) <= 2


def test_contrast_pivots_on_the_mean_of_the_clip() -> None:
    planes = as_planes(noise(3, 8, 8))
    expected = planes.mean() + 0.1 * (planes - planes.mean())
    torch.testing.assert_close(transforms._contrast(planes.clone(), -1.0), expected, rtol=0, atol=1e-3)


def test_posterize_keeps_the_high_bits() -> None:
    clip = noise(1, 16, 16)
    assert torch.equal(transforms._posterize(as_planes(clip), -0.5), as_planes(clip & 0b11111100))
    assert torch.equal(transforms._posterize(as_planes(clip), 1.0), as_planes(clip & 0b11110000))


def test_autocontrast_stretches_each_colour_over_the_clip() -> None:
    clip = (noise(3, 16, 16) // 4 + 50).to(torch.uint8)
    clip[..., 2] = 77
    result = transforms._autocontrast(as_planes(clip), 1.0)
    assert result[:, :2].amin((0, 2, 3)).tolist() == [0, 0]
    assert result[:, :2].amax((0, 2, 3)).tolist() == [255, 255]
    assert (result[:, 2] == 77).all()


# mixup and CutMix


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    """Clip b is b everywhere and of class b: the mean of a mixed clip must be the mean of its target."""
    clips = torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(-1, 3, 4, 18, 30).contiguous()
    return clips, torch.eye(size)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_weigh_exactly_what_is_seen(mixup: float, cutmix: float) -> None:
    clips, targets = batch()
    rng = np.random.default_rng(0)
    for _ in range(60):
        mixed, soft = transforms.mixup_cutmix(clips, targets, mixup, cutmix, rng)
        torch.testing.assert_close(soft.sum(1), torch.ones(6))
        expected = soft.double() @ torch.arange(6, dtype=torch.float64)
        torch.testing.assert_close(mixed.double().mean((1, 2, 3, 4)), expected, rtol=0, atol=1e-5)
    assert torch.equal(clips, batch()[0])
    assert torch.equal(targets, torch.eye(6))


def test_cutmix_replaces_one_box_in_all_frames() -> None:
    clips, targets = batch()
    shares = []
    for seed in range(300):
        mixed, soft = transforms.mixup_cutmix(clips, targets, 0, 1, np.random.default_rng(seed))
        changed = mixed != clips
        moved = changed.flatten(1).any(1).nonzero()
        if not len(moved):
            continue
        mask = changed[int(moved[0])]
        assert torch.equal(mask, mask[:1, :1].expand_as(mask))
        rows, columns = int(mask[0, 0].any(1).sum()), int(mask[0, 0].any(0).sum())
        assert int(mask[0, 0].sum()) == rows * columns
        shares.append(rows * columns / (18 * 30))
        assert float(soft[moved[0]].amin()) == 0
        assert float(soft[int(moved[0]), int(moved[0])]) == pytest.approx(1 - shares[-1], abs=1e-6)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)  # Beta(1, 1) is uniform
    assert min(shares) < 0.05
    assert max(shares) > 0.95


def test_both_on_is_a_fair_coin() -> None:
    clips, targets = batch(8)
    rng = np.random.default_rng(0)
    blended = 0
    for _ in range(400):
        mixed, _ = transforms.mixup_cutmix(clips, targets, 1.0, 1.0, rng)
        blended += int((mixed != mixed.round()).any())
    assert 160 <= blended <= 240


def test_both_off_is_nothing_at_all() -> None:
    clips, targets = batch()
    state = np.random.default_rng(0)
    mixed, soft = transforms.mixup_cutmix(clips, targets, 0, 0, state)
    assert mixed is clips
    assert soft is targets
    assert state.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_mixing_is_determined_by_the_generator() -> None:
    clips, targets = batch()
    results = [transforms.mixup_cutmix(clips, targets, 0.8, 1.0, np.random.default_rng(s)) for s in (3, 3, 4)]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])


def test_mixing_refuses_a_negative_alpha() -> None:
    with pytest.raises(ValueError, match="cutmix must be at least 0, got -1"):
        transforms.mixup_cutmix(*batch(), 0, -1, np.random.default_rng(0))
