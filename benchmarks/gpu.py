"""Throughput of Base, HR and L on a GPU in bfloat16, in inference and training, against Hugging Face's TimeSformer.

Both eager and by torch.compile, with the same weights, in turn in one process; ours in float8 as well. Also as share of
the rate at which the device multiplies square matrices in bfloat16, by the operations that each does, as PyTorch counts
them. Training is forward, backward and AdamW under autocast. Needs the extra `dev`.

    python benchmarks/gpu.py [--models base hr long] [--device cuda] [--rounds 5]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from inference import run
from machine import interleaved, write_result
from peer import Logits, hugging_face
from torch.utils.flop_counter import FlopCounterMode
from training import stepper

import timesformer
from timesformer.model.layers import has_float8

BATCHES = {"base": 16, "hr": 4, "long": 2}  # clips
SIDE = 8192  # of the matrices


def compare(name: str, device: str, rounds: int, batch: int, side: int = SIDE, **options: Any) -> dict[str, Any]:
    """Clips a second of each, share of the rate of matrix products, and ratios, for one of the paper's models."""
    torch.manual_seed(0)
    model = timesformer.create_model(f"timesformer_{name}", drop_path=0.0, **options).eval()
    config = model.config
    clip = torch.randn(batch, config.in_channels, config.num_frames, *config.frame_size, device=device)
    theirs = Logits(hugging_face(model)).to(device)
    model.to(device)

    half = copy.deepcopy(theirs).to(torch.bfloat16).requires_grad_(False)
    fast = timesformer.prepare(model, "bfloat16")
    compiled = timesformer.prepare(model, "bfloat16", compile=True)
    cast = clip.to(torch.bfloat16)
    inference: dict[str, Callable[[], Any]] = {
        "Hugging Face": run(half, cast),
        "Hugging Face compiled": run(torch.compile(half), cast),
        "ours": run(fast, cast),
        "ours compiled": run(compiled, cast),
    }
    if has_float8(clip.device):
        inference["ours, float8"] = run(timesformer.prepare(model, "float8"), cast)
        inference["ours compiled, float8"] = run(timesformer.prepare(model, "float8", compile=True), cast)
    training: dict[str, Callable[[], Any]] = {
        "Hugging Face": stepper(theirs, clip, "bfloat16"),
        "Hugging Face compiled": stepper(torch.compile(copy.deepcopy(theirs)), clip, "bfloat16"),
        "ours": stepper(model, clip, "bfloat16"),
        "ours compiled": stepper(torch.compile(copy.deepcopy(model)), clip, "bfloat16"),
    }
    matrices = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    jobs = {f"{job}, inference": _inferring(inference[job]) for job in inference}
    jobs |= {f"{job}, training": training[job] for job in training}
    operations = {
        (who, what): _operations(jobs[f"{who}, {what}"])
        for who in ("Hugging Face", "ours")
        for what in ("inference", "training")
    }
    jobs["matrices"] = lambda: torch.mm(matrices[0], matrices[1])
    seconds = interleaved({job: _finished(run, device) for job, run in jobs.items()}, rounds, warm_up=3)

    rate = 2 * side**3 / seconds.pop("matrices")
    found: dict[str, Any] = {}
    for job, median in seconds.items():
        done = operations["ours" if "ours" in job else "Hugging Face", job.rpartition(", ")[2]]
        found[f"{job}, clips/s"] = round(batch / median, 2)
        found[f"{job}, share of the rate"] = round(done / median / rate, 3)
    for what in ("inference", "training"):
        best = {
            who: min(seconds[f"{who}, {what}"], seconds[f"{who} compiled, {what}"]) for who in ("Hugging Face", "ours")
        }
        found[f"speed over Hugging Face's best, {what}"] = round(best["Hugging Face"] / best["ours"], 3)
    clips = " x ".join(map(str, (batch, config.num_frames, *config.frame_size)))
    return {"clips": clips, "TFLOP/s": round(rate / 1e12, 2), **found}


def _inferring(job: Callable[[], Any]) -> Callable[[], Any]:
    return torch.inference_mode()(job)


def _operations(job: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products and attention; on a CPU without those of fused attention."""
    with FlopCounterMode(display=False) as counter:
        job()
    return int(counter.get_total_flops())


def _finished(job: Callable[[], Any], device: str) -> Callable[[], None]:
    """The job, until the device is done with it."""

    def run() -> None:
        job()
        if device != "cpu":
            torch.accelerator.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = {name: compare(name, args.device, args.rounds, BATCHES[name]) for name in args.models}
    device = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    write_result("gpu", {"device": device, "throughput": found})


if __name__ == "__main__":
    main()
