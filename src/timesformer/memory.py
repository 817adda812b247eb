"""How much memory a process that decodes what comes from others may take."""

from __future__ import annotations

import sys
from pathlib import Path

from timesformer.limits import limit


def limit_memory() -> None:
    """Let this process take no more than `MAX_WORKER_BYTES` beside what it has; then allocating fails, and only there.

    Counted is what the process alone holds, not what it shares with others. Only Linux can do it; elsewhere nothing
    happens.
    """
    if sys.platform != "linux":
        return
    import resource

    # The limit of the address space would count libraries, and the gigabytes that a GPU's driver reserves.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    held = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = [held + limit("MAX_WORKER_BYTES"), *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(allowed), hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; on the CPU, PyTorch has no exception of its own for it."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
