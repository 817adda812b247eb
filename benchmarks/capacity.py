"""How many machines, hours and how much money three large jobs take, and what limits them.

Figures that are not given are taken from `benchmarks/results` where they were measured, and else assumed; the answer
says which is which. Decoding, model and network work at the same time, so that the slowest decides; where the model
runs on the CPU (`--machine cpu`), decoding takes its cores away, and the two add up.

    python benchmarks/capacity.py [--machine gpu|cpu] [--decode 28 --forward 300 --training 100 ...] [--hours 168]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CLIP = 8 * 32 / 30  # seconds of 8 frames at a stride of 32, 30 frames a second
GRADIENT = 121.6 * 4  # MB of the base model's, in float32

WHAT = {
    "decode": "clips a second and core",
    "forward": "clips a second and device, inference",
    "training": "clips a second and device, training",
    "network": "MB/s of a machine",
    "cores": "of a machine",
    "devices": "of a machine",
    "price": "of a machine and hour",
    "megabits": "a second of video",
    "batch": "clips a step of training, of all machines",
}
# Of a machine with eight GPUs: 300 clips of 0.392 TFLOP (0.196 T multiply-accumulates) are 118 TFLOP/s sustained, and
# a training step costs three times a forward pass. Videos have a short side of 256 px.
ASSUMED = {
    "gpu": {"decode": 25, "forward": 300, "training": 100, "network": 1250, "cores": 96, "devices": 8, "price": 30},
    "cpu": {"decode": 25, "forward": 2, "training": 0.7, "network": 125, "cores": 2, "devices": 1, "price": 0.1},
}
ALSO_ASSUMED = {"megabits": 1, "batch": 16}


@dataclass(frozen=True)
class Job:
    """Clips to go through the model.

    Attributes:
        name: what is done.
        clips: how many.
        megabytes: that must be read for a clip.
        training: or else inference.
    """

    name: str
    clips: int
    megabytes: float
    training: bool = False


@dataclass(frozen=True)
class Plan:
    """What a job takes.

    Attributes:
        job: what is done.
        machines: the fewest that end in time; of a training that can't, those that end soonest.
        hours: from start to end.
        cost: of all machines, in the unit of `price`.
        busy: the share of that time in which decoding, model and network are at work.
    """

    job: Job
    machines: int
    hours: float
    cost: float
    busy: dict[str, float]

    @property
    def limit(self) -> str:
        """Which of the three is busiest."""
        return max(self.busy, key=lambda part: self.busy[part])


def jobs(megabits: float, videos: int) -> list[Job]:
    second = megabits / 8
    tiles = int(7 * 60 / CLIP)
    return [
        Job("Kinetics-400: training, 240,000 videos of 10 s, 15 epochs", 240_000 * 15, 10 * second, training=True),
        Job(f"HowTo100M: inference, 120,000 videos of 7 min, {tiles} clips each", 120_000 * tiles, CLIP * second),
        Job(f"corpus: inference, {videos:,} videos of 30 s, one clip each", videos, 30 * second),
    ]


def hours(job: Job, figures: Mapping[str, float], machines: int) -> dict[str, float]:
    """Hours that each part of the work takes, where all machines share the clips."""
    clips = job.clips / machines / 3600
    # Each step a machine sends its gradient and receives the mean, whatever its share of the batch.
    gradients = 2 * GRADIENT * machines / figures["batch"] if job.training and machines > 1 else 0
    return {
        "decoding": clips / (figures["decode"] * figures["cores"]),
        "model": clips / (figures["training" if job.training else "forward"] * figures["devices"]),
        "network": clips * (job.megabytes + gradients) / figures["network"],
    }


def plan(job: Job, figures: Mapping[str, float], deadline: float, *, shared: bool) -> Plan:
    """What a job takes to end within `deadline` hours; `shared`: decoding and model have the same cores."""

    def total(machines: int) -> float:
        parts = hours(job, figures, machines)
        return max(parts["decoding"] + parts["model"], parts["network"]) if shared else max(parts.values())

    machines = max(1, math.ceil(total(1) / deadline))
    if job.training:  # more machines exchange more gradients; each takes a clip of a step at least
        counts = range(1, int(figures["batch"]) + 1)
        machines = next((count for count in counts if total(count) <= deadline), min(counts, key=total))
    took = total(machines)
    busy = {part: value / took for part, value in hours(job, figures, machines).items()}
    return Plan(job, machines, took, machines * took * figures["price"], busy)


def measured() -> dict[str, tuple[float, str]]:
    """Figures by name from the results that there are, and the file of each."""
    found: dict[str, tuple[float, str]] = {}
    if decode := _read("decode.json"):
        milliseconds = decode["8 frames at stride 32 of 10 s, 340x256"]["milliseconds"]["ours"]
        found["decode"] = 1000 / milliseconds, "decode.json"  # frames so small are decoded by one thread
    if inference := _read("inference_1x8x224.json"):
        found["forward"] = 1000 / inference["milliseconds"]["ours, bfloat16"], "inference_1x8x224.json"
        found["cores"] = inference["machine"]["cores"], "inference_1x8x224.json"
    training = _read("training.json")
    if training and training["batch"].endswith("x 8 x 224 x 224"):
        batch = int(training["batch"].split()[0])
        found["training"] = 1000 * batch / training["milliseconds"]["plain, bfloat16"], "training.json"
    return found


def _read(name: str) -> dict[str, Any] | None:
    return json.loads((RESULTS / name).read_text()) if (RESULTS / name).exists() else None


def take(args: argparse.Namespace) -> tuple[dict[str, float], dict[str, str]]:
    """The figures, and where each is from."""
    known = {name: figure for name, figure in measured().items() if args.machine == "cpu" or name == "decode"}
    figures, sources = {}, {}
    for name, assumed in {**ASSUMED[args.machine], **ALSO_ASSUMED}.items():
        given = getattr(args, name)
        value, source = known.get(name, (assumed, "assumed"))
        figures[name], sources[name] = (value, source) if given is None else (given, "given")
    return figures, sources


def report(plans: list[Plan], figures: Mapping[str, float], sources: Mapping[str, str]) -> list[str]:
    lines = [f"{name:<10}{figures[name]:>8.4g}  {WHAT[name]} ({sources[name]})" for name in figures]
    for each in plans:
        busy = ", ".join(f"{part} {share:.0%}" for part, share in each.busy.items())
        machines = f"{each.machines:,} machine{'s' if each.machines > 1 else ''}"
        lines += ["", each.job.name, f"  {machines}, {each.hours:.1f} hours, cost {each.cost:,.0f}", f"  busy: {busy}"]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", choices=["gpu", "cpu"], default="gpu", help="what is assumed of it")
    for name, what in WHAT.items():
        parser.add_argument(f"--{name}", type=float, help=what)
    parser.add_argument("--videos", type=int, default=1_000_000_000, help="of the corpus")
    parser.add_argument("--hours", type=float, default=168, help="in which a job should end (default: a week)")
    args = parser.parse_args()
    figures, sources = take(args)
    for name, value in {**figures, "hours": args.hours, "videos": args.videos}.items():
        if value <= 0 or (name == "batch" and value < 1):
            parser.error(f"--{name} {value:g}: must be {'at least 1' if name == 'batch' else 'above 0'}")
    shared = args.machine == "cpu"
    plans = [plan(job, figures, args.hours, shared=shared) for job in jobs(figures["megabits"], args.videos)]
    print("\n".join(report(plans, figures, sources)))


if __name__ == "__main__":
    main()
