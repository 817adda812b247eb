"""SlowFast, and its slow pathway by itself (Feichtenhofer, Fan, Malik and He, ICCV 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.baselines.convnet import ConvNet, ConvNetConfig, global_average
from timesformer.baselines.resnet3d import Pathway, ResNet3d, Timing
from timesformer.limits import limit
from timesformer.ranges import counts

# Table 1: the slow pathway looks along time in its last two stages alone, the fast one everywhere.
_SLOW = Timing(stem=1, stages=((1,), (1,), (3,), (3,)))
_FAST = Timing(stem=5, stages=((3,), (3,), (3,), (3,)))


class SlowOnly(ResNet3d):
    """The slow pathway without the fast one: "Slow" in tables, "slow-only" in the paper (Section 5.1)."""

    architecture = "slow"
    timing = _SLOW


@dataclass(frozen=True)
class SlowFastConfig(ConvNetConfig):
    """What defines a SlowFast network; the defaults are SlowFast 8x8 R50.

    `num_frames` are those of the fast pathway, `width` is that of the slow one. For the rest see `ConvNetConfig`.

    Attributes:
        alpha: the slow pathway sees every alpha-th frame.
        beta_inverse: the fast pathway has one `beta_inverse`-th of the slow one's channels; divides `width`.
        lateral_kernel: frames that a lateral connection spans; odd.
    """

    num_frames: int = 32
    alpha: int = 4
    beta_inverse: int = 8
    lateral_kernel: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        frames = counts(1, limit("MAX_FRAMES"))
        self.require(alpha=frames, beta_inverse=counts(1, limit("MAX_WIDTH")), lateral_kernel=frames)
        if self.width % self.beta_inverse:
            raise ValueError(f"width={self.width} must be a multiple of beta_inverse={self.beta_inverse}")
        if self.lateral_kernel % 2 == 0:
            raise ValueError(f"lateral_kernel={self.lateral_kernel} must be odd")


class SlowFast(ConvNet):
    """A slow, wide pathway and a fast, narrow one, which feeds the slow one before each stage (Section 3).

    Features: the slow pathway's, then the fast one's, (B, 32 * width * (1 + 1 / beta_inverse)).
    """

    architecture = "slowfast"
    config: SlowFastConfig

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        channels, depths = config.in_channels, config.depths
        self.fast = Pathway(channels, config.width // config.beta_inverse, depths, _FAST)
        self.laterals = nn.ModuleList(
            [Lateral(count, config.lateral_kernel, config.alpha) for count in self.fast.channels[:-1]]
        )
        extra = [2 * count for count in self.fast.channels[:-1]]
        self.slow = Pathway(channels, config.width, depths, _SLOW, extra)
        self.add_head(self.slow.channels[-1] + self.fast.channels[-1])

    def pooled(self, clip: Tensor) -> Tensor:
        slow = self.slow.stem(clip[:, :, :: self.config.alpha])
        fast = self.fast.stem(clip)
        for lateral, slow_stage, fast_stage in zip(self.laterals, self.slow.stages, self.fast.stages, strict=True):
            slow = self.run(slow_stage, torch.cat([slow, lateral(fast)], dim=1))
            fast = self.run(fast_stage, fast)
        return torch.cat([global_average(slow), global_average(fast)], dim=1)


class Lateral(nn.Module):
    """From the fast pathway to the slow one, by a convolution whose stride in time is alpha (Section 3.4).

    Maps (B, C, F, H, W) to (B, 2C, ceil(F / alpha), H, W).
    """

    def __init__(self, channels: int, kernel: int, alpha: int) -> None:
        super().__init__()
        padding = (kernel // 2, 0, 0)  # centres it on the slow pathway's own frames
        self.conv = nn.Conv3d(channels, 2 * channels, (kernel, 1, 1), (alpha, 1, 1), padding, bias=False)
        self.bn = nn.BatchNorm3d(2 * channels)

    def forward(self, fast: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(fast)))
