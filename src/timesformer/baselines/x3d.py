"""X3D: a network of depthwise convolutions, expanded along several axes at once (Feichtenhofer, CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from timesformer.baselines.convnet import ConvNet, ConvNetConfig, conv3d, global_average, last_norm, shortcut
from timesformer.limits import limit
from timesformer.ranges import Range, counts


@dataclass(frozen=True)
class X3DConfig(ConvNetConfig):
    """What defines an X3D network; the defaults are X3D-M. For the other options see `ConvNetConfig`.

    Attributes:
        expansion: channels inside a block, in units of those between blocks.
        feature_dim: width of the layer before the last.
    """

    num_frames: int = 16
    width: int = 24
    depths: tuple[int, ...] = (3, 5, 11, 7)
    expansion: float = 2.25
    feature_dim: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(feature_dim=counts(1, limit("MAX_WIDTH")), expansion=Range(0, 64, above=True))
        if int(self.expansion * self.width) < 1:
            raise ValueError(f"expansion={self.expansion} must be at least 1 / width={self.width}")


class X3D(ConvNet):
    """A stem, four stages of `width` * 1, 2, 4 and 8 channels, and a head with a hidden layer (Table 1 of its paper).

    Time is never strided. Features: the hidden layer's, (B, feature_dim).
    """

    architecture = "x3d"
    config: X3DConfig

    def __init__(self, config: X3DConfig) -> None:
        super().__init__(config)
        width = config.width
        self.stem = nn.Sequential(
            conv3d(config.in_channels, width, (1, 3, 3), stride=2),
            conv3d(width, width, (5, 1, 1), groups=width),
            nn.BatchNorm3d(width),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList()
        channels = inner = width
        for stage, depth in enumerate(config.depths):
            out_channels = width * 2**stage
            inner = int(config.expansion * out_channels)
            for block in range(depth):
                first = block == 0
                self.blocks.append(Block(channels, inner, out_channels, 2 if first else 1, gate=block % 2 == 0))
                channels = out_channels
        self.last = nn.Sequential(conv3d(channels, inner), nn.BatchNorm3d(inner), nn.ReLU())
        self.hidden = nn.Linear(inner, config.feature_dim, bias=False)
        self.add_head(config.feature_dim)

    def pooled(self, clip: Tensor) -> Tensor:
        x = self.run(self.blocks, self.stem(clip))
        return F.relu(self.hidden(global_average(self.last(x))))


class Block(nn.Module):
    """Widen, convolve each channel by itself over 3 x 3 x 3, gate the channels if `gate`, narrow; with a residual."""

    def __init__(self, in_channels: int, inner: int, out_channels: int, stride: int, gate: bool) -> None:
        super().__init__()
        self.conv1 = conv3d(in_channels, inner)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = conv3d(inner, inner, (3, 3, 3), stride, groups=inner)
        self.bn2 = nn.BatchNorm3d(inner)
        self.gate = SqueezeExcitation(inner) if gate else nn.Identity()
        self.conv3 = conv3d(inner, out_channels)
        self.bn3 = last_norm(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.silu(self.gate(self.bn2(self.conv2(y))))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class SqueezeExcitation(nn.Module):
    """Each channel times a factor that comes from the means of all of them (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = round_to_eight(channels / 16)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        factors: Tensor = self.fc2(F.relu(self.fc1(global_average(x)))).sigmoid()
        return x * rearrange(factors, "b c -> b c 1 1 1")


def round_to_eight(width: float) -> int:
    """The multiple of 8 nearest to a width, the next one where that is less than 0.9 of it; at least 8."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8
