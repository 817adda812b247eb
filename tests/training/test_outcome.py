"""What a run has reached: the model that is used, `best`, and the last one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_cli import QUICK
from timesformer.cli import main
from timesformer.evaluation.evaluate import Evaluation
from timesformer.training import loop
from timesformer.video.datasets import VideoList
from timesformer.video.synthetic import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outcome") / "videos"
    return write_dataset(folder, "appearance", train=16, val=16, test=0, size=32, num_frames=8)


def falling(monkeypatch: pytest.MonkeyPatch) -> list[Evaluation]:
    """Let the first validation be right for all videos, and later ones for a quarter of them."""
    made: list[Evaluation] = []

    def validate(model: Any, videos: VideoList, *_: object) -> Evaluation:
        scores = np.zeros((len(videos.items), len(videos.classes)), np.float32)
        for number, item in enumerate(videos.items):
            right = not made or number < len(videos.items) // 4
            scores[number, item.labels[0] if right else (item.labels[0] + 1) % len(videos.classes)] = 1
        made.append(Evaluation(videos.classes, videos.items, scores, False, ()))
        return made[-1]

    monkeypatch.setattr(loop, "_validate", validate)
    return made


def test_a_run_reports_the_model_that_is_used(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    falling(monkeypatch)
    out = tmp_path / "run"
    assert main(["train", "--data", str(data), "--out", str(out), "--set", *QUICK, "epochs=3", "validate_every=1"]) == 0
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(r"best: 100\.0\s?% on the validation videos, epoch 1 of 3", error), error
    assert re.search(r"last: 25\.0\s?%", error), error
    page = (out / "report.html").read_text()
    assert "<b>100.00%</b>" in page
    assert "<b>25.00%</b>" not in page
    assert "epoch 1 of 3" in page
    assert "The most confident mistakes" not in page, "the best model makes none"


def test_the_best_model_of_a_resumed_run_is_tested_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its evaluation was made by a process that is gone: not that of another epoch is shown in its place."""
    made = falling(monkeypatch)
    out = tmp_path / "run"
    settings = [*QUICK, "optimizer.schedule=steps", "optimizer.warmup=0", "optimizer.milestones=[]"]
    assert main(["train", "--data", str(data), "--out", str(out), "--set", *settings, "epochs=1"]) == 0
    again = []

    def evaluate(*arguments: Any, **options: Any) -> Evaluation:
        again.append(arguments)
        return made[0]

    monkeypatch.setattr("timesformer.training.outcome.evaluate", evaluate)
    assert main(["train", "--data", str(data), "--out", str(out), "--resume", "--set", "epochs=2"]) == 0
    assert len(made) == 2
    assert len(again) == 1
    page = (out / "report.html").read_text()
    assert "<b>100.00%</b>" in page
    assert "epoch 1 of 2" in page
