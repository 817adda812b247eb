"""Linear layers for inference, their weights laid out once for the machine's matrix products."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Linear(Protocol):
    """`x W^T + b` of fixed weights, for inference."""

    def __call__(self, x: Any) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        ...

    def prepared(self, x: Tensor) -> Any:
        """An input in the form that is computed with, which a call takes as well."""
        ...

    def gelu_for(self, following: Any, x: Tensor) -> Tensor:
        """GELU (exact) of a call, as the input of the following layer, which is of the same kind."""
        ...

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual` and what a call gives, added."""
        ...


class PlainLinear:
    """By PyTorch, as ever: on a GPU, and for exporting or compiling. Notes the range of its inputs, if asked to."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.watched = False
        self.range = (0.0, 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        if self.watched:
            low, high = x.aminmax()
            self.range = min(self.range[0], low.item()), max(self.range[1], high.item())
        return F.linear(x, self.weight, self.bias)

    def prepared(self, x: Tensor) -> Tensor:
        return x

    def gelu_for(self, following: PlainLinear, x: Tensor) -> Tensor:
        return F.gelu(self(x))

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual + self(x)


class PackedLinear:
    """By oneDNN on a CPU, float32 or bfloat16: weights in its own layout, GELU or residual in the same pass."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out

    def prepared(self, x: Tensor) -> Tensor:
        return x

    def gelu_for(self, following: PackedLinear, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
        return out

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        return out


class Int8Linear:
    """By oneDNN on a CPU in 8 bits: weights symmetric for each output, inputs by one scale for a range seen before.

    Weights have 127 steps up and down; where a CPU adds products of 8 bits within 16, 64, so that no sum is cut off.
    Takes float32, bfloat16, or what is in 8 bits already (see `prepared`); gives `out`, float32 or bfloat16.
    """

    def __init__(self, weight: Tensor, bias: Tensor, low: float, high: float, out: torch.dtype) -> None:
        self.scale = max(high - low, 1e-12) / 255
        self.zero = round(-low / self.scale)
        self.scales = weight.abs().amax(dim=1).clamp(min=1e-12) / (127 if _adds_exactly() else 64)
        rounded = (weight / self.scales[:, None]).round().to(torch.int8)
        self.weight: Tensor = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias, self.out = bias, out
        self._zero_and_half = torch.tensor(self.zero + 0.5)  # the half: conversion cuts off, and is to round

    def prepared(self, x: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            return x
        return torch.add(self._zero_and_half, x.float(), alpha=1 / self.scale).clamp_(0, 255.99).to(torch.uint8)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            self.prepared(x), self.scale, self.zero, self.weight, self.scales, self.zeros, self.bias,
            1.0, 0, self.out, "none", [], "",
        )  # fmt: skip
        return out

    def gelu_for(self, following: Int8Linear, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            self.prepared(x), self.scale, self.zero, self.weight, self.scales, self.zeros, self.bias,
            following.scale, following.zero, torch.uint8, "gelu", [], "none",
        )  # fmt: skip
        return out

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.onednn.qlinear_pointwise.binary(
            self.prepared(x), self.scale, self.zero, self.weight, self.scales, self.zeros, residual, self.bias,
            1.0, 0, torch.float32, 1.0, 0, "add", 1.0, "none", [], "",
        )  # fmt: skip
        return out


@lru_cache
def _adds_exactly() -> bool:
    """Whether oneDNN adds products of 8 bits exactly on this CPU: one of the largest inputs and weights.

    Without the instructions for it (VNNI), pairs of products are added in 16 bits, where the largest do not fit.
    """
    size = 64
    inputs = torch.full((size, size), 255, dtype=torch.uint8)
    weight = torch.ops.onednn.qlinear_prepack(torch.full((size, size), 127, dtype=torch.int8), None)
    ones, zeros = torch.ones(size), torch.zeros(size, dtype=torch.int32)
    sums: Tensor = torch.ops.onednn.qlinear_pointwise(
        inputs, 1.0, 0, weight, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return bool((sums == size * 255 * 127).all())


class Float8(NamedTuple):
    """Rows of numbers in 8-bit floating point: values (…, D) and what each row is to be multiplied by (…, 1)."""

    values: Tensor
    scales: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Float8:
        """Each row scaled so that its largest number is the format's largest."""
        scales = (x.float().abs().amax(dim=-1, keepdim=True) / _LARGEST).clamp(min=1e-12)
        return cls((x / scales).to(torch.float8_e4m3fn), scales)


_LARGEST = torch.finfo(torch.float8_e4m3fn).max


class Float8Linear:
    """In 8-bit floating point (e4m3): weights by one scale for each output, inputs by one for each token, found anew.

    Takes bfloat16, or what is in 8 bits already (see `prepared`); gives bfloat16. Sizes are multiples of 16.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = Float8.of(weight), bias

    def prepared(self, x: Tensor) -> Float8:
        return Float8.of(x)

    def __call__(self, x: Tensor | Float8) -> Tensor:
        values, scales = x if isinstance(x, Float8) else Float8.of(x)
        by_row = F.ScalingType.RowWise
        out: Tensor = F.scaled_mm(
            values.flatten(0, -2), self.weight.values.t(),
            scales.flatten(0, -2), by_row, self.weight.scales.t(), by_row,
            bias=self.bias, output_dtype=torch.bfloat16, use_fast_accum=True,
        )  # fmt: skip
        return out.view(*values.shape[:-1], -1)

    def gelu_for(self, following: Float8Linear, x: Tensor) -> Tensor:
        return F.gelu(self(x))

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual + self(x)


def project(x: Tensor, *layers: Linear) -> list[Tensor]:
    """The same input through several layers, prepared once."""
    prepared = layers[0].prepared(x)
    return [layer(prepared) for layer in layers]


def mlp(residual: Tensor, x: Tensor, first: Linear, second: Linear) -> Tensor:
    """`residual` + second(GELU(first(x)))."""
    return second.add_to(residual, first.gelu_for(second, x))
