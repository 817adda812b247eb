"""The scripts in examples/ do what they say, on generated videos. For those that use exported files see test_export."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import timesformer
from timesformer.video.decode import VideoReader
from timesformer.video.synthetic import write_dataset

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "videos"
    return write_dataset(folder, "appearance", train=24, val=0, test=0, size=40, num_frames=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "model"
    torch.manual_seed(0)
    size = {"depth": 1, "embed_dim": 24, "num_heads": 3, "image_size": 32, "patch_size": 16, "num_frames": 4}
    made = timesformer.create_model("timesformer_tiny", num_classes=3, **size)
    made.preprocessing = {"num_frames": 4, "stride": 2.0, "sampling": "clip", "image_size": 32}
    made.save_pretrained(folder)
    return folder


def run(script: str, *arguments: str | Path, stdin: Path | None = None) -> list[str]:
    file = EXAMPLES / script
    assert len(file.read_text().splitlines()) <= 60
    with (stdin or file).open("rb") as given:
        done = subprocess.run([sys.executable, file, *arguments], stdin=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_finetune(videos: Path, model: Path, tmp_path: Path) -> None:
    settings = ["epochs=2", "batch_size=8", "data.workers=1", "data.sampling=clip", "data.stride=2"]
    lines = run("finetune.py", videos, tmp_path / "run", "--init", model, "--set", *settings)
    assert [line.split()[:2] for line in lines[:2]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert "of 8 videos that it did not learn from" in lines[2]
    assert len(lines) == 6
    assert (tmp_path / "run" / "evaluation" / "metrics.json").exists()


def test_label_stream(videos: Path, model: Path) -> None:
    video = next(videos.rglob("*.mp4"))
    lines = [line.split() for line in run("label_stream.py", model, "-", "--fps", "16", stdin=video)]
    with VideoReader(video) as frames:
        expected = list(timesformer.VideoClassifier.from_pretrained(model).stream(iter(frames), top=1))
    assert [float(line[0]) for line in lines] == [round(number / 16, 1) for number, _ in expected] != []
    assert [line[-1] for line in lines] == [label for _, ((label, _),) in expected]


def test_retrieval(videos: Path, model: Path, tmp_path: Path) -> None:
    query, index = next(videos.rglob("*.mp4")), tmp_path / "index.safetensors"
    lines = run("retrieval.py", model, videos, query, "--index", index, "--top", "3")
    assert len(lines) == 3
    similarity, _, path = lines[0].strip().partition("  ")
    assert float(similarity) == pytest.approx(1, abs=1e-3)
    assert Path(path).name == query.name
    assert index.exists()
