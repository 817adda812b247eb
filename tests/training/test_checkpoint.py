"""The average of weights against a loop of its definition, and what a checkpoint holds."""

from __future__ import annotations

import dataclasses
import errno
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.baselines.tiny import tiny
from timesformer.model.variants import create_model
from timesformer.training import checkpoint
from timesformer.training.checkpoint import (
    Progress,
    WeightAverage,
    checkpoints,
    latest_readable,
    load_checkpoint,
    save_checkpoint,
)
from timesformer.training.errors import TrainingError


class Scalar(nn.Module):
    """One weight, one statistic and one count, as batch norms have them."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value], dtype=torch.float64))
        self.register_buffer("mean", torch.tensor([value], dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.999])
def test_the_average_is_its_definition(decay: float) -> None:
    """a := d a + (1 - d) w after each step, d = `decay`, or (1 + k) / (10 + k) after step k while that is less."""
    values = np.random.default_rng(0).normal(size=30)
    model: Any = Scalar(3.0)
    average = WeightAverage(model, decay)
    expected = 3.0
    for k, value in enumerate(values, 1):
        with torch.no_grad():
            model.weight.fill_(value)
            model.mean.fill_(value)
            model.count.fill_(k)
        average.update(model)
        d = decay if decay < (1 + k) / (10 + k) else (1 + k) / (10 + k)
        expected = d * expected + (1 - d) * value
        kept: Any = average.model
        assert kept.weight.item() == pytest.approx(expected, rel=1e-12)
        assert kept.mean.item() == value, "statistics are those of the model"
        assert kept.count.item() == k
        assert model.weight.item() == value, "the model is left alone"
    assert average.updates == 30


def test_statistics_of_batch_norms_are_the_models() -> None:
    model = tiny("slow_r50")
    average = WeightAverage(model, 0.9)
    model.train()(torch.randn(2, 3, 4, 32, 32))
    average.update(model)
    changed = 0
    for (name, mine), current in zip(average.model.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, current), name
        changed += mine.ndim > 0
    assert changed > 10
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_average_goes_on_from_its_state() -> None:
    model: Any = Scalar(1.0)
    one = WeightAverage(model, 0.9)
    one.update(model)
    with torch.no_grad():
        model.weight.fill_(5.0)
    one.update(model)
    other = WeightAverage(Scalar(0.0), 0.9)  # type: ignore[arg-type]
    other.load_state_dict(one.state_dict())
    for average in (one, other):
        average.update(model)
    first, second = one.state_dict(), other.state_dict()
    assert first["updates"] == second["updates"] == 3
    assert {name: value.item() for name, value in first["model"].items()} == {
        name: value.item() for name, value in second["model"].items()
    }


def test_progress_counts_steps() -> None:
    progress = Progress()
    assert vars(progress) == {
        "epoch": 0, "step": 0, "seen": 0, "loss": 0.0, "correct": 0.0, "best": None, "bad": {},
    }  # fmt: skip
    for seen, loss, correct in ((3, 1.5, 1), (2, 0.25, 2)):
        progress.add(seen, loss, correct)
    assert (progress.step, progress.seen, progress.loss, progress.correct) == (2, 5, 1.75, 3)
    assert Progress().bad is not progress.bad


def whole_states() -> dict[str, Any]:
    """All that a checkpoint holds beside its progress, of a model of a few weights."""
    sizes = {"num_frames": 2, "image_size": 16, "patch_size": 16, "embed_dim": 8, "depth": 1, "num_heads": 1}
    model = create_model("timesformer_tiny", num_classes=2, **sizes)
    return {
        "model": model.state_dict(), "optimizer": [{"lr": 0.1}], "run": {"seed": 0},
        "architecture": model.architecture, "config": dataclasses.asdict(model.config),
    }  # fmt: skip


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    progress = Progress(2, 3, 4, 0.5, 1, 0.75, {"a.mp4": "broken"})
    saved = whole_states()
    saved["model"]["norm.weight"] = torch.arange(8.0)
    save_checkpoint(tmp_path, progress, saved)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    read, states = load_checkpoint(tmp_path / "checkpoint.pt")
    assert read == progress
    assert states["model"]["norm.weight"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert states["optimizer"] == [{"lr": 0.1}]
    assert set(states) == set(saved)


def test_files_that_are_no_checkpoints_run_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"progress": {}, "x": Bomb()}, tmp_path / "code.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    torch.save({"progress": {"strange": 1}}, tmp_path / "strange.pt")
    (tmp_path / "text.pt").write_bytes(pickle.dumps("text"))
    for name in ("code", "other", "strange", "text"):
        with pytest.raises(TrainingError, match=rf"{name}\.pt is no checkpoint"):
            load_checkpoint(tmp_path / f"{name}.pt")
    assert not (tmp_path / "ran").exists()


def test_a_disk_that_is_full_from_the_start_leaves_nothing_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"\(No space left on device\): there is none to go on from yet$"):
        save_checkpoint(tmp_path, Progress(), {})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(torch, "save", save)
    save_checkpoint(tmp_path, Progress(), {})
    monkeypatch.setattr(torch, "save", full)
    message = rf"make room, then go on \(--resume\) from {tmp_path}/checkpoint\.pt$"
    with pytest.raises(TrainingError, match=message):
        save_checkpoint(tmp_path, Progress(), {})


def test_what_fails_for_another_reason_than_the_disk_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(torch, "save", wrong)
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        save_checkpoint(tmp_path, Progress(), {})

    def closing(*_: object) -> None:  # as PyTorch does when it closes the file that it could not write
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904

    monkeypatch.setattr(torch, "save", closing)
    with pytest.raises(TrainingError, match=r"can't be written \(Disk quota exceeded\)"):
        save_checkpoint(tmp_path, Progress(), {})


def test_a_new_checkpoint_is_on_the_disk_before_an_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves two that are whole: those before, or the new one and the one before it."""
    for epoch in (1, 2):
        save_checkpoint(tmp_path, Progress(epoch=epoch), whole_states())
    there: list[list[int]] = []

    def epochs() -> list[int]:
        return [load_checkpoint(file)[0].epoch for file in checkpoints(tmp_path)]

    monkeypatch.setattr(checkpoint.os, "fsync", lambda file: there.append(epochs()))
    save_checkpoint(tmp_path, Progress(epoch=3), whole_states())
    assert there[0] == [2, 1], "nothing has gone yet"
    assert epochs() == [3, 2]
    assert latest_readable(tmp_path) == tmp_path / "checkpoint.pt"


def test_there_is_a_checkpoint_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that has links, whichever file is given another name."""
    save_checkpoint(tmp_path, Progress(epoch=1), {})
    there: list[bool] = []
    replace = checkpoint.os.replace

    def spy(source: Any, target: Any) -> None:
        replace(source, target)
        there.append((tmp_path / "checkpoint.pt").exists())

    monkeypatch.setattr(checkpoint.os, "replace", spy)
    for epoch in (2, 3):
        save_checkpoint(tmp_path, Progress(epoch=epoch), {})
    assert len(there) == 4
    assert all(there)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
