"""Training throughput of several processes against as many times that of one, for DDP and FSDP.

Each process has the same micro-batch whatever their number, made up beforehand: what is measured is the model, the
sums of gradients and the optimizer, not the loader. On a CPU a process has one thread; on GPUs each its own.

    python benchmarks/distributed.py [--processes 1 2] [--model timesformer_small] [--frames 8] [--size 224] [--batch 2]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import write_result

from timesformer import models
from timesformer.distributed import process_group, rank, world_size
from timesformer.training.optimizer import make_optimizer
from timesformer.training.parallel import share
from timesformer.training.recipe import OptimizerRecipe, Recipe
from timesformer.training.step import Turn, take_step
from timesformer.video.clips import Batch


def seconds_a_step(model_name: str, frames: int, size: int, batch: int, parallel: str, steps: int) -> float:
    """Median seconds of a step, in each of the processes of a group."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.create(model_name, num_classes=400, num_frames=frames, image_size=size).to(device)
    recipe = Recipe(
        batch_size=batch * world_size(),
        micro_batch_size=batch,
        optimizer=OptimizerRecipe(name="adamw", lr=1e-6),
        parallel="fsdp" if parallel == "fsdp" else "ddp",
    )
    shared = share(model, recipe)
    optimizer = make_optimizer(model, recipe.optimizer)
    targets = torch.nn.functional.one_hot(torch.arange(batch), 400).float()
    clips = Batch(torch.randn(batch, 3, frames, size, size), targets, ())
    seconds = []
    for step in range(2 + steps):
        start = time.perf_counter()
        turns = [Turn(rank(), clips, last=True)]
        take_step(shared, optimizer, turns, recipe, multi_label=False, bf16=device == "cuda", seed=(0, 0, step))
        if step >= 2:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def process(number: int, count: int, port: int, parallel: str, arguments: dict[str, Any], out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with process_group():
        seconds = seconds_a_step(parallel=parallel, **arguments)
    if number == 0:
        out.write_text(json.dumps(seconds))


def measure(count: int, parallel: str, arguments: dict[str, Any]) -> float:
    """Videos a second of a number of processes."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        out = Path(folder) / "seconds.json"
        torch.multiprocessing.spawn(process, (count, port, parallel, arguments, out), nprocs=count)
        seconds: float = json.loads(out.read_text())
    return count * arguments["batch"] / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--model", default="timesformer_small")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2, help="videos of a process")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    arguments = {"model_name": args.model, "frames": args.frames, "size": args.size}
    arguments |= {"batch": args.batch, "steps": args.steps}
    groups = [(1, "ddp"), *((count, kind) for count in args.processes if count > 1 for kind in ("ddp", "fsdp"))]
    rates: dict[tuple[int, str], list[float]] = {group: [] for group in groups}
    for _ in range(args.rounds):  # in turn, so that drift of the machine meets all alike
        for group, found in rates.items():
            found.append(measure(*group, arguments))
    median = {f"{kind}, {count} processes": statistics.median(rates[count, kind]) for count, kind in groups}
    one, *_ = median.values()
    result = {
        "model": args.model,
        "batch of a process": f"{args.batch} x {args.frames} x {args.size} x {args.size}",
        "rounds": args.rounds,
        "videos_per_second": {name: round(rate, 3) for name, rate in median.items()},
        "share of the ideal": {name: round(rate / (one * int(name.split()[1])), 3) for name, rate in median.items()},
    }
    write_result("distributed", result)


if __name__ == "__main__":
    main()
