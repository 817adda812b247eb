"""Linear layers that train as fast as the processor can."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from timesformer.model.tracing import is_traced


class Linear(nn.Linear):
    """`nn.Linear`, whose float32 products on a CPU are oneDNN's.

    PyTorch takes MKL's, which on processors of other makers than Intel are about half as fast. Equal up to rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _by_onednn(x, self.weight):
            out: Tensor = _OneDNN.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return out
        return F.linear(x, self.weight, self.bias)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= 2**16  # below, calls cost more than products
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not is_traced()
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _OneDNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        return (
            _product(gradient, weight.t()) if for_x else None,
            _product(rows.t(), inputs.t()) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )
