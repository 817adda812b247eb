"""Hints while a run learns nothing: what is seen, and what to try."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_cli import QUICK
from timesformer.cli import main
from timesformer.training.hints import Hints
from timesformer.training.loop import Report
from timesformer.training.order import moves
from timesformer.video.synthetic import write_video


def report(epoch: int, loss: float, top1: float, epochs: int = 90, steps: int = 10) -> Report:
    return Report(epoch, epochs, steps, steps, loss, top1, 1.0, 0.0)


def test_a_loss_that_stays_at_chance_is_said_once() -> None:
    hints = Hints(classes=12)
    lines = [hints.after(report(epoch, math.log(12) * 1.001, 1 / 12)) for epoch in range(20)]
    (line,) = filter(None, lines)
    assert "2.48" in line
    assert "chance" in line
    assert "optimizer.lr" in line
    assert lines.index(line) <= 9, "early: within a tenth of the run"


@pytest.mark.parametrize(("loss", "top1"), [(0.8 * math.log(12), 1 / 12), (math.log(12), 0.5)])
def test_a_run_that_learns_gets_no_hint(loss: float, top1: float) -> None:
    hints = Hints(classes=12)
    assert not any(hints.after(report(epoch, loss, top1)) for epoch in range(90))


def test_a_short_run_is_left_alone_until_there_is_something_to_see() -> None:
    assert not any(Hints(classes=12).after(report(epoch, math.log(12), 1 / 12, steps=1)) for epoch in range(4))


def test_clips_in_which_nothing_moves() -> None:
    still = torch.rand(2, 3, 1, 8, 8).expand(2, 3, 4, 8, 8)
    moving = torch.rand(2, 3, 4, 8, 8)
    assert not moves(still)
    assert moves(moving)
    assert moves(torch.cat([still, moving]))
    assert moves(torch.rand(2, 3, 1, 8, 8)), "a model of one frame sees no motion by its own choice"
    hints = Hints(classes=12)
    assert hints.after(report(0, 1.0, 0.5), moving=False) is not None
    assert hints.after(report(1, 1.0, 0.5), moving=False) is None, "once"


@pytest.mark.parametrize("still", [True, False])
def test_a_run_on_videos_without_motion_says_so(
    still: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for number in range(2):
            frames = rng.integers(0, 256, (1 if still else 8, 32, 32, 3), dtype=np.uint8)
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            write_video(
                tmp_path / "data" / name / f"{number}.mp4", np.broadcast_to(frames, (8, 32, 32, 3)).copy(), fps=8
            )
    settings = [*QUICK, "epochs=1", "batch_size=4", "data.validation=0", "data.cache=null"]
    assert main(["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--set", *settings]) == 0
    assert ("nothing moves" in " ".join(capsys.readouterr().err.split())) == still
