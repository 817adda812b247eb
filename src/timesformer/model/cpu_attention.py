"""Attention in bfloat16 on a CPU, where PyTorch's fused kernel is slow on short sequences (benchmarks/attention.py)."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import FunctionCtx

from timesformer.model.tracing import is_traced, is_transformed

_LONG = 1024  # tokens; from here on the fused kernel saves memory
_LARGE = 2**16  # elements; sequences below are sooner done all at once


def is_short(q: Tensor, k: Tensor) -> bool:
    """Whether `attend_short` is to be preferred for queries and keys (groups, tokens, D)."""
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[1] <= _LONG


def attend_short(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v by matrix products, for q, k and v of (groups, tokens, heads * d).

    Large sequences are taken one by one, so that heads need not be copied to lie behind one another, which takes as
    long as their products.
    """
    with torch.autocast("cpu", enabled=False):  # which would compute the softmax in float32
        out: Tensor
        if q[:1].numel() >= _LARGE and not is_traced() and not is_transformed(q, k, v):
            out = _OneByOne.apply(q, k, v, num_heads)  # type: ignore[no-untyped-call]
            return out
        return _at_once(q, k, v, num_heads)


def _at_once(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """The same for all groups together, by operators that PyTorch differentiates as often as need be."""
    q, k, v = (rearrange(x, "g n (head d) -> g head n d", head=num_heads) for x in (q, k, v))
    weights = ((q * q.shape[-1] ** -0.5) @ _transposed(k)).softmax(dim=-1)
    out: Tensor = rearrange(weights @ v, "g head n d -> g n (head d)")
    return out


def scores(q: Tensor, k: Tensor) -> Tensor:
    """q k^T / sqrt(d) of (heads, tokens, d), which may lie anywhere."""
    return torch.baddbmm(q.new_empty(()), q, _transposed(k), beta=0, alpha=q.shape[-1] ** -0.5)


def _transposed(x: Tensor) -> Tensor:
    """(heads, tokens, d) as (heads, d, tokens) for a matrix product."""
    # PyTorch's products in bfloat16 copy what does not lie densely, and slowly if it is transposed by then.
    return (x.contiguous() if x.dtype == torch.bfloat16 else x).transpose(-1, -2)


class _OneByOne(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
        out = q.new_empty(q.shape)
        kept = []
        for queries, keys, values, mixed in zip(*(_heads(x, num_heads) for x in (q, k, v, out)), strict=True):
            weights = scores(queries, keys).softmax(dim=-1)
            torch.bmm(weights, values, out=mixed)
            if any(ctx.needs_input_grad):  # type: ignore[attr-defined]
                kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.num_heads = num_heads  # type: ignore[attr-defined]
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated in turn (create_graph=True)
            return _differentiable_gradients(ctx, q, k, v, gradient)
        gradients = [x.new_empty(x.shape) for x in (q, k, v)]
        by_head = (_heads(x, ctx.num_heads) for x in (q, k, v, gradient, *gradients))
        for weights, queries, keys, values, of_mixed, of_queries, of_keys, of_values in zip(
            kept, *by_head, strict=True
        ):
            torch.bmm(weights.transpose(1, 2), of_mixed, out=of_values)
            of_weights = of_mixed @ _transposed(values)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_scores *= queries.shape[-1] ** -0.5
            torch.bmm(of_scores, keys, out=of_queries)
            torch.bmm(of_scores.transpose(1, 2), queries, out=of_keys)
        return *gradients, None


def _differentiable_gradients(ctx: Any, q: Tensor, k: Tensor, v: Tensor, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of `_OneByOne`, as functions of its inputs and of the gradient of what it gave."""
    wanted = [x for x, needed in zip((q, k, v), ctx.needs_input_grad, strict=False) if needed]
    with torch.autocast("cpu", enabled=False):
        found = iter(torch.autograd.grad(_at_once(q, k, v, ctx.num_heads), wanted, gradient, create_graph=True))
    return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(groups, tokens, heads * d) as (groups, heads, tokens, d), where it lies."""
    return x.view(*x.shape[:2], num_heads, -1).transpose(1, 2)
