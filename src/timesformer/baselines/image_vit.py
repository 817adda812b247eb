"""An image Vision Transformer as a video model: what TimeSformer adds to is measured against it (Figure 8)."""

from __future__ import annotations

from dataclasses import dataclass

from einops import reduce
from torch import Tensor

from timesformer.model.timesformer import ModelConfig, TimeSformer


@dataclass(frozen=True)
class ImageViTConfig(ModelConfig):
    """A `ModelConfig` whose attention stays within a frame; by default a clip is one frame."""

    num_frames: int = 1
    attention: str = "space_only"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.frames_apart:
            raise ValueError(
                f"attention={self.attention!r}, cls_attention={self.cls_attention!r}: an image model has 'space_only', "
                "'released'"
            )


class ImageViT(TimeSformer):
    """Each frame of a clip by itself: features and logits are the means of those of its frames.

    `timesformer.init_from_vit` sets all its weights.
    """

    architecture = "image_vit"
    config: ImageViTConfig

    def _normed_cls(self, x: Tensor, num_clips: int) -> Tensor:
        # TimeSformer averages over frames before the norm; here no frame may change what another gives.
        cls: Tensor = reduce(self.norm(x[:, 0]), "(b t) d -> b d", "mean", b=num_clips)
        return cls
