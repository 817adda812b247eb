"""Residual networks whose kernels also span time: the parts of I3D, Slow and SlowFast.

The bottleneck network of He et al. (2016) with the stride in its 3 x 3 convolutions. Time is looked along in the stem
and in the first convolution of some blocks (Feichtenhofer et al., SlowFast, 2019, Table 1). Layers have torchvision's
names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.baselines.convnet import ConvNet, ConvNetConfig, conv3d, global_average, last_norm, shortcut

# Blocks of a stage, from its first, that look along time: all of R50's; in deeper networks the rest see frames alone,
# as in the published SlowFast 16x8 R101.
_TEMPORAL_BLOCKS = (3, 4, 6, 3)


@dataclass(frozen=True)
class Timing:
    """How many frames a pathway's convolutions span.

    Attributes:
        stem: of the stem.
        stages: of the first convolution of the blocks of each stage, repeated along the stage.
        pool: frames that are pooled into one after the first stage.
    """

    stem: int
    stages: tuple[tuple[int, ...], ...]
    pool: int = 1

    def kernel(self, stage: int, block: int) -> int:
        """Frames that the first convolution of a block spans."""
        pattern = self.stages[stage]
        return pattern[block % len(pattern)] if block < _TEMPORAL_BLOCKS[stage] else 1


class Pathway(nn.Module):
    """A stem and four stages, `layer1` to `layer4`, of `width` * 4, 8, 16 and 32 channels.

    Args:
        extra: channels that each stage's input has besides those of the stage before.
    """

    def __init__(
        self, in_channels: int, width: int, depths: Sequence[int], timing: Timing, extra: Sequence[int] = (0, 0, 0, 0)
    ) -> None:
        super().__init__()
        self.conv1 = conv3d(in_channels, width, (timing.stem, 7, 7), stride=2)
        self.bn1 = nn.BatchNorm3d(width)
        channels = width
        self.channels = [width]  # after the stem and after each stage
        for stage, depth in enumerate(depths):
            inner = width * 2**stage
            blocks = []
            for block in range(depth):
                inputs = channels + (extra[stage] if block == 0 else 0)
                stride = 2 if block == 0 and stage > 0 else 1
                blocks.append(Bottleneck(inputs, inner, 4 * inner, stride, timing.kernel(stage, block)))
                channels = 4 * inner
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            self.channels.append(channels)

    @property
    def stages(self) -> list[nn.Sequential]:
        return [getattr(self, f"layer{number}") for number in range(1, 5)]

    def stem(self, clip: Tensor) -> Tensor:
        """Maps (B, width, F, H/4, W/4) of clips (B, C, F, H, W)."""
        x = F.relu(self.bn1(self.conv1(clip)))
        return F.max_pool3d(x, kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))


class Bottleneck(nn.Module):
    """Convolutions of `frames` x 1 x 1, 1 x 3 x 3 and 1 x 1 x 1, added to the input or its projection."""

    def __init__(self, in_channels: int, inner: int, out_channels: int, stride: int, frames: int) -> None:
        super().__init__()
        self.conv1 = conv3d(in_channels, inner, (frames, 1, 1))
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = conv3d(inner, inner, (1, 3, 3), stride)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = conv3d(inner, out_channels)
        self.bn3 = last_norm(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet3d(ConvNet):
    """One pathway by itself. Features: (B, 32 * width)."""

    timing: ClassVar[Timing]

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__(config)
        self.pathway = Pathway(config.in_channels, config.width, config.depths, self.timing)
        self.add_head(self.pathway.channels[-1])

    def pooled(self, clip: Tensor) -> Tensor:
        return global_average(self.maps(clip))

    def maps(self, clip: Tensor) -> Tensor:
        """What the last stage computes: (B, 32 * width, F / pool, H/32, W/32)."""
        x = self.pathway.stem(clip)
        first, *others = self.pathway.stages
        x = self.run(first, x)
        if self.timing.pool > 1:
            pool = (self.timing.pool, 1, 1)
            x = F.max_pool3d(x, pool, pool, ceil_mode=True)  # a frame left over counts too
        for stage in others:
            x = self.run(stage, x)
        return x
