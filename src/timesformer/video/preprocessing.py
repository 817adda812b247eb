"""How a video becomes a model's input: which frames, of which size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from timesformer.limits import check_clip_size, limit
from timesformer.ranges import Range, counts, shown
from timesformer.video import sampling, transforms
from timesformer.video.transforms import MEAN, STD, Colour, Interpolation

_CHOICES: dict[str, tuple[str, ...]] = {
    "sampling": ("clip", "segments"),
    "colour": ("RGB", "BGR"),
    "interpolation": get_args(Interpolation),
}


@dataclass(frozen=True)
class Preprocessing:
    """The sampling and the frame size that a model was trained with; saved beside its weights.

    Attributes:
        num_frames: frames F of a clip.
        stride: source frames from one frame of a clip to the next (the paper's 1/τ rate has stride τ).
        sampling: `clip`, F frames at the stride; or `segments`, one frame from each of F equal parts of the whole
            video, as is usual for Something-Something-V2. `segments` does not use the stride.
        colour: order of a pixel's colours, `RGB` or, for the weights that the authors published for
            Something-Something-V2, `BGR`.
        image_size: side of the square crop in pixels.
        short_side: what the short side of a frame is scaled to in tests, before the crop is cut out; None is
            `image_size`. Training crops as its recipe says.
        keep_aspect: False squeezes a frame, whatever its shape, to a square of `short_side`.
        interpolation: by which frames are scaled in tests, `bilinear` or `bicubic`.
        mean, std: three numbers each, in the order of `colour`: a value v of 0 to 255 becomes (v / 255 - mean) / std.
    """

    num_frames: int = 8
    stride: float = 32
    sampling: Literal["clip", "segments"] = "clip"
    image_size: int = 224
    colour: Literal["RGB", "BGR"] = "RGB"
    short_side: int | None = None
    keep_aspect: bool = True
    interpolation: Interpolation = "bilinear"
    mean: Colour = (MEAN,) * 3
    std: Colour = (STD,) * 3

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise ValueError(f"{name}={shown(value)} is not one of {', '.join(allowed)}")
        counts(1, limit("MAX_FRAMES")).check("num_frames", self.num_frames)
        counts(1, limit("MAX_IMAGE_SIZE")).check("image_size", self.image_size)
        Range(0, limit("MAX_STRIDE"), above=True).check("stride", self.stride)
        check_clip_size(self.num_frames, self.image_size, self.image_size)
        if self.short_side is not None:
            counts(self.image_size, limit("MAX_IMAGE_SIZE")).check("short_side", self.short_side)
        if not isinstance(self.keep_aspect, bool):
            raise ValueError(f"keep_aspect={shown(self.keep_aspect)} must be true or false")
        for name in ("mean", "std"):  # lists, as JSON brings them
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise ValueError(f"std={list(self.std)} must be three numbers above 0")

    def to_dict(self) -> dict[str, Any]:
        """As it is saved with a model; `Preprocessing(**d)` is the same again."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @property
    def scaled_side(self) -> int:
        """What the short side of a frame is scaled to in tests, or both sides are."""
        return self.short_side or self.image_size

    @property
    def decoded_side(self) -> int | None:
        """What a decoder may scale a frame's short side down to, if it may; decoders know `bilinear` alone."""
        return self.scaled_side if self.interpolation == "bilinear" else None

    def resize(self, frames: Tensor) -> Tensor:
        """Frames, uint8 (F, H, W, 3), scaled as in tests; the crops are cut out of them."""
        scale = transforms.resize_short_side if self.keep_aspect else transforms.resize_to_square
        return scale(frames, self.scaled_side, self.interpolation)

    def seen(self, height: int, width: int) -> tuple[int, int, int, int]:
        """First row and column, height and width, in pixels of a frame, of what the crop in its middle shows of it."""
        share = self.image_size / self.scaled_side
        sides = (min(height, width),) * 2 if self.keep_aspect else (height, width)
        rows, columns = (max(1, round(side * share)) for side in sides)
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def normalize(self, clip: Tensor) -> Tensor:
        """A clip, uint8 (F, H, W, 3) in the order of `colour`, as the model takes it: float32 (3, F, H, W)."""
        return transforms.normalize(clip, self.mean, self.std)

    def colours(self, frames: Tensor) -> Tensor:
        """RGB frames (..., 3) with their colours in the order that the model takes."""
        return frames.flip(-1) if self.colour == "BGR" else frames

    def training_indices(self, n: int, rng: np.random.Generator, trim: float = 0.0) -> NDArray[np.int64]:
        """Frame indices (F,) of a random clip of a video of n frames, of which up to a share `trim` is first cut off.

        What is cut, at random, is divided at random between start and end: actions begin and end sooner or later.
        """
        kept = n - int(n * trim * rng.random())
        start = int(rng.integers(n - kept + 1))
        if self.sampling == "segments":
            return start + sampling.random_segments(kept, self.num_frames, rng)
        return start + sampling.random_clip(kept, self.num_frames, self.stride, rng)

    def view_indices(self, n: int, clips: int | Literal["cover"]) -> NDArray[np.int64]:
        """Frame indices (K, F) of the clips by which a video of n frames is judged.

        A clip of `segments` spans the whole video, so one of them covers it.
        """
        if self.sampling == "segments":
            return sampling.uniform_segments(n, self.num_frames, 1 if clips == "cover" else clips)
        if clips == "cover":
            return sampling.covering_clips(n, self.num_frames, self.stride)
        return sampling.uniform_clips(n, self.num_frames, self.stride, clips)


def _three_numbers(name: str, value: Any) -> Colour:
    numbers = tuple(value) if isinstance(value, list | tuple) else ()
    if len(numbers) != 3 or not all(
        isinstance(each, int | float) and not isinstance(each, bool) and np.isfinite(each) for each in numbers
    ):
        raise ValueError(f"{name}={value!r} must be three numbers, one for each colour")
    first, second, third = map(float, numbers)
    return first, second, third
