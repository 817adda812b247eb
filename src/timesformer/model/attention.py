"""The attention schemes of the paper (Table 1, Figures 1 and 2), each a list of neighbourhoods.

A clip is T frames of H x W patches and one classification token (CLS). A neighbourhood says which patches each patch
attends to in one attention step; a scheme is the tuple of steps that a block takes in turn. What CLS does is one of
two rules:

- `equations` (Eqs. 6 and 11): CLS is one more key of every patch, and itself attends to every token of the clip.
- `released` (what the published weights were trained with): in a step over space, a copy of CLS joins each frame and
  the copies' outputs are averaged; in a step over time, CLS takes no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol, TypeAlias, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from timesformer.model.cpu_attention import attend_short, is_short
from timesformer.model.layers import Linear, in_one, is_plain, linear
from timesformer.model.tracing import is_traced


class Grid(TypedDict):
    """The patch grid of a clip: frames, rows and columns."""

    t: int
    h: int
    w: int


# From queries, keys and values (groups, tokens, D) of several groups to weighted values (groups, queries, D).
Mix: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


class Neighbourhood(Protocol):
    """Which patches attend to which, in one attention step.

    Attributes:
        name: prefix of the parameters of this step, where it comes on top of ViT's own attention step.
    """

    @property
    def name(self) -> str:
        """Prefix of the parameters of this step."""
        ...

    def comparisons(self, grid: Grid) -> int:
        """Number of pairs of a patch and one that it attends to (itself among them), over all patches of a clip."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mix: Mix, grid: Grid) -> Tensor:
        """Attention of each patch to CLS and to the patches of its neighbourhood.

        Args:
            q: queries (B, T*H*W, D) of the patches in the order (t h w).
            k, v: keys and values (B, 1 + T*H*W, D) of CLS and the patches.
            mix: attention of queries to all keys of their group, see `attend`.
            grid: the sizes T, H and W.

        Returns:
            The weighted values (B, T*H*W, D).
        """
        ...


@dataclass(frozen=True)
class Partition:
    """Every patch attends to all patches of its group.

    Attributes:
        groups: einops side for the partition, `(group axes) (axes within a group) d`.
        with_cls: whether CLS joins the groups under the rule `released`, which only such steps have.
    """

    name: str
    groups: str
    with_cls: bool = True

    def comparisons(self, grid: Grid) -> int:
        """See `Neighbourhood`: each patch is compared with all of its group."""
        groups, patches = self.num_groups(grid), grid["t"] * grid["h"] * grid["w"]
        return patches * patches // groups

    def num_groups(self, grid: Grid) -> int:
        """Groups of a clip, all of one size."""
        return _num_groups(self.groups, grid["t"], grid["h"], grid["w"])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mix: Mix, grid: Grid) -> Tensor:
        """See `Neighbourhood`."""
        q = rearrange(q, f"b (t h w) d -> {self.groups}", **grid)
        k, v = self._with_copies_of_cls(k, grid), self._with_copies_of_cls(v, grid)
        return rearrange(mix(q, k, v), f"{self.groups} -> b (t h w) d", **grid)

    def apply(self, layer: Callable[[Tensor], Tensor], x: Tensor, grid: Grid) -> Tensor:
        """Run `layer` on each group of tokens on its own, under the rule `released`.

        Args:
            layer: maps (groups, tokens, D) to the same shape, each group by itself; or to CLS alone, (groups, 1, D).
            x: (B, 1 + T*H*W, D), CLS first, then the patches in the order (t h w).
            grid: the sizes T, H and W.

        Returns:
            The layer's output in the shape and order of `x`, or of CLS alone; zero for a CLS that takes no part.
        """
        from_groups = f"{self.groups} -> b (t h w) d"
        if not self.with_cls:
            out = layer(rearrange(x[:, 1:], f"b (t h w) d -> {self.groups}", **grid))
            return F.pad(rearrange(out, from_groups, **grid), (0, 0, 1, 0))
        groups = self._with_copies_of_cls(x, grid)
        out = layer(groups)
        if self.num_groups(grid) == 1:  # one group a clip
            return out
        cls = rearrange(out[:, 0], "(b g) d -> b g d", b=x.shape[0]).mean(dim=1, keepdim=True)
        if out.shape[1] == 1:
            return cls
        return torch.cat([cls, rearrange(out[:, 1:], from_groups, **grid)], dim=1)

    def _with_copies_of_cls(self, x: Tensor, grid: Grid) -> Tensor:
        patches = rearrange(x[:, 1:], f"b (t h w) d -> {self.groups}", **grid)
        if self.num_groups(grid) == 1:  # one group a clip, which CLS joins as it is
            return x
        copies = repeat(x[:, :1], "b 1 d -> (b g) 1 d", g=self.num_groups(grid))
        return torch.cat([copies, patches], dim=1)


@lru_cache
def _num_groups(groups: str, t: int, h: int, w: int) -> int:
    return len(rearrange(np.empty((1, t * h * w, 0)), f"b (t h w) d -> {groups}", t=t, h=h, w=w))


# Batches of groups of one size: which patches (groups, queries) attend to which tokens (groups, keys), 0 being CLS.
Table: TypeAlias = "list[tuple[Tensor, Tensor]]"


@dataclass(frozen=True)
class Lookup:
    """Patches attend by groups that a table lists: what overlaps, or differs in size, is no `Partition`."""

    name: str
    table: Callable[[int, int, int, torch.device], Table]

    def comparisons(self, grid: Grid) -> int:
        """See `Neighbourhood`: each query of a group is compared with all its keys but CLS."""
        table = self.table(grid["t"], grid["h"], grid["w"], torch.device("cpu"))
        return sum(queries.numel() * (keys.shape[1] - 1) for queries, keys in table)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mix: Mix, grid: Grid) -> Tensor:
        """See `Neighbourhood`."""
        table = self.table(grid["t"], grid["h"], grid["w"], q.device)
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()  # once, and not for every taking
        outs = []
        for queries, keys in table:
            parts = [(queries, keys)]
            if q.device.type == "cpu" and not is_traced():
                # A few groups at a time, so that what is taken is still in the cache when it is used.
                groups = max(1, _CACHED // (k.shape[0] * keys.shape[1] * k.shape[2]))
                parts = list(zip(queries.split(groups), keys.split(groups), strict=True))
            for some, theirs in parts:
                out = mix(_take(q, some), _take(k, theirs), _take(v, theirs))
                outs.append(rearrange(out, "(b g) n d -> b (g n) d", b=q.shape[0]))
        order = torch.cat([queries.flatten() for queries, _ in table]).argsort()
        return torch.cat(outs, dim=1)[:, order]


_CACHED = 2**22  # elements


def _take(x: Tensor, indices: Tensor) -> Tensor:
    """Tokens (B, N, D) by indices (groups, tokens): (B * groups, tokens, D)."""
    # index_select: its gradient is several times faster than that of x[:, indices] on the CPU.
    return x.index_select(1, indices.flatten()).view(-1, indices.shape[1], x.shape[-1])


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a table that is made in inference must serve in training too
def window_table(t: int, h: int, w: int, device: torch.device) -> Table:
    """Local attention: all frames of a window of half the rows and half the columns (rounded up) around each patch.

    At the borders windows are shifted, not cut. Patches that share their window form a group: no mask is needed, and
    nothing is computed twice.
    """
    tokens = torch.arange(t * h * w, device="cpu").view(t, h, w)
    height, width = window(h), window(w)
    table = []
    for rows, tops in shared_windows(h):
        for columns, lefts in shared_windows(w):
            queries = tokens[:, rows.start : rows.stop, columns.start : columns.stop]
            groups = rearrange(queries, "t (a h) (b w) -> (a b) (t h w)", a=len(tops), b=len(lefts))
            keys = [tokens[:, y : y + height, x : x + width].flatten() for y in tops for x in lefts]
            table.append((groups.to(device), F.pad(1 + torch.stack(keys), (1, 0)).to(device)))
    return table


def window(n: int) -> int:
    """Length of the local window along an axis of n patches."""
    return math.ceil(n / 2)


def shared_windows(n: int) -> list[tuple[range, range]]:
    """The patches of an axis of n, in runs, and the starts of their windows.

    Patch i has the window that starts at clamp(i - window // 2, 0, n - window). The first run shares the first window,
    the last run the last; between them each patch has its own.
    """
    before, last = window(n) // 2, n - window(n)
    if last == 0:
        return [(range(n), range(1))]
    runs = [
        (range(before + 1), range(1)),
        (range(before + 1, before + last), range(1, last)),
        (range(before + last, n), range(last, last + 1)),
    ]
    return [(patches, starts) for patches, starts in runs if patches]


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def stride_table(t: int, h: int, w: int, device: torch.device) -> Table:
    """Global attention: every second frame, row and column, counted from the patch itself (Child et al., 2019)."""
    tokens = torch.arange(t * h * w, device="cpu").view(t, h, w)
    by_size: dict[int, list[Tensor]] = {}
    for first in range(8):
        group = tokens[first // 4 :: 2, first // 2 % 2 :: 2, first % 2 :: 2].flatten()
        if len(group):
            by_size.setdefault(len(group), []).append(group)
    groups = [torch.stack(same) for same in by_size.values()]
    return [(same.to(device), F.pad(1 + same, (1, 0)).to(device)) for same in groups]


EVERYWHERE = Partition("joint", "b (t h w) d")
SPACE = Partition("spatial", "(b t) (h w) d")
TIME = Partition("temporal", "(b h w) t d", with_cls=False)
WIDTH = Partition("width", "(b t h) w d")
HEIGHT = Partition("height", "(b t w) h d")
LOCAL = Lookup("local", window_table)
GLOBAL = Lookup("global", stride_table)

# The last step of a scheme keeps ViT's parameter names; each earlier one has parameters of its own.
# `space_only` takes every frame for a clip of its own under the rule `released` (see TimeSformer.tokens).
SCHEMES: dict[str, tuple[Neighbourhood, ...]] = {
    "space_only": (SPACE,),
    "joint_space_time": (EVERYWHERE,),
    "divided_space_time": (TIME, SPACE),
    "sparse_local_global": (LOCAL, GLOBAL),
    "axial": (TIME, WIDTH, HEIGHT),
}
RELEASED = ("space_only", "joint_space_time", "divided_space_time")


class Attention(nn.Module):
    """Multi-head self-attention (Eqs. 5 to 8)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, then: nn.Linear | None = None, *, cls_alone: bool = False) -> Tensor:
        """Every token of `x` (groups, tokens, D), or the first alone, attends to all of its group.

        `then`: a layer behind the projection, which is to become one product with it.
        """
        q, k, v = self._qkv(x, cls_alone)
        return self._merged(attend(q, k, v, self.num_heads), then)

    def within(
        self,
        neighbourhood: Neighbourhood,
        grid: Grid,
        x: Tensor,
        then: nn.Linear | None = None,
        *,
        cls_alone: bool = False,
    ) -> Tensor:
        """The rule `equations` on clips `x` (B, 1 + T*H*W, D), CLS first: patches attend within a neighbourhood."""
        q, k, v = self._qkv(x, cls_alone)
        out = attend(q[:, :1], k, v, self.num_heads)
        if not cls_alone:
            patches = neighbourhood.attend(q[:, 1:], k, v, partial(attend, num_heads=self.num_heads), grid)
            out = torch.cat([out, patches], dim=1)
        return self._merged(out, then)

    def _qkv(self, x: Tensor, cls_alone: bool) -> tuple[Tensor, ...]:
        """Queries, keys and values of all tokens; with `cls_alone` the query of the first alone."""
        if cls_alone and is_plain(self.qkv):
            sizes = [x.shape[-1], 2 * x.shape[-1]]
            (weight, weights), (bias, biases) = self.qkv.weight.split(sizes), self.qkv.bias.split(sizes)
            return linear(x[:, :1], weight, bias), *linear(x, weights, biases).chunk(2, dim=-1)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return q[:, :1] if cls_alone else q, k, v

    def _merged(self, x: Tensor, then: nn.Linear | None) -> Tensor:
        merged: Tensor = self.proj(x) if then is None else in_one(self.proj, then, x)
        return merged


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v in each head of d elements, for q, k and v of (groups, tokens, heads * d)."""
    if is_short(q, k):
        return attend_short(q, k, v, num_heads)
    q, k, v = (rearrange(x, "g n (head d) -> g head n d", head=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "g head n d -> g n (head d)")
