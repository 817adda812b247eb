"""Whether what runs is recorded."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether a graph is made of what runs, for any size of batch, instead of a result."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()
