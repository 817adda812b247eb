"""Linear layers for inference, their weights laid out once for the machine's matrix products."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Linear(Protocol):
    """`x W^T + b` of fixed weights, for inference."""

    def __call__(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        ...

    def gelu(self, x: Tensor) -> Tensor:
        """GELU (exact) of a call."""
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

    def gelu(self, x: Tensor) -> Tensor:
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

    def gelu(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
        return out

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        return out


class Int8Linear:
    """By oneDNN on a CPU in 8 bits: weights symmetric for each output, inputs by one scale for a range seen before.

    Inputs and outputs are float32 all the same.
    """

    def __init__(self, weight: Tensor, bias: Tensor, low: float, high: float) -> None:
        self.scale = max(high - low, 1e-12) / 255
        self.zero = round(-low / self.scale)
        self.scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        rounded = (weight / self.scales[:, None]).round().to(torch.int8)
        self.weight: Tensor = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = bias

    def _product(self, x: Tensor, post: str, algorithm: str = "") -> Tensor:
        quantised = torch.add(torch.tensor(float(self.zero)), x, alpha=1 / self.scale)
        quantised = quantised.round_().clamp_(0, 255).to(torch.uint8)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            quantised, self.scale, self.zero, self.weight, self.scales, self.zeros, self.bias,
            1.0, 0, torch.float32, post, [], algorithm,
        )  # fmt: skip
        return out

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x, "none")

    def gelu(self, x: Tensor) -> Tensor:
        return self._product(x, "gelu", "none")

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual + self(x)
