"""Work on tokens in an order that suits a CPU: a part at a time, and attention of heads where they lie.

What is computed is the same; on a GPU, and where a graph is traced, all is done at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from timesformer.model.cpu_attention import scores
from timesformer.model.tracing import is_traced

Part: TypeAlias = tuple[slice, ...]
_ROWS = 3072  # tokens whose intermediate results a CPU has in its caches, in memory that is used again


def in_parts(function: Callable[[Tensor, Tensor], Tensor], parts: list[Part], x: Tensor, residual: Tensor) -> Tensor:
    """`function` of two tensors of one shape, part by part where there are several, so that little memory is needed.

    What parts give is then put where `residual` was; whoever needs that, as `x` or otherwise, keeps a copy.
    """
    if len(parts) == 1:
        return function(x, residual)
    for part in parts:
        some = x[part].contiguous()
        residual[part] = function(some, some if residual is x else residual[part].contiguous())
    return residual


def row_parts(x: Tensor) -> list[Part]:
    """Parts of tokens (rows, D) that a CPU is best given at a time; all at once elsewhere, and for a graph."""
    return [(part,) for part in _ranges(len(x), _ROWS)] if _is_divided(x) else [(slice(None),)]


def frame_parts(x: Tensor) -> list[Part]:
    """Parts of (frames, tokens, D), each some of the frames."""
    return [(part,) for part in _ranges(len(x), _ROWS // x.shape[1])] if _is_divided(x) else [(slice(None),)]


def place_parts(x: Tensor, t: int) -> list[Part]:
    """Parts of (clips * t, tokens, D), each some places in all frames of a clip."""
    if not _is_divided(x):
        return [(slice(None),)]
    clips = [slice(start, start + t) for start in range(0, len(x), t)]
    return [(clip, part) for clip in clips for part in _ranges(x.shape[1], _ROWS // t)]


def _is_divided(x: Tensor) -> bool:
    return x.device.type == "cpu" and not is_traced() and x[..., 0].numel() > _ROWS


def _ranges(length: int, most: int) -> list[slice]:
    """As few ranges of at most so many as can be, of about one length."""
    size = math.ceil(length / math.ceil(length / max(1, most)))
    return [slice(start, start + size) for start in range(0, length, size)]


def attend_over_time(q: Tensor, k: Tensor, v: Tensor, num_heads: int, t: int) -> Tensor:
    """Attention of each place of a frame to the same place in all frames: (b t) m d, and so the output.

    One batched product for all places and heads, which are read where they lie.
    """
    if is_traced() or q.device.type != "cpu":
        q, k, v = (rearrange(x, "(b t) m (h d) -> b (m h) t d", t=t, h=num_heads) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return rearrange(mixed, "b (m h) t d -> (b t) m (h d)", h=num_heads)
    out = torch.empty_like(q)
    for clip in range(0, len(q), t):
        queries, keys, values, mixed = (
            x[clip : clip + t].view(t, x.shape[1] * num_heads, -1).transpose(0, 1) for x in (q, k, v, out)
        )
        mixed.copy_(scores(queries, keys).softmax(dim=-1) @ values)
    return out
