"""Linear layers for inference, their weights laid out once for the machine's matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class InferenceLinear:
    """`x W^T + b` of fixed weights, with GELU or a residual on top in the same pass where the machine can.

    On a CPU the weights are kept in oneDNN's own layout. They are not in `state_dict`.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        weight, bias = weight.to(dtype), bias.to(dtype)
        self.packed = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        if self.packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self.weight, self.bias = weight, bias  # no buffers: the layout is the machine's, and not to be saved

    def __call__(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return out
        return F.linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU (exact) of a call."""
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
            return out
        return F.gelu(self(x))

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual` + what a call gives."""
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
            return out
        return residual + self(x)
