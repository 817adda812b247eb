"""Cost against work: time and memory of divided and joint attention over frames and over frame sizes.

Base model, float32, one clip, inference. Time is of two blocks of the prepared model, in turn in this process; memory
of the whole prepared model, each in a process of its own. Exponents, fitted by least squares on logarithms, say that
cost grows as tokens ** exponent.

    python benchmarks/scaling.py [--rounds 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import in_own_process, interleaved, memory, write_result

import timesformer
from timesformer.model.costs import count_macs

SCHEMES = ("divided_space_time", "joint_space_time")
FRAMES = [(frames, 224) for frames in (8, 16, 32, 64, 96)]
SIZES = [(8, size) for size in (224, 336, 448, 560)]


def make(attention: str, frames: int, size: int, depth: int) -> timesformer.TimeSformer:
    options = {"num_frames": frames, "image_size": size, "depth": depth}
    return timesformer.create_model("timesformer_base", attention=attention, **options).eval()  # type: ignore[arg-type]


def peak(attention: str, frames: int, size: int) -> int:
    """Bytes at the peak of a forward pass above what was held before it, for a process of its own."""
    model = timesformer.prepare(make(attention, frames, size, depth=12))
    clip = torch.randn(1, 3, frames, size, size)
    model(clip[:, :, :1, :32, :32])  # what is set up once
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    model(clip)
    return memory("VmHWM") - before


def exponent(work: list[float], cost: list[float]) -> float:
    return round(float(np.polyfit(np.log(work), np.log(cost), 1)[0]), 2)


@torch.inference_mode()
def compare(rounds: int) -> dict[str, Any]:
    jobs: dict[str, Callable[[], object]] = {}
    macs, tokens = {}, {}
    for attention in SCHEMES:
        for frames, size in dict.fromkeys(FRAMES + SIZES):
            with torch.inference_mode(False):
                model = make(attention, frames, size, depth=2)
                fast, clip = timesformer.prepare(model), torch.randn(1, 3, frames, size, size)
            name = f"{attention}, {frames} x {size}"
            jobs[name] = lambda fast=fast, clip=clip: fast(clip)
            macs[name] = float(sum(count_macs(model.config.replace(depth=12)).values()))
            tokens[name] = frames * (size // 16) ** 2
    seconds = interleaved(jobs, rounds=rounds, warm_up=1)
    del jobs
    peaks = {}
    for name in seconds:
        attention, shape = name.split(", ")
        peaks[name] = in_own_process(peak, attention, *map(int, shape.split(" x ")))
    exponents = {}
    for attention in SCHEMES:
        for along, points in (("frames", FRAMES), ("frame size", SIZES)):
            names = [f"{attention}, {frames} x {size}" for frames, size in points]
            work = [float(tokens[name]) for name in names]
            exponents[f"{attention} over {along}"] = {
                "time": exponent(work, [seconds[name] for name in names]),
                "memory": exponent(work, [float(peaks[name]) for name in names]),
                "multiply-accumulates": exponent(work, [macs[name] for name in names]),
            }
    least = seconds[f"{SCHEMES[0]}, 8 x 224"]
    return {
        "exponents of tokens": exponents,
        "time of two blocks over divided at 8 x 224": {
            name: round(value / least, 2) for name, value in seconds.items()
        },
        "multiply-accumulates over divided at 8 x 224": {
            name: round(value / macs[f"{SCHEMES[0]}, 8 x 224"], 2) for name, value in macs.items()
        },
        "memory above weights, mib": {name: round(value / 2**20) for name, value in peaks.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    write_result("scaling", compare(args.rounds))


if __name__ == "__main__":
    main()
