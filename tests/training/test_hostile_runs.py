"""Folders of runs and files of features from somebody else, or damaged: one error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from timesformer import models
from timesformer.epochs import read_epochs
from timesformer.evaluation.features import Features
from timesformer.training.checkpoint import as_checkpoint, load_checkpoint
from timesformer.training.errors import TrainingError
from timesformer.training.loop import _Log
from timesformer.training.optimizer import make_optimizer
from timesformer.training.recipe import OptimizerRecipe

TINY = {"embed_dim": 24, "depth": 1, "num_heads": 3, "num_frames": 2, "image_size": 16, "num_classes": 3}


def checkpoint(file: Path, **changes: Any) -> Path:
    model = models.create("timesformer_tiny", **TINY)
    progress = {"epoch": 1, "step": 0, "seen": 0, "loss": 0.0, "correct": 0.0, "best": None, "bad": {}}
    content: dict[str, Any] = {"progress": progress, "model": model.state_dict(), "optimizer": {}, "run": {"seed": 0}}
    content |= {"architecture": "timesformer", "config": vars(model.config)}
    torch.save({name: value for name, value in {**content, **changes}.items() if value != "left out"}, file)
    return file


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {**TINY, "depth": 900}}, {"config": {**TINY, "depth": 10**9}},
        {"config": {**TINY, "embed_dim": 3072}}, {"config": None},
        {"config": {"class_path": "os.system"}}, {"config": 3}, {"config": "left out"}, {"architecture": ["x"]},
        {"architecture": "i3d"}, {"model": {}}, {"model": 3}, {"model": "left out"}, {"run": 3}, {"run": "left out"},
        {"optimizer": "left out"}, {"progress": {"epoch": "x"}}, {"progress": {"odd": 1}}, {"progress": 3},
        {"progress": {"epoch": -1}}, {"progress": {"epoch": 10**30}}, {"progress": {"loss": float("nan")}},
        {"progress": {"bad": 3}}, {"progress": {"best": "x"}},
        {"model": {"cls_token": torch.zeros(1).expand(10**5, 10**5)}},
    ],
    ids=lambda changes: str(changes)[:60],
)  # fmt: skip
def test_a_checkpoint_that_is_none_is_one_error(changes: dict[str, Any], tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "checkpoint.pt", **changes)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is no checkpoint .*: remove it to start anew"):
        load_checkpoint(file)


def test_a_checkpoint_that_is_one_is_read(tmp_path: Path) -> None:
    progress, states = load_checkpoint(checkpoint(tmp_path / "checkpoint.pt"))
    assert (progress.epoch, states["run"]) == (1, {"seed": 0})
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is no checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("wrong", [[], [{"state": {}}], {"state": 3}, {"odd": 1}], ids=str)
def test_states_that_an_optimizer_cannot_take_are_named(wrong: Any, tmp_path: Path) -> None:
    model = models.create("timesformer_tiny", **TINY)
    optimizer = make_optimizer(model, OptimizerRecipe())
    _, states = load_checkpoint(checkpoint(tmp_path / "checkpoint.pt", optimizer=wrong))
    with pytest.raises(TrainingError, match=r"x\.pt is no checkpoint"), as_checkpoint(tmp_path / "x.pt"):
        optimizer.load_state_dict(states["optimizer"])


@pytest.mark.parametrize(
    "text",
    ['{"epoch": 1}\n{"epoch"', '{"epoch": 1}\nnull\n', "\xff\n", '{"loss": 1}\n', '{"epoch": "1"}\n', "[" * 9999],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_damaged_metrics_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f"{text}\n", encoding="latin-1")
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl: .*(remove the line, or move the file away|not text in UTF-8)"
    ):
        _Log(tmp_path, 1, 0)
    assert (tmp_path / "metrics.jsonl").read_text(encoding="latin-1") == f"{text}\n"


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    _Log(tmp_path, 1, 0).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'
    assert read_epochs(tmp_path / "metrics.jsonl") == [{"epoch": 1}]
    assert read_epochs(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    "changes",
    [{"paths": "[" * 10**5}, {"paths": "3"}, {"paths": '["a"]'}, {"paths": "[1, 2]"}, {"classes": '{"a": 1}'},
     {"classes": "[[]]"}, {"features": np.zeros(2, np.float32)}, {"features": np.zeros((3, 4), np.float32)},
     {"features": np.zeros((2, 4), np.int64)},
     {"labels": np.array([0, 5])}, {"labels": np.array([0, -2])}, {"labels": np.zeros((2, 2), np.int64)},
     {"labels": np.zeros(2, np.float32)}, {"paths": None}, {"features": None}],
    ids=lambda changes: str(changes)[:60],
)  # fmt: skip
def test_features_that_are_none_are_one_error(changes: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    content: dict[str, Any] = {"features": np.ones((2, 4), np.float32), "labels": np.array([0, -1])}
    content |= {"paths": json.dumps(["a", "b"]), "classes": json.dumps(["c"])}
    for given in (content, {**content, **changes}):
        tensors = {name: given[name] for name in ("features", "labels") if given[name] is not None}
        save_file(tensors, file, {name: given[name] for name in ("paths", "classes") if given[name] is not None})
        if given is content:
            assert Features.load(file).paths == ("a", "b")
    with pytest.raises(ValueError, match=r"x\.safetensors: no file of features"):
        Features.load(file)
