"""What a result was measured on, and how ratios are taken."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

RESULTS = Path(__file__).parent / "results"

T = TypeVar("T")


def machine() -> dict[str, Any]:
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = [line.split(":") for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
        said = {name.strip(): value.strip() for name, value in lines}
        if "model name" in said:  # which may hide the generation
            cpu = f"{said['model name']} (family {said.get('cpu family')}, model {said.get('model')})"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def interleaved(jobs: Mapping[str, Callable[[], object]], rounds: int = 7, warm_up: int = 2) -> dict[str, float]:
    """Median seconds of each job, all run in turn, round after round, so that drift of the machine meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(warm_up + rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """What a function of a module returns in a process that is started for it, with memory of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def memory(which: str, process: int | str = "self") -> int:
    """Bytes that a process holds (`VmRSS`) or has held at most (`VmHWM`); Linux alone."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(which)).split()[1])


def children(process: int) -> list[int]:
    """Processes that a process has started; none if it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def write_result(name: str, result: dict[str, Any], command: str = "") -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"command": command or f"python benchmarks/{name}.py", "machine": machine(), **result}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
