"""Linear layers that train as fast as the processor can."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from timesformer.model.tracing import is_traced


class Linear(nn.Linear):
    """`nn.Linear`, whose products on a CPU are oneDNN's, in float32 and in autocast to bfloat16. Equal up to rounding.

    PyTorch takes MKL's in float32, which on processors of other makers than Intel are about half as fast, and adds the
    bias in a pass of its own in bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether nothing but weight and bias makes a layer: no adapter of others in its place, no hooks on it."""
    if type(layer) not in (Linear, nn.Linear) or "forward" in vars(layer) or layer.bias is None:
        return False
    return not is_watched(layer)


def is_watched(module: nn.Module) -> bool:
    """Whether there are hooks on a module, which are to see what it is given and gives."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


def in_one(first: nn.Linear, second: nn.Linear, x: Tensor) -> Tensor:
    """`second(first(x))` by one product, of which their weights are factors."""
    weight = linear(second.weight, first.weight.t(), None)
    return linear(x, weight, linear(first.bias, second.weight, second.bias))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x W^T + b`, by oneDNN where that is faster."""
    if not _by_onednn(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        x, weight, bias = x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16()
    out: Tensor = _OneDNN.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or is_traced() or not torch.backends.mkldnn.is_available():
        return False
    if x.numel() < 2**16:  # calls cost more than products
        return False
    if torch.is_autocast_enabled("cpu"):
        if torch.get_autocast_dtype("cpu") != torch.bfloat16 or not has_bfloat16():
            return False
        return {x.dtype, weight.dtype} <= {torch.float32, torch.bfloat16}
    return x.dtype == weight.dtype == torch.float32


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this CPU."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_float8(device: torch.device) -> bool:
    """Whether PyTorch multiplies matrices in 8-bit floating point there: recent GPUs, and slowly CPUs."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 9)
    return device.type == "cpu"


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
            _gradient_of_weight(rows, inputs) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )


def _gradient_of_weight(rows: Tensor, inputs: Tensor) -> Tensor:
    if rows.dtype == torch.bfloat16:  # for which PyTorch calls oneDNN itself, and in the faster form
        return rows.t() @ inputs
    return _product(rows.t(), inputs.t())
