"""How a video becomes a model's input: which frames, of which size."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from timesformer.video import sampling


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
        image_size: side of the square crop in pixels; in tests the short side of a frame is scaled to it.
    """

    num_frames: int = 8
    stride: float = 32
    sampling: Literal["clip", "segments"] = "clip"
    image_size: int = 224
    colour: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if self.sampling not in ("clip", "segments"):
            raise ValueError(f"sampling={self.sampling!r} is not one of clip, segments")
        if self.colour not in ("RGB", "BGR"):
            raise ValueError(f"colour={self.colour!r} is not one of RGB, BGR")
        for name in ("num_frames", "stride", "image_size"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be more than 0")

    def to_dict(self) -> dict[str, Any]:
        """As it is saved with a model; `Preprocessing(**d)` is the same again."""
        return asdict(self)

    def colours(self, frames: Tensor, dim: int = -1) -> Tensor:
        """RGB frames with their colours, along `dim`, in the order that the model takes."""
        return frames.flip(dim) if self.colour == "BGR" else frames

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
