"""Whether what runs is recorded, or transformed into another function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_traced() -> bool:
    """Whether a graph is made of what runs, for any size of batch, instead of a result."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def is_transformed(*tensors: Tensor) -> bool:
    """Whether `torch.func` (grad, vmap, jvp, ...) or forward-mode differentiation goes through what runs."""
    if torch._C._are_functorch_transforms_active():
        return True
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
