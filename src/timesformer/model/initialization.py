"""First weights for training without a pretrained model."""

from __future__ import annotations

import math

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from timesformer.model.timesformer import TimeSformer


@torch.no_grad()
def init_for_scratch(model: TimeSformer) -> None:
    """Set the weights anew so that a small model learns from its first steps on.

    The released initialisation (std 0.02 everywhere, no time positions, extra attention steps switched off) is made
    for starting from a wide image ViT. From scratch, and the more so for narrow models, it leaves frames without
    order and branches without effect for many epochs. Here linear layers keep the variance of what passes through
    them (Glorot and Bengio, 2010) and positions start as sinusoids (Vaswani et al., 2017).
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("head"):
            for part in module.weight.chunk(3 if name.endswith("qkv") else 1):
                nn.init.xavier_uniform_(part)
    grid, dim = model.config.grid, model.config.embed_dim
    rows = repeat(_sinusoids(grid["h"], dim // 2), "h d -> h w d", w=grid["w"])
    columns = repeat(_sinusoids(grid["w"], dim - dim // 2), "w d -> h w d", h=grid["h"])
    if model.pos_embed is not None:
        model.pos_embed[0, 1:] = rearrange(torch.cat([rows, columns], dim=-1), "h w d -> (h w) d")
    if model.time_embed is not None:
        model.time_embed[0] = _sinusoids(grid["t"], dim)


def _sinusoids(length: int, dim: int, amplitude: float = 0.5) -> Tensor:
    """Sines and cosines (length, dim) of wavelengths from 2 pi to about 100 places."""
    frequencies = torch.exp(-math.log(100 / (2 * math.pi)) * torch.arange(math.ceil(dim / 2)) / max(dim // 2, 1))
    angles = torch.arange(length)[:, None] * frequencies
    return amplitude * rearrange([angles.sin(), angles.cos()], "part n d -> n (d part)")[:, :dim]
