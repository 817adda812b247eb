"""Training that is killed over and over against the same training left alone: both must end alike, bit for bit.

Two processes under `torchrun --max-restarts` train a tiny model on generated videos, with a checkpoint every step. At
random moments one of them is killed (`kill -9`), or one of their loaders' processes, and `torchrun` starts them again;
or the whole job is, and it is started again here.

    python benchmarks/faults.py [--kills 24] [--seed 0] [--parallel ddp|fsdp]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from machine import children, write_result

import timesformer
from timesformer.video.synthetic import write_dataset

KINDS = ("process", "loader", "job")
SETTINGS = [
    "model={name: timesformer_tiny, num_frames: 4, image_size: 32, patch_size: 16, embed_dim: 48, depth: 2}",
    "data.short_side=[1,1.25]", "data.scale=null", "data.workers=1", "data.cache=null", "data.rand_augment=5",
    "data.mixup=0.8", "batch_size=8", "micro_batch_size=3", "steps=null", "checkpoint_minutes=0", "ema=0.9",
]  # fmt: skip


def start(data: Path, out: Path, parallel: str, epochs: int) -> subprocess.Popen[bytes]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1000"]
    launcher += ["--monitor-interval", "0.1"]
    train = ["timesformer", "train", "--data", str(data), "--out", str(out), "--resume"]
    settings = [*SETTINGS, f"parallel={parallel}", f"epochs={epochs}", f"validate_every={epochs}"]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *launcher, "-m", *train, "--set", *settings],
            stdout=log, stderr=log, start_new_session=True, env={"OMP_NUM_THREADS": "1", **os.environ},
        )  # fmt: skip


def kill(kind: str, job: int, moments: random.Random) -> bool:
    """Kill a process, a loader or all; False where there is none just now."""
    ranks = children(job)
    loaders = [loader for rank in ranks for loader in children(rank)]
    victims = {"process": ranks, "loader": loaders, "job": ranks and [job, *ranks, *loaders]}[kind]
    if not victims:
        return False
    for victim in victims if kind == "job" else [moments.choice(victims)]:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            if kind != "job":
                return False
    return True


def epochs_done(out: Path) -> int:
    file = out / "metrics.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def run(data: Path, out: Path, parallel: str, epochs: int, kills: int, moments: random.Random) -> Counter[str]:
    """Train to the end; what was killed on the way, after one or two more epochs each time or soon after a start."""
    job = start(data, out, parallel, epochs)
    done: Counter[str] = Counter()
    while done.total() < kills:
        kind = KINDS[done.total() % len(KINDS)]
        until = epochs_done(out) + moments.choice([0, 1, 1, 2])
        while epochs_done(out) < until:
            if job.poll() is not None:
                raise SystemExit(f"the job ended by itself after {done}: see {out.with_suffix('.log')}")
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        if not kill(kind, job.pid, moments):
            continue
        done[kind] += 1
        print(f"{done.total():3} of {kills}: {kind} killed in epoch {epochs_done(out) + 1} of {epochs}", flush=True)
        if kind == "job":
            job.wait()
            job = start(data, out, parallel, epochs)
    if job.wait() != 0:
        raise SystemExit(f"the job failed: see {out.with_suffix('.log')}")
    return done


def compare(kills: int, seed: int, parallel: str, epochs: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        data = write_dataset(folder / "videos", "appearance", train=48, val=16, test=0, size=40, num_frames=8)
        whole, parts = folder / "whole", folder / "parts"
        run(data, whole, parallel, epochs, 0, random.Random(seed))
        killed = run(data, parts, parallel, epochs, kills, random.Random(seed))
        first, second = (timesformer.load_model(out / "last").state_dict() for out in (whole, parts))
        same = all(torch.equal(second[name], value) for name, value in first.items())
        lines = [(out / "metrics.jsonl").read_text() for out in (whole, parts)]
        if not same or lines[0] != lines[1]:
            raise SystemExit(f"the runs differ (weights {'the same' if same else 'others'}): {json.dumps(killed)}")
    return {"parallel": parallel, "epochs": epochs, "killed": dict(killed), "equal": "weights and metrics, bit for bit"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parallel", choices=["ddp", "fsdp"], default="ddp")
    parser.add_argument("--epochs", type=int, default=80, help="more than two for each kill")
    args = parser.parse_args()
    result = compare(args.kills, args.seed, args.parallel, args.epochs)
    write_result(
        f"faults_{args.parallel}",
        result,
        f"python benchmarks/faults.py --kills {args.kills} --parallel {args.parallel}",
    )


if __name__ == "__main__":
    main()
