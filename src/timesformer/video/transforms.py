"""From a decoded clip to the model's input: resizing, cropping, normalising and augmenting.

Clips are uint8 tensors (F, H, W, 3), RGB, until `normalize` turns them into float32 (3, F, H, W). What is
drawn at random is drawn once a clip, so that all frames move together, and from the numpy Generator passed,
so that a run can be resumed exactly. Functions of a clip raise ValueError for any other kind of tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = 0.45
STD = 0.225

Colour = tuple[float, float, float]  # a value for each of a pixel's three, in the order in which the model takes them
Interpolation = Literal["bilinear", "bicubic"]
Range = tuple[float, float]
CROP_ASPECT: Range = (3 / 4, 4 / 3)
ERASING_AREA: Range = (0.02, 1 / 3)
ERASING_ASPECT: Range = (0.3, 1 / 0.3)


def resize_short_side(clip: Tensor, size: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """Scale a uint8 clip (F, H, W, 3) to a shorter side of `size` px, keeping the aspect; may enlarge."""
    _check("size", size, size >= 1, "at least 1")
    height, width = _frame_size(clip)
    short = min(height, width)
    return _resize(clip, round(height * size / short), round(width * size / short), interpolation)


def resize_to_square(clip: Tensor, size: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """Scale a uint8 clip (F, H, W, 3) to `size` × `size` px, whatever its aspect; may enlarge."""
    _check("size", size, size >= 1, "at least 1")
    return _resize(clip, size, size, interpolation)


def crop(clip: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """The box of `height` × `width` px at (top, left) of a uint8 clip (F, H, W, 3), as a view.

    Raises ValueError where the box is empty or leaves the frame.
    """
    full_height, full_width = _frame_size(clip)
    if not (0 <= top < top + height <= full_height and 0 <= left < left + width <= full_width):
        raise ValueError(
            f"crop must lie inside the frame of {full_height}x{full_width} px, "
            f"got {height}x{width} px at ({top}, {left})"
        )
    return clip[:, top : top + height, left : left + width]


def center_crop(clip: Tensor, size: int) -> Tensor:
    """The middle `size` × `size` px of a uint8 clip (F, H, W, 3), as a view; ValueError if it is smaller."""
    height, width = _frame_size(clip)
    return crop(clip, (height - size) // 2, (width - size) // 2, size, size)


def spatial_crops(clip: Tensor, size: int, num_crops: int) -> list[Tensor]:
    """The test crops of `size` × `size` px of a uint8 clip (F, H, W, 3), as views.

    One: the centre. Three: start, centre and end along the longer side, centred along the other; of a clip
    resized to a short side of `size`, they are the paper's top-left, centre and bottom-right (Section 4).
    ValueError for another number, or where the clip is smaller than `size`.
    """
    if num_crops == 1:
        return [center_crop(clip, size)]
    if num_crops != 3:
        raise ValueError(f"num_crops must be 1 or 3, got {num_crops}")
    height, width = _frame_size(clip)
    top, left = (height - size) // 2, (width - size) // 2
    if width >= height:
        corners = [(top, 0), (top, left), (top, width - size)]
    else:
        corners = [(0, left), (top, left), (height - size, left)]
    return [crop(clip, y, x, size, size) for y, x in corners]


def normalize(clip: Tensor, mean: Colour = (MEAN,) * 3, std: Colour = (STD,) * 3) -> Tensor:
    """A uint8 clip (F, H, W, 3) as float32 (3, F, H, W), contiguous: (value / 255 − mean) / std, colour by colour.

    The values of a model are those of its `Preprocessing`, whose `normalize` passes them here.
    """
    _frame_size(clip)
    planes = clip.permute(3, 0, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    factors = torch.tensor([1 / (255 * divisor) for divisor in std]).view(3, 1, 1, 1)
    shifts = torch.tensor([centre / divisor for centre, divisor in zip(mean, std, strict=True)]).view(3, 1, 1, 1)
    return planes.mul_(factors).sub_(shifts)


@dataclass(frozen=True)
class TrainTransform:
    """The random transform of a training clip: uint8 (F, H, W, 3) → float32 (3, F, S, S).

    Args:
        image_size: S, the side of the result in px.
        short_side: (low, high) in px, both included: the frames are resized to a short side drawn from this
            range, then S × S px are cut out at random (Appendix A: 256 to 320 for 224). Done the other way
            round, cut then resized, which saves work and only rounds the cut to whole source pixels.
        flip: probability of a horizontal flip. 0 for classes that tell left from right (SSv2).
        scale: (low, high) in 0..1, the share of the frame's area to cut out, at an aspect (width / height) of
            3/4 to 4/3; used instead of `short_side` where given.
        rand_augment: magnitude of RandAugment, 0 (off) to 10.
        erasing: probability of random erasing.

    Raises ValueError where an argument is out of its range.
    """

    image_size: int
    short_side: tuple[int, int]
    flip: float = 0.5
    scale: tuple[float, float] | None = None
    rand_augment: int = 0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        _check("image_size", self.image_size, self.image_size >= 1, "at least 1")
        if self.scale is None:
            low, high = self.short_side
            allowed = f"(low, high) with {self.image_size} (image_size) <= low <= high"
            _check("short_side", self.short_side, self.image_size <= low <= high, allowed)
        else:
            smallest, largest = self.scale
            allowed = "(low, high) with 0 < low <= high <= 1"
            _check("scale", self.scale, 0 < smallest <= largest <= 1, allowed)
        _check("flip", self.flip, 0 <= self.flip <= 1, "in 0..1")
        _check("rand_augment", self.rand_augment, 0 <= self.rand_augment <= 10, "in 0..10")
        _check("erasing", self.erasing, 0 <= self.erasing <= 1, "in 0..1")

    def __call__(
        self, clip: Tensor, rng: np.random.Generator, as_input: Callable[[Tensor], Tensor] = normalize
    ) -> Tensor:
        """The clip, RGB, varied; `as_input` makes what the model takes of it, as `normalize` does."""
        clip = crop(clip, *self._crop_box(*_frame_size(clip), rng))
        clip = _resize(clip, self.image_size, self.image_size)
        if rng.random() < self.flip:
            clip = clip.flip(2)
        if self.rand_augment:
            clip = rand_augment(clip, self.rand_augment, rng)
        planes = as_input(clip)
        if rng.random() < self.erasing:
            _erase_(planes, rng)
        return planes

    def _crop_box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) in source pixels."""
        if self.scale is not None:
            return _random_box(height, width, self.scale, CROP_ASPECT, rng)
        short = min(height, width)
        side = max(1, round(self.image_size * short / int(rng.integers(*self.short_side, endpoint=True))))
        return *_random_place(height, width, side, side, rng), side, side


def rand_augment(clip: Tensor, magnitude: float, rng: np.random.Generator, num_ops: int = 2) -> Tensor:
    """RandAugment (Cubuk et al. 2020) of a uint8 clip (F, H, W, 3): `num_ops` operations drawn at random.

    `magnitude` is 0..10. An operation that has a direction takes either at random. None mirrors the image,
    for the sake of classes that tell left from right, and none inverts its colours. What a geometric one
    uncovers becomes the mean grey, about 0 after `normalize`.
    """
    _frame_size(clip)
    planes = clip.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    for choice in rng.integers(len(_OPERATIONS), size=num_ops):
        strength = magnitude / 10 * (1 if rng.random() < 0.5 else -1)
        planes = _OPERATIONS[choice](planes, strength).clamp_(0, 255)
    return planes.round_().to(torch.uint8).permute(0, 2, 3, 1)


def mixup_cutmix(
    clips: Tensor, targets: Tensor, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix the clips of a batch, and their targets, in pairs drawn at random.

    mixup (Zhang et al. 2018) blends two clips. CutMix (Yun et al. 2019) replaces a box of one, the same in
    all frames and all clips, by the other's; the targets are weighted by the box's exact share of the area.
    The inputs are left as they are.

    Args:
        clips: (B, 3, F, H, W) float.
        targets: (B, C) float, one-hot or soft.
        mixup, cutmix: α of the Beta(α, α) from which the share that a clip keeps is drawn; 0 is off. Where
            both are on, a fair coin picks one of them for the batch.

    Raises ValueError for an α below 0.
    """
    _check("mixup", mixup, mixup >= 0, "at least 0")
    _check("cutmix", cutmix, cutmix >= 0, "at least 0")
    if not (mixup or cutmix):
        return clips, targets
    use_mixup = rng.random() < 0.5 if mixup and cutmix else mixup > 0
    alpha = mixup if use_mixup else cutmix
    kept = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(clips))).to(clips.device)
    if use_mixup:
        mixed = clips[partner].lerp_(clips, kept)
    else:
        height, width = clips.shape[-2:]
        box_height, box_width = (round(side * math.sqrt(1 - kept)) for side in (height, width))
        top, left = _random_place(height, width, box_height, box_width, rng)
        box = (..., slice(top, top + box_height), slice(left, left + box_width))
        mixed = clips.clone()
        mixed[box] = clips[box][partner]
        kept = 1 - box_height * box_width / (height * width)
    return mixed, targets[partner].lerp(targets, kept)


# The operations of RandAugment: planes (F, 3, H, W) float32 in 0..255, which they may overwrite, and a
# strength in -1..1, whose sign is the direction -> planes, not yet clamped. Full strength is the customary
# one: 30°, a shear of 0.3, a shift by 0.45 of the frame, a factor of 1 ± 0.9, 4 bits.


def _translate_x(planes: Tensor, strength: float) -> Tensor:
    return _warp(planes, (1, 0, -0.45 * strength * planes.shape[-1]), (0, 1, 0))


def _translate_y(planes: Tensor, strength: float) -> Tensor:
    return _warp(planes, (1, 0, 0), (0, 1, -0.45 * strength * planes.shape[-2]))


def _shear_x(planes: Tensor, strength: float) -> Tensor:
    return _warp(planes, (1, 0.3 * strength, 0), (0, 1, 0))


def _shear_y(planes: Tensor, strength: float) -> Tensor:
    return _warp(planes, (1, 0, 0), (0.3 * strength, 1, 0))


def _rotate(planes: Tensor, strength: float) -> Tensor:
    angle = math.radians(30 * strength)
    cos, sin = math.cos(angle), math.sin(angle)
    return _warp(planes, (cos, -sin, 0), (sin, cos, 0))


def _brightness(planes: Tensor, strength: float) -> Tensor:
    return planes.mul_(1 + 0.9 * strength)


def _contrast(planes: Tensor, strength: float) -> Tensor:
    return planes.lerp_(planes.mean(), -0.9 * strength)  # the clip's mean, not each frame's, lest it flicker


def _color(planes: Tensor, strength: float) -> Tensor:
    grey: Tensor = 0.299 * planes[:, :1] + 0.587 * planes[:, 1:2] + 0.114 * planes[:, 2:]
    return planes.lerp_(grey, -0.9 * strength)


def _sharpness(planes: Tensor, strength: float) -> Tensor:
    # The usual smoothing kernel, 5/13 in the middle and 1/13 around it, is 9/13 of the 3x3 mean and 4/13 of
    # the pixel. The mean as two sums of three is ten times as fast as avg_pool2d.
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2] + padded[..., 1:-1]).add_(padded[..., 2:])
    mean = (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :]).div_(9)
    return planes.lerp_(mean, -0.9 * strength * 9 / 13)


def _posterize(planes: Tensor, strength: float) -> Tensor:
    step = 2 ** round(4 * abs(strength))
    return planes.div_(step).floor_().mul_(step)


def _autocontrast(planes: Tensor, strength: float) -> Tensor:
    low, high = planes.amin((0, 2, 3), keepdim=True), planes.amax((0, 2, 3), keepdim=True)
    flat = low == high  # a channel of one value stays as it is
    span = (high - low).masked_fill_(flat, 255)
    return planes.sub_(low.masked_fill_(flat, 0)).mul_(255).div_(span)


_OPERATIONS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    _translate_x,
    _translate_y,
    _shear_x,
    _shear_y,
    _rotate,
    _brightness,
    _contrast,
    _color,
    _sharpness,
    _posterize,
    _autocontrast,
)


def _warp(planes: Tensor, row_x: tuple[float, ...], row_y: tuple[float, ...]) -> Tensor:
    """Fetch every pixel (x, y) from (row_x · (x, y, 1), row_y · (x, y, 1)), in px from the frame's centre."""
    height, width = planes.shape[-2:]
    theta = torch.tensor(  # the same map in affine_grid's units, in which each side runs from -1 to 1
        [
            [row_x[0], row_x[1] * height / width, row_x[2] * 2 / width],
            [row_y[0] * width / height, row_y[1], row_y[2] * 2 / height],
        ]
    )
    # All frames as channels of one image: the sampling positions are worked out once. Outside of it is zero,
    # hence the grey that shall appear there is subtracted before and added after.
    stacked = planes.sub_(255 * MEAN).flatten(0, 1)[None]
    grid = F.affine_grid(theta[None], [1, 1, height, width], align_corners=False)
    warped = F.grid_sample(stacked, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.add_(255 * MEAN).view_as(planes)


def _erase_(planes: Tensor, rng: np.random.Generator) -> None:
    """Random erasing (Zhong et al. 2020) of (3, F, H, W), in place: a box of noise, still over all frames."""
    height, width = planes.shape[-2:]
    top, left, box_height, box_width = _random_box(height, width, ERASING_AREA, ERASING_ASPECT, rng)
    noise = rng.standard_normal((3, 1, box_height, box_width), dtype=np.float32)
    planes[..., top : top + box_height, left : left + box_width] = torch.from_numpy(noise)


def _random_box(
    height: int, width: int, area: Range, aspect: Range, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random box: its share of the area uniform, its aspect log-uniform.

    A box that would not fit at its aspect is shrunk until it does, instead of drawing again.
    """
    ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
    fitting = min(height, width / ratio)
    wanted = math.sqrt(rng.uniform(*area) * height * width / ratio)
    box_height = min(wanted, fitting)
    rows, columns = max(1, round(box_height)), max(1, round(box_height * ratio))
    return *_random_place(height, width, rows, columns, rng), rows, columns


def _random_place(
    height: int, width: int, box_height: int, box_width: int, rng: np.random.Generator
) -> tuple[int, int]:
    """(top, left), uniform over all places where the box fits."""
    top = rng.integers(0, height - box_height, endpoint=True)
    left = rng.integers(0, width - box_width, endpoint=True)
    return int(top), int(left)


def _resize(clip: Tensor, height: int, width: int, interpolation: Interpolation = "bilinear") -> Tensor:
    if _frame_size(clip) == (height, width):
        return clip
    # The permuted view is channels-last, for which torch has a fast uint8 kernel that agrees with Pillow's.
    planes = clip.permute(0, 3, 1, 2)
    resized = F.interpolate(planes, (height, width), mode=interpolation, align_corners=False, antialias=True)
    return resized.permute(0, 2, 3, 1)


def _frame_size(clip: Tensor) -> tuple[int, int]:
    """(height, width) of a clip that is what this module works on; ValueError for any other tensor."""
    if clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
        raise ValueError(f"clip must be uint8 (F, H, W, 3), got {clip.dtype} {tuple(clip.shape)}")
    return clip.shape[1], clip.shape[2]


def _check(name: str, value: object, valid: bool, allowed: str) -> None:
    if not valid:
        raise ValueError(f"{name} must be {allowed}, got {value}")
