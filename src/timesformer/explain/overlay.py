"""Shares of patches, such as those of attention rollout, laid over the frames that they are of."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

COLOURS = "inferno"  # perceptually uniform


def overlay(
    frames: Tensor, shares: Tensor, *, top: float | None = None, box: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Frames in which bright colours mark the patches of large shares; the others stay nearly as they are.

    Args:
        frames: uint8 (F, H, W, 3).
        shares: (F, H', W') of the patches, each 0 or more.
        top: the share that is the brightest colour, zero being the darkest; the largest by default.
        box: first row, first column, height and width, in pixels, of what the patches are of; all by default. What
            lies outside is darkened.

    Returns:
        uint8 (F, H, W, 3).
    """
    y, x, height, width = box or (0, 0, frames.shape[1], frames.shape[2])
    smooth = F.interpolate(shares[:, None].float(), (height, width), mode="bicubic", align_corners=False)[:, 0]
    scaled = (smooth / max(top or float(shares.max()), 1e-12)).clamp(0, 1).numpy()
    colours = 255 * colormaps[COLOURS](scaled)[..., :3]
    mixed = 0.25 * frames.numpy().astype(np.float32)
    inside = np.s_[:, y : y + height, x : x + width]
    strength = 0.6 * scaled[..., None]
    mixed[inside] = (1 - strength) * 0.85 * frames.numpy()[inside] + strength * colours
    return np.asarray(mixed.round(), dtype=np.uint8)
