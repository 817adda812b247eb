"""Bulk inference that is killed again and again, with and without Ray: is every input in the output exactly once?

Thousands of tiny videos, generated and copied; one in twenty is broken (empty, cut off, text, noise), and three never
end. Each engine runs once to its end, and once with its processes killed (SIGKILL) whenever a few parts more are
written. Then all outputs are compared: the same rows, in the same order, with the same labels and scores.

    python benchmarks/bulk.py [--videos 2000] [--kills 3] [--engines local ray]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch
from machine import write_result

import timesformer
from timesformer.evaluation.bulk import find_inputs
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import class_names, render, write_video

DISTINCT = 64  # videos that the others are copies of
HANGING = 3


def make_videos(folder: Path, count: int) -> int:
    """Write `count` videos; how many of them can't be read."""
    rng = np.random.default_rng(0)
    originals = [folder / "videos" / f"{number:05}.mp4" for number in range(DISTINCT)]
    (folder / "videos").mkdir(parents=True)
    for number, path in enumerate(originals):
        write_video(path, render("motion", number % len(class_names("motion")), rng, size=32, num_frames=12), fps=8)
    content = [path.read_bytes() for path in originals]
    broken = 0
    for number in range(DISTINCT, count - HANGING):
        video = content[number % DISTINCT]
        if number % 20 == 0:
            video = (b"", video[: len(video) // 2], b"no video\n" * 20, rng.bytes(1000))[number // 20 % 4]
            broken += 1
        (folder / "videos" / f"{number:05}.mp4").write_bytes(video)
    for number in range(HANGING):
        (folder / "videos" / f"hanging_{number}").mkdir()
        os.mkfifo(folder / "videos" / f"hanging_{number}" / "0.png")  # a pipe that nobody writes to
    return broken + HANGING


def make_model(folder: Path) -> None:
    torch.manual_seed(0)
    model = timesformer.create_model(
        num_classes=8, num_frames=4, image_size=32, patch_size=16, embed_dim=24, depth=2, num_heads=3
    )
    model.preprocessing = Preprocessing(num_frames=4, stride=2, image_size=32).to_dict()
    model.save_pretrained(folder)


def start(folder: Path, engine: str, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "timesformer", "predict", str(folder / "model"), str(folder / "videos")]
    command += ["--out", str(out), "--engine", engine, "--time-limit", "20", "--workers", "2"]
    return subprocess.Popen(command, start_new_session=True, stderr=(folder / f"{out.name}.log").open("ab"))


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("part-*.parquet"))


def run_to_the_end(folder: Path, engine: str, out: Path) -> None:
    code = start(folder, engine, out).wait()
    if code:
        raise SystemExit(f"{engine} ended with {code}: {(folder / f'{out.name}.log').read_text()[-3000:]}")


def kill_often(folder: Path, engine: str, out: Path, kills: int, every: int) -> list[int]:
    """Kill a job whenever it has written `every` parts more; how many there were each time."""
    seen = []
    for _ in range(kills):
        before, process = len(parts(out)), start(folder, engine, out)
        while len(parts(out)) < before + every and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is not None:
            break  # it was done, or failed: the run to the end tells
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen.append(len(parts(out)))
    return seen


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for file in parts(out) for row in parquet.read_table(file).to_pylist()]


def counts(found: list[dict[str, Any]], inputs: list[str]) -> dict[str, int]:
    seen, wanted = Counter(row["path"] for row in found), Counter(inputs)
    return {
        "rows": len(found),
        "missing": sum((wanted - seen).values()),
        "surplus": sum((seen - wanted).values()),
        "errors": sum(row["error"] is not None for row in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=["local", "ray"], default=["local", "ray"])
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bulk-"))
    try:
        bad = make_videos(folder, args.videos)
        make_model(folder / "model")
        inputs = [str(path) for path in find_inputs([folder / "videos"])]
        total = -(-len(inputs) // 256)
        result: dict[str, Any] = {"videos": len(inputs), "unreadable": bad, "runs": {}}
        outputs = []
        for engine in args.engines:
            whole, killed = folder / f"{engine}.parquet", folder / f"{engine}-killed.parquet"
            run_to_the_end(folder, engine, whole)
            every = max(1, total // (args.kills + 1))
            seen = kill_often(folder, engine, killed, args.kills, every)
            run_to_the_end(folder, engine, killed)
            outputs += [rows(whole), rows(killed)]
            result["runs"][engine] = counts(outputs[-2], inputs)
            result["runs"][f"{engine}, killed"] = {**counts(outputs[-1], inputs), "parts at each kill": seen}
        result["identical rows of all runs"] = all(output == outputs[0] for output in outputs)
        write_result("bulk", result)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
