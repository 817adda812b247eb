"""Shares of patches, such as those of attention rollout, laid over the frames that they are of."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor


def overlay(frames: Tensor, shares: Tensor, *, strength: float = 0.6) -> NDArray[np.uint8]:
    """Frames in which bright colours mark the patches of large shares.

    Args:
        frames: uint8 (F, H, W, 3).
        shares: (F, H', W') of the patches; the largest of the clip is the brightest colour, zero the darkest.
        strength: how much of the colours is seen, 0 to 1.

    Returns:
        uint8 (F, H, W, 3).
    """
    scaled = F.interpolate(shares[:, None].float(), frames.shape[1:3], mode="bicubic", align_corners=False)[:, 0]
    scaled = (scaled / shares.max()).clamp(0, 1)
    colours = colormaps["inferno"](scaled.numpy())[..., :3] * 255
    mixed = (1 - strength) * frames.numpy() + strength * colours
    return np.asarray(mixed.round(), dtype=np.uint8)


def strip(frames: Tensor, shares: Tensor) -> NDArray[np.uint8]:
    """The frames of a clip side by side, and under them the same with `overlay`: uint8 (2 H, F W, 3)."""
    rows = [frames.numpy(), overlay(frames, shares)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
