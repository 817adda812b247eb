"""Two processes of each writing command on one output: one is refused in a line, and the other's result is right.

Each try starts both at the same moment. TIMESFORMER_TRIES=20 tries as often; by default some commands are tried once.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import timesformer
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_dataset

TRIES = int(os.environ.get("TIMESFORMER_TRIES", "1"))
TINY = "model={name: timesformer_tiny, num_frames: 2, image_size: 32, patch_size: 16, embed_dim: 24, depth: 1}"
RECIPE = [TINY, "data={sampling: segments, short_side: [1, 1.25], flip: 0, workers: 0}", "steps=null", "batch_size=4"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos, and a model."""
    folder = tmp_path_factory.mktemp("base")
    write_dataset(folder / "videos", "appearance", train=8, val=0, test=8, size=32, num_frames=8)
    torch.manual_seed(0)
    model = timesformer.create_model(
        num_classes=8, num_frames=2, image_size=32, patch_size=16, embed_dim=24, depth=1, num_heads=2
    )
    model.classes = tuple((folder / "videos" / "classes.txt").read_text().split())
    model.preprocessing = Preprocessing(num_frames=2, stride=2, image_size=32).to_dict()
    model.save_pretrained(folder / "model")
    return folder


def work(arguments: list[str], start: Any, ends: Any, errors: str) -> None:
    """Run a command from a common start on; `ends` says that both are done, so that none begins after the other."""
    import torch

    from timesformer import cli

    torch.set_num_threads(1)
    sys.stderr = open(errors, "w")  # noqa: SIM115
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    cli.console.file = sys.stderr
    start.wait(60)
    code = cli.main(arguments)
    sys.stderr.flush()
    ends.put(code)
    os._exit(code)


def together(tmp_path: Path, arguments: list[str]) -> tuple[list[int], list[str]]:
    """Exit codes and messages of two processes of a command."""
    context = multiprocessing.get_context("fork")
    start, ends = context.Barrier(2), context.Queue()
    files = [tmp_path / f"errors{number}" for number in range(2)]
    processes = [context.Process(target=work, args=(arguments, start, ends, str(file))) for file in files]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode or 0 for process in processes], [file.read_text() for file in files]


def content(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """The digests of all files in a folder, or of a file."""
    files = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if not file.name.startswith(("events.", *but))
    }


def command(name: str, base: Path, out: Path) -> tuple[list[str], Path]:
    """The arguments of a command, and what it writes."""
    model, videos, video = str(base / "model"), str(base / "videos"), str(next(base.glob("videos/*/test_*.mp4")))
    train = ["train", "--data", videos, "--set", *RECIPE, "epochs=4", "--out", str(out)]
    commands = {
        "pack": (["pack", videos, "--workers", "1", "--shard-megabytes", "0.01", "--out", str(out)], out),
        "train": (train, out),
        "resume": ([*train, "--resume"], out),
        "predict": (["predict", model, videos, "--workers", "1", "--out", f"{out}.parquet"], Path(f"{out}.parquet")),
        "embed": (["embed", model, videos, "--out", f"{out}.safetensors"], Path(f"{out}.safetensors")),
        "embed-table": (["embed", model, videos, "--out", f"{out}.parquet"], Path(f"{out}.parquet")),
        "evaluate": (["evaluate", model, "--data", videos, "--out", str(out)], out),
        "timeline": (["predict", model, video, "--timeline", "--out", str(out)], out),
        "reproduce": (["reproduce", "figure2", "figure3", "--out", str(out)], out),
        "convert": (["convert", model, str(out), "--to", "huggingface"], out),
        "export": (["export", model, "--to", "torch", "--out", f"{out}.pt2"], Path(f"{out}.pt2")),
        "explain": (["explain", model, video, "--out", f"{out}.png"], Path(f"{out}.png")),
        "schemes": (["schemes", "--out", f"{out}.png"], Path(f"{out}.png")),
        "json": (["check", videos, "--workers", "1", "--json", f"{out}.json"], Path(f"{out}.json")),
    }
    return commands[name]


LOCKED = ["pack", "train", "resume", "predict", "embed", "embed-table", "evaluate", "timeline", "reproduce"]
VARIES = ("metrics.jsonl", "checkpoint", "report.html", "results.md", "figure2.md", "figure3.md", "recipe.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCKED)
def test_of_two_writers_one_is_refused(name: str, base: Path, tmp_path: Path) -> None:
    arguments, written = command(name, base, tmp_path / "alone" / "out")
    codes, _ = together_alone(tmp_path, arguments)
    assert codes == 0
    expected = content(written, but=VARIES)
    counts = {"refused": 0, "one after the other": 0}
    for number in range(TRIES):
        arguments, written = command(name, base, tmp_path / f"{number}" / "out")
        if name == "resume":
            shutil.copytree(tmp_path / "alone" / "out", written)
            for file in ("checkpoint.pt", "last/model.safetensors"):  # go on from the one before the last
                (written / file).unlink()
        codes, errors = together(tmp_path, arguments)
        assert codes[0] == 0 or codes[1] == 0, errors
        if codes != [0, 0]:
            counts["refused"] += 1
            lost = errors[0 if codes[0] else 1].strip().splitlines()
            assert "is being written by process" in lost[-1] or "holds a run already" in lost[-1], lost
            assert sum(line.startswith("error") for line in lost) == 1
            assert "Traceback" not in "".join(errors)
        else:
            counts["one after the other"] += 1
        assert content(written, but=VARIES) == expected
        shutil.rmtree(tmp_path / f"{number}")
    print(f"{name}: {TRIES} tries, {counts}")


def together_alone(tmp_path: Path, arguments: list[str]) -> tuple[int, str]:
    """Exit code and messages of one process of a command."""
    context = multiprocessing.get_context("fork")
    errors = tmp_path / "errors"
    process = context.Process(target=work, args=(arguments, context.Barrier(1), context.Queue(), str(errors)))
    process.start()
    process.join(120)
    return process.exitcode or 0, errors.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convert", "export", "explain", "schemes", "json"])
def test_of_two_writers_of_short_outputs_the_last_one_counts_whole(name: str, base: Path, tmp_path: Path) -> None:
    arguments, written = command(name, base, tmp_path / "alone" / "out")
    code, errors = together_alone(tmp_path, arguments)
    assert code == 0, errors
    size = sum(file.stat().st_size for file in ([written] if written.is_file() else written.rglob("*")))
    for number in range(TRIES):
        arguments, written = command(name, base, tmp_path / f"{number}" / "out")
        codes, messages = together(tmp_path, arguments)
        assert codes == [0, 0] or (name == "convert" and sorted(codes) == [0, 1]), messages
        files = [written] if written.is_file() else sorted(written.rglob("*"))
        assert sum(file.stat().st_size for file in files) == size
        assert not [file for file in written.parent.rglob(".*")]
        shutil.rmtree(tmp_path / f"{number}")
    print(f"{name}: {TRIES} tries, the file is whole in all")
