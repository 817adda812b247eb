"""Damaged files by the thousand: videos through `check` and `predict`; models, checkpoints, recipes and lists.

Files are mutated at random, from a seed: bytes set, cut off, taken out, doubled, zeroed, made extreme, mixed with those
of another file; in JSON and YAML also values. Videos go through the commands, which must end by themselves with a row
for each; whatever else is read must load, or be refused by an error for users that names the file.

    python benchmarks/fuzz.py videos DATA [--count 10000] [--seed 0]
    python benchmarks/fuzz.py files [--count 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from machine import children, memory, write_result

import timesformer
from timesformer.evaluation.features import Features
from timesformer.model.image_init import init_from_vit
from timesformer.model.tensors import WeightsError
from timesformer.model.weights import convert
from timesformer.training.checkpoint import Progress, latest_readable, load_checkpoint, save_checkpoint
from timesformer.training.errors import TrainingError
from timesformer.training.recipe import RecipeError, load_recipe
from timesformer.video.check import check_videos
from timesformer.video.datasets import read_videos
from timesformer.video.decode import is_video_path
from timesformer.video.items import DataError
from timesformer.video.preprocessing import Preprocessing
from timesformer.workers import QUICKEST, JobError, WorkerLost, Workers

LARGEST = 700_000  # bytes of a video that is mutated: larger ones take long to decode
BATCH = 500  # videos of a folder
TIME_LIMIT = 10  # seconds for a video
MEMORY = 6 * 2**30  # bytes of address space of a process that reads damaged files

EXTREMES = [
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x01",
    b"\xff\xff\xff\x7f",
]
ODD = [None, True, -1, 0, 3, 2**31, 10**12, 1e308, float("nan"), "", "x", "../x", [], [1, 2], {}, {"x": 1}, "\ud800"]


def mutate(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Bytes with one to three mutations."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 3])):
        if not changed:
            break
        near = chance.choice([len(changed), min(len(changed), 2048)])  # often in the header
        start = chance.randrange(near)
        stop = start + chance.choice([1, 4, 16, 256, 4096])
        kind = chance.choice(["set", "extreme", "cut", "remove", "repeat", "zero", "mix"])
        if kind == "set":
            for _ in range(chance.choice([1, 4, 32])):
                changed[chance.randrange(near)] = chance.randrange(256)
        elif kind == "extreme":
            changed[start : start + 4] = chance.choice(EXTREMES)
        elif kind == "cut":
            del changed[start:]
        elif kind == "remove":
            del changed[start:stop]
        elif kind == "repeat":
            changed[start:start] = changed[start:stop]
        elif kind == "zero":
            changed[start:stop] = bytes(len(changed[start:stop]))
        else:
            place = chance.randrange(max(1, len(other)))
            changed[start:stop] = other[place : place + stop - start]
    return bytes(changed)


def mutate_value(value: Any, chance: random.Random) -> Any:
    """A tree of dictionaries and lists with one leaf or branch replaced, removed or added."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        changed = {name: each for name, each in value.items() if name != key or chance.random() > 0.1}
        if key in changed:
            changed[key] = mutate_value(value[key], chance)
        return changed if chance.random() > 0.05 else {**changed, "x": chance.choice(ODD)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], mutate_value(value[place], chance), *value[place + 1 :]]
    if isinstance(value, int | float) and chance.random() < 0.5:
        return value * chance.choice([-1, 2, 0.5, 1000, 10**6])
    return chance.choice(ODD)


# Videos


def fuzz_videos(data: Path, count: int, seed: int) -> dict[str, Any]:
    """`check` over mutated videos, and `predict` over every fifth folder of them."""
    files = [path for path in sorted(data.rglob("*")) if path.is_file() and is_video_path(path)]
    videos = [path for path in files if 0 < path.stat().st_size <= LARGEST]
    contents = {path: path.read_bytes() for path in videos}
    outcomes: Counter[str] = Counter()
    peak, predicted = 0, 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        tiny = timesformer.create_model("timesformer_tiny", num_classes=2, num_frames=4, image_size=32, patch_size=16)
        tiny.preprocessing = Preprocessing(4, 2, image_size=32).to_dict()
        tiny.save_pretrained(Path(name) / "model")
        for start in range(0, count, BATCH):
            folder = Path(name) / "videos"
            folder.mkdir()
            numbers = range(start, min(start + BATCH, count))
            for number in numbers:
                chance = random.Random(f"{seed} {number}")
                source, other = chance.choice(videos), chance.choice(videos)
                file = folder / f"{number:06}{source.suffix}"
                file.write_bytes(mutate(contents[source], contents[other], chance))
            report = Path(name) / "report.json"
            peak = max(peak, run(["check", str(folder), "--json", str(report)], (0, 1)))
            told = json.loads(report.read_text())
            assert told["videos"] == len(numbers), f"{told['videos']} videos of {len(numbers)} were checked"
            bad = [
                (kind, problem["path"], problem["reason"])
                for kind in ("unreadable", "truncated", "audio_only")
                for problem in told["problems"][kind]
            ]
            outcomes["decode"] += len(numbers) - len(bad)
            for kind, path, reason in bad:
                lost = reason.startswith(("kills", "takes more"))
                outcomes[reason if lost else kind] += 1
                if lost:
                    shutil.copy(path, tempfile.gettempdir())
                    print("lost:", path, reason, flush=True)
            if start // BATCH % 5 == 0:
                out = Path(name) / "found.parquet"
                peak = max(peak, run(["predict", f"{name}/model", str(folder), "--out", str(out)], (0, 1)))
                predicted += rows(out)
                shutil.rmtree(out) if out.is_dir() else out.unlink()
            print(f"{numbers.stop} videos: {dict(outcomes)}, {peak / 2**20:.0f} MiB at most", flush=True)
            shutil.rmtree(folder)
    return {
        "videos": count,
        "sources": len(videos),
        "outcomes of check": dict(outcomes.most_common()),
        "predicted": predicted,
        "memory of the largest process, mib": round(peak / 2**20),
        "crashes of a command": 0,
    }


def run(arguments: list[str], allowed: tuple[int, ...]) -> int:
    """Run a command to its end: the most memory that one of its processes held."""
    command = [sys.executable, "-m", "timesformer", *arguments, "--time-limit", str(TIME_LIMIT)]
    started, held = time.monotonic(), 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            assert time.monotonic() - started < TIME_LIMIT * BATCH, "the command does not end"
            for pid in (process.pid, *children(process.pid)):
                with suppress(OSError, StopIteration):  # it has ended meanwhile
                    held = max(held, memory("VmHWM", pid))
            time.sleep(0.1)
        log.seek(0)
        if process.returncode not in allowed:
            raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}: {log.read()[-3000:].decode()}")
    return held


def rows(table: Path) -> int:
    from pyarrow import parquet

    return int(parquet.read_table(table).num_rows)


# Models, checkpoints, configurations


def load_and_run(path: Path) -> None:
    model = timesformer.load_model(path)
    config = model.config
    if config.num_frames * config.frame_size[0] * config.frame_size[1] <= 2**20:
        with torch.inference_mode():
            model(torch.zeros(1, config.in_channels, config.num_frames, *config.frame_size))


def start_from(path: Path) -> None:
    init_from_vit(timesformer.create_model("timesformer_tiny", **SIZES), path)


def resume(path: Path) -> None:
    file = latest_readable(path)
    assert file is not None
    load_checkpoint(file)


def read_data(path: Path) -> None:
    read_videos(path, "train")
    check_videos(path, workers=1)


# What is read, by what, and which file of it is damaged.
READERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "own model, configuration": ("own", load_and_run, "config.json"),
    "own model, weights": ("own", load_and_run, "model.safetensors"),
    "Hugging Face's model, configuration": ("hf", load_and_run, "config.json"),
    "Hugging Face's model, weights": ("hf", load_and_run, "model.safetensors"),
    "released checkpoint": ("released/model.pyth", load_and_run, ""),
    "image model": ("image/model.pth", start_from, ""),
    "training checkpoint": ("run", resume, "checkpoint.pt"),
    "features": ("features/file.safetensors", Features.load, ""),
    "recipe": ("recipes/recipe.yaml", lambda path: load_recipe(str(path)), ""),
    "list of videos": ("data", read_data, "train.csv"),
    "names of classes": ("data", read_data, "classes.txt"),
}
EXPECTED = (WeightsError, TrainingError, RecipeError, DataError, ValueError)
SIZES: dict[str, Any] = {
    "num_frames": 4,
    "image_size": 32,
    "patch_size": 16,
    "embed_dim": 24,
    "num_heads": 2,
    "depth": 2,
}


def make_files(folder: Path) -> None:
    torch.manual_seed(0)
    model = timesformer.create_model("timesformer_tiny", num_classes=3, **SIZES)
    model.classes = ("a", "b", "c")
    model.preprocessing = Preprocessing(4, 2, image_size=32).to_dict()
    model.save_pretrained(folder / "own")
    convert(folder / "own", folder / "hf", "huggingface")
    convert(folder / "own", folder / "released" / "model.pyth", "released")
    for name in ("image", "data", "recipes"):
        (folder / name).mkdir()
    image = timesformer.create_model("timesformer_tiny", attention="space_only", **SIZES).state_dict()
    vit = {name.replace("space_", ""): value for name, value in image.items() if name != "time_embed"}
    torch.save(vit, folder / "image" / "model.pth")
    start_from(folder / "image" / "model.pth")
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, 4, 32, 32)).sum().backward()
    optimizer.step()
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(folder / "run", Progress(), states)
    features = np.zeros((5, 8), np.float32), tuple("abcde"), np.zeros(5, np.int64), ("one",)
    Features(*features).save(folder / "features" / "file.safetensors")
    recipe = {
        "base": "scratch",
        "steps": 10,
        "optimizer": {"name": "adamw", "lr": 0.1},
        "data": {"flip": 0.0, "scale": None},
    }
    (folder / "recipes" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "data" / "train.csv").write_text("".join(f"video_{number}.mp4 {number % 3}\n" for number in range(9)))
    (folder / "data" / "classes.txt").write_text("walk\nrun\njump\n")


def make_reader(originals: Path, scratch: Path, seed: int) -> Callable[[int], str]:
    """What a process does: damage a file, read it, say what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    logging.disable()
    names = list(READERS)
    everything = [path.read_bytes() for path in sorted(originals.rglob("*")) if path.is_file()]

    def do(number: int) -> str:
        chance = random.Random(f"{seed} {number}")
        kind = names[number % len(names)]
        place, read, damaged = READERS[kind]
        top = scratch / str(number)
        shutil.copytree(originals / Path(place).parts[0], top / Path(place).parts[0])
        file = top / place / damaged
        content = file.read_bytes()
        values = {".json": (json.loads, json.dumps), ".yaml": (yaml.safe_load, yaml.safe_dump)}.get(file.suffix)
        if values and chance.random() < 0.7:
            tree = values[0](content)
            for _ in range(chance.choice([1, 1, 2, 3])):
                tree = mutate_value(tree, chance)
            file.write_bytes(values[1](tree).encode("utf-8", "surrogatepass"))
        else:
            file.write_bytes(mutate(content, chance.choice(everything), chance))
        try:
            read(top / place)
        except EXPECTED as error:
            if str(top) not in str(error):
                raise RuntimeError(f"{kind}: an error that does not name the file: {error!r}") from error
            return f"{kind}: refused"
        shutil.rmtree(top)
        return f"{kind}: read"

    return do


def fuzz_files(count: int, seed: int) -> dict[str, Any]:
    """Every kind of file in turn."""
    outcomes: Counter[str] = Counter()
    findings = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        originals = Path(name) / "originals"
        originals.mkdir()
        make_files(originals)
        arguments = (originals, Path(name) / "damaged", seed)
        with Workers(make_reader, arguments, count=os.cpu_count() or 1, method=QUICKEST) as pool:
            for number, result in pool.results(range(count), TIME_LIMIT):
                if isinstance(result, JobError | WorkerLost):
                    finding = f"{number}: {list(READERS)[number % len(READERS)]}: {result.__cause__!r}: {result}"
                    findings.append(finding)
                    print(finding, flush=True)
                else:
                    outcomes[result] += 1
    if findings:
        raise SystemExit(f"{len(findings)} findings")
    return {"files": count, "outcomes": dict(sorted(outcomes.items()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["videos", "files"])
    parser.add_argument("data", nargs="?", type=Path, help="folder of videos")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if (args.what == "videos") != (args.data is not None):
        parser.error("a folder is for videos, which need one")
    found = fuzz_videos(args.data, args.count, args.seed) if args.data else fuzz_files(args.count, args.seed)
    command = f"python benchmarks/fuzz.py {args.what}{' DATA' if args.data else ''} --count {args.count}"
    write_result(f"fuzz_{args.what}", {"seed": args.seed, **found}, f"{command} --seed {args.seed}")


if __name__ == "__main__":
    main()
