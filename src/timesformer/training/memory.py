"""What the C library does with memory that tensors on a CPU leave."""

from __future__ import annotations

import ctypes
import sys

_LARGE = 2**20  # bytes
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def give_back_freed_memory() -> None:
    """Let large tensors be memory of their own, which is the system's again as soon as they are freed; glibc alone.

    It would keep it for tensors to come, in pieces between those that stay: with activations recomputed, some 200 MiB
    of no use in a training step of the base model. Training is as fast without (benchmarks/training.py).
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
