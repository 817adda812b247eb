"""Several processes at one job, as `torchrun` or SLURM's `srun` starts them: who is who, and what all of them found."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from timesformer.lock import release, take

T = TypeVar("T")


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` or `srun` started; alone without them. NCCL on GPUs, else Gloo.

    Where `torchrun`'s variables are absent, SLURM's tell the number of processes (`SLURM_NTASKS`), this one's
    (`SLURM_PROCID`) and its GPU (`SLURM_LOCALID`). They meet at `MASTER_ADDR` and `MASTER_PORT`, by default on the
    first node of the step, at a port that is a function of the job's number.

    Raises:
        ValueError: more processes on a machine than it has GPUs.
    """
    if "WORLD_SIZE" not in os.environ:
        os.environ.update(_from_slurm(os.environ))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        # SLURM may show each process its own GPU alone, which is then number 0 of all of them.
        if gpus > 1 and local >= gpus:
            raise ValueError(f"process {local} of this machine has no GPU: there are {gpus}; start one process a GPU")
        torch.cuda.set_device(local if gpus > 1 else 0)
    # What processes tell one another at the start stays in torchrun's store when it starts them again: those of each
    # start must not take the addresses of those before for their own.
    store, number, count = next(iter(dist.rendezvous("env://")))  # type: ignore[attr-defined]
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"start_{start}", store)  # type: ignore[attr-defined]
    # Python objects and figures go by Gloo also where there are GPUs, which then need not be waited for.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # One may be at work for long while others have done their share and wait.
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timedelta(days=7))
    yield
    leave()  # not after an error, when others may not answer any more


def _from_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """`torchrun`'s variables from those of a step of SLURM; none for a step of one process."""
    if int(environment.get("SLURM_NTASKS", "1")) == 1 or "SLURM_PROCID" not in environment:
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST", "localhost"))
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": environment.get("MASTER_ADDR", _first_node(nodes)),
        "MASTER_PORT": environment.get("MASTER_PORT", str(20000 + int(environment.get("SLURM_JOB_ID", "0")) % 10000)),
    }


def _first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes, such as `gpu[03-06,9],big1`: gpu03."""
    first = re.match(r"([^,\[]*)(?:\[(\d+)[^\]]*\])?([^,\[]*)", nodes)
    assert first is not None
    return "".join(part or "" for part in first.groups())


def leave() -> None:
    """Part from the other processes, when this one is about to end.

    What FSDP keeps of the group outlives it, with Gloo's threads, which let go of a last tensor a moment after it was
    exchanged; were Python shutting down by then, they would abort the process (pytorch/pytorch#190489).
    """
    dist.destroy_process_group()
    time.sleep(0.5)


@contextmanager
def locked(output: str | Path, *, folder: bool) -> Iterator[None]:
    """Hold the lock of an output that all processes write together: process 0 does. See `timesformer.lock`."""
    on_first(partial(take, output, folder=folder))
    try:
        yield
    finally:
        if rank() == 0:
            release(output, folder=folder)


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: T) -> list[T]:
    """The value of every process, in the order of ranks, for all of them."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def on_first(job: Callable[[], T]) -> T:
    """What a job gives on process 0, the only one to do it, for all of them; where it fails, all raise its error."""
    if world_size() == 1:
        return job()
    outcome: list[T | Exception | None] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = job()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, 0)
    result, problem = outcome
    if isinstance(problem, Exception):
        raise problem
    return result  # type: ignore[return-value]
