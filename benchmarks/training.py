"""A training step against Hugging Face's TimeSformer: time of a step, and peak memory.

Base model, divided attention, the same weights; batch 2, forward, backward and AdamW. Times in turn in one process;
memory each in a process of its own, with AdamW, whose state is the same for all, and of forward and backward alone.
With checkpointing freed memory is given back, as training does; for all others the C library keeps it, as it does.
`frozen` trains the head alone, against a forward pass. Needs the extra `dev`.

    python benchmarks/training.py [--frames 8] [--size 224] [--batch 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable
from typing import Any

import torch
from machine import in_own_process, interleaved, memory, write_result
from torch import nn

import timesformer
from timesformer.training.memory import give_back_freed_memory

DTYPES = ("float32", "bfloat16")
KINDS = ("Hugging Face", "plain", "checkpointing")


def stepper(model: nn.Module, clip: torch.Tensor, dtype: str, *, moved: bool = True) -> Callable[[], None]:
    """A step of training on one batch; without the optimizer's, weights are not moved."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-6, fused=True)
    labels = torch.arange(len(clip), device=clip.device)

    def step() -> None:
        model.train()
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(clip)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        if moved:
            optimizer.step()
        optimizer.zero_grad()

    return step


def make(kind: str, frames: int, size: int, **options: Any) -> nn.Module:
    """`Hugging Face`, or ours: `plain`, `checkpointing`, `frozen`."""
    torch.manual_seed(0)
    ours = timesformer.create_model("timesformer_base", num_frames=frames, image_size=size, drop_path=0.0, **options)
    if kind == "Hugging Face":
        from peer import Logits, hugging_face  # here, so that the others' memory does not hold transformers

        return Logits(hugging_face(ours))
    ours.activation_checkpointing = kind == "checkpointing"
    if kind == "frozen":
        ours.freeze(-1)
    return ours


def peak(kind: str, frames: int, size: int, batch: int, dtype: str, moved: bool) -> int:
    """Bytes at the peak of three steps, for a process of its own."""
    if kind == "checkpointing":
        give_back_freed_memory()  # as training does
    step = stepper(make(kind, frames, size), torch.randn(batch, 3, frames, size, size), dtype, moved=moved)
    for _ in range(3):
        step()
    return memory("VmHWM")


def keep_freed_memory() -> None:
    """What glibc comes to by itself where large tensors are freed; undoes `give_back_freed_memory`."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD
        mallopt(-1, 64 * 2**20)  # M_TRIM_THRESHOLD


def giving_back(step: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        give_back_freed_memory()
        step()
        keep_freed_memory()

    return run


def compare(frames: int, size: int, batch: int, rounds: int) -> dict[str, Any]:
    keep_freed_memory()
    clip = torch.randn(batch, 3, frames, size, size)
    seconds: dict[str, float] = {}
    for dtype in DTYPES:  # one precision after the other: all models at once need much memory
        jobs = {kind: stepper(make(kind, frames, size), clip, dtype) for kind in KINDS}
        jobs["checkpointing"] = giving_back(jobs["checkpointing"])
        frozen = make("frozen", frames, size)
        jobs["frozen"] = stepper(frozen, clip, dtype)

        def forward(model: nn.Module = frozen, dtype: str = dtype) -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                model(clip)

        jobs["forward"] = forward
        for name, median in interleaved(jobs, rounds=rounds, warm_up=1).items():
            seconds[f"{name}, {dtype}"] = median
    peaks = {
        f"{kind}, {dtype}, {what}": in_own_process(peak, kind, frames, size, batch, dtype, what == "step")
        for dtype in DTYPES
        for kind in KINDS
        for what in ("step", "forward and backward")
    }
    ratios = {}
    for dtype in DTYPES:
        theirs = seconds[f"Hugging Face, {dtype}"]
        ratios[f"speed over Hugging Face, {dtype}"] = theirs / seconds[f"plain, {dtype}"]
        ratios[f"checkpointing: time over Hugging Face's plain, {dtype}"] = seconds[f"checkpointing, {dtype}"] / theirs
        ratios[f"frozen: time over forward, {dtype}"] = seconds[f"frozen, {dtype}"] / seconds[f"forward, {dtype}"]
        for what in ("step", "forward and backward"):
            held = peaks[f"Hugging Face, {dtype}, {what}"]
            less = peaks[f"checkpointing, {dtype}, {what}"] / held
            ratios[f"checkpointing: memory over Hugging Face's plain, {dtype}, {what}"] = less
            ratios[f"memory over Hugging Face, {dtype}, {what}"] = peaks[f"plain, {dtype}, {what}"] / held
    return {
        "batch": f"{batch} x {frames} x {size} x {size}",
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "milliseconds": {name: round(1000 * value) for name, value in seconds.items()},
        "peak_memory_mib": {name: round(value / 2**20) for name, value in peaks.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    write_result("training", compare(args.frames, args.size, args.batch, args.rounds))


if __name__ == "__main__":
    main()
