"""What the convolutional baselines have in common: head, first weights, blocks run with or without recomputation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from timesformer.limits import limit
from timesformer.model.base import VideoConfig, VideoModel
from timesformer.ranges import Range, counts, shown


@dataclass(frozen=True)
class ConvNetConfig(VideoConfig):
    """What defines a convolutional network of four residual stages; the defaults are those of ResNet-50.

    For `num_classes`, `num_frames`, `image_size` and `in_channels` see `VideoConfig`. Clips of any length and size
    are accepted: the last maps are averaged over time and space.

    Attributes:
        width: channels of the stem; those of all further layers are in proportion.
        depths: residual blocks of each of the four stages.
        dropout: chance that one of the features is dropped before the head in training.
    """

    width: int = 64
    depths: tuple[int, ...] = (3, 4, 6, 3)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.depths, list):  # as JSON and YAML bring it
            object.__setattr__(self, "depths", tuple(self.depths))
        depths = self.depths if isinstance(self.depths, tuple) else ()
        blocks = counts(1, limit("MAX_BLOCKS"))
        if len(depths) != 4 or not all(blocks.holds(depth) for depth in depths) or not blocks.holds(sum(depths)):
            raise ValueError(
                f"depths={shown(self.depths)} must be four whole numbers from 1 up, together up to {blocks.most}"
            )
        self.require(width=counts(1, limit("MAX_WIDTH")), dropout=Range(0, 1, below=True))
        widths = (self.width * 2**stage for stage in range(4))
        self.require_parameters(sum(17 * depth * width**2 for depth, width in zip(depths, widths, strict=True)))


class ConvNet(VideoModel):
    """A convolutional classifier of clips: `pooled` of a subclass, then dropout and one linear layer."""

    config: ConvNetConfig

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.config = config

    def add_head(self, feature_dim: int) -> None:
        """Make what follows the features, and set the first weights of the whole."""
        self.dropout = nn.Dropout(self.config.dropout)
        self.head = nn.Linear(feature_dim, self.config.num_classes) if self.config.num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))  # He et al., 2015
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(clip)))
        return logits

    def features(self, clip: Tensor) -> Tensor:
        """The input (B, D) of the last layer for clips (B, in_channels, F, H, W).

        Raises:
            ValueError: no floats, no clips, or another number of axes or channels.
        """
        self.config.require_clips(clip)
        return self.pooled(clip)

    def pooled(self, clip: Tensor) -> Tensor:
        """Features (B, D) of clips that are known to have the right shape."""
        raise NotImplementedError

    def run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """Apply blocks in turn; with `activation_checkpointing` each is recomputed in the backward pass."""
        for block in blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_first_and_second_run, block))
            else:
                x = block(x)
        return x


def conv3d(
    in_channels: int, out_channels: int, kernel: tuple[int, int, int] = (1, 1, 1), stride: int = 1, groups: int = 1
) -> nn.Conv3d:
    """A convolution without bias (a norm follows) that keeps the length, and the size but for its stride in space."""
    t, h, w = kernel
    padding = (t // 2, h // 2, w // 2)
    return nn.Conv3d(in_channels, out_channels, kernel, (1, stride, stride), padding, groups=groups, bias=False)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """What a residual block adds its branch to: its input, projected where the shape changes."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv3d(in_channels, out_channels, stride=stride), nn.BatchNorm3d(out_channels))


def last_norm(channels: int) -> nn.BatchNorm3d:
    """The last norm of a residual branch: it starts at zero, so that a new block passes on its input."""
    norm = nn.BatchNorm3d(channels)
    nn.init.zeros_(norm.weight)
    return norm


def global_average(x: Tensor) -> Tensor:
    """The mean (B, C) of maps (B, C, T, H, W)."""
    return reduce(x, "b c t h w -> b c", "mean")


def _first_and_second_run(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_left_alone(block)


@contextmanager
def _statistics_left_alone(block: nn.Module) -> Iterator[None]:
    """Batch norms compute as ever, but a recomputed block does not count its batch twice in the running statistics."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
