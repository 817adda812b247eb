"""The attention schemes of the paper (Table 1, Figures 1 and 2), each a list of neighbourhoods.

A clip is T frames of H x W patches and one classification token (CLS). A `Neighbourhood` says which patches attend
to one another in one attention step; a scheme is the tuple of steps that a block takes in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn


class Grid(TypedDict):
    """The patch grid of a clip: frames, rows and columns."""

    t: int
    h: int
    w: int


@dataclass(frozen=True)
class Neighbourhood:
    """A partition of the patches into groups; every patch attends to all patches of its group.

    Attributes:
        name: prefix of the parameters of this step, when it comes on top of ViT's own attention step.
        groups: einops side for the partition, `(group axes) (axes within a group) d`.
        with_cls: whether a copy of CLS joins each group, to be updated by the mean of its copies' outputs (the
            rule that the published weights were trained with). Otherwise CLS takes no part in the step.
    """

    name: str
    groups: str
    with_cls: bool

    def apply(self, layer: Callable[[Tensor], Tensor], x: Tensor, grid: Grid) -> Tensor:
        """Run `layer` on each group of tokens on its own.

        Args:
            layer: maps (groups, tokens, D) to the same shape, each group by itself.
            x: (B, 1 + T*H*W, D), CLS first, then the patches in the order (t h w).
            grid: the sizes T, H and W.

        Returns:
            The layer's output in the shape and order of `x`; zero for a CLS that takes no part.
        """
        to_groups = f"b (t h w) d -> {self.groups}"
        from_groups = f"{self.groups} -> b (t h w) d"
        patches = rearrange(x[:, 1:], to_groups, **grid)
        if not self.with_cls:
            return F.pad(rearrange(layer(patches), from_groups, **grid), (0, 0, 1, 0))
        if len(patches) == len(x):  # one group a clip, which CLS joins as it is
            return layer(x)
        copies = repeat(x[:, :1], "b 1 d -> (b g) 1 d", g=len(patches) // len(x))
        out = layer(torch.cat([copies, patches], dim=1))
        cls = rearrange(out[:, 0], "(b g) d -> b g d", b=len(x)).mean(dim=1, keepdim=True)
        return torch.cat([cls, rearrange(out[:, 1:], from_groups, **grid)], dim=1)


EVERYWHERE = Neighbourhood("joint", "b (t h w) d", with_cls=True)
SPACE = Neighbourhood("spatial", "(b t) (h w) d", with_cls=True)
TIME = Neighbourhood("temporal", "(b h w) t d", with_cls=False)

# The last step of a scheme keeps ViT's parameter names; each earlier one has parameters of its own.
# `space_only` takes every frame for a clip of its own (see TimeSformer.tokens).
SCHEMES: dict[str, tuple[Neighbourhood, ...]] = {
    "space_only": (SPACE,),
    "joint_space_time": (EVERYWHERE,),
    "divided_space_time": (TIME, SPACE),
}


class Attention(nn.Module):
    """Multi-head self-attention (Eqs. 5 to 8): every token of `x` (groups, tokens, D) attends to all of its group."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "g n (qkv head d) -> qkv g head n d", qkv=3, head=self.num_heads)
        out = attend(q, k, v)
        merged: Tensor = self.proj(rearrange(out, "g head n d -> g n (head d)"))
        return merged


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q, k and v of (groups, heads, tokens, d)."""
    # PyTorch's fused kernel for the CPU is several times slower than two matrix products in bfloat16 on short
    # sequences (benchmarks/attention.py); on long ones it saves memory.
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= 1024:
        with torch.autocast("cpu", enabled=False):  # which would compute the softmax in float32
            weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1)
            return torch.matmul(weights, v)
    return F.scaled_dot_product_attention(q, k, v)
