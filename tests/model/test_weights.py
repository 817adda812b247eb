from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import timesformer
from tests.model.test_timesformer import make
from timesformer.model.weights import WeightsError


def test_save_and_load(tmp_path: Path) -> None:
    model = make(attention="joint_space_time", image_size=(32, 40))
    model.classes, model.multi_label = ("a", "b", "c", "d", "e"), True
    model.preprocessing = {"num_frames": 4, "stride": 8, "sampling": "clip", "image_size": 32}
    model.save_pretrained(tmp_path / "model")
    again = timesformer.load_model(tmp_path / "model")
    assert (again.config, again.classes, again.multi_label) == (model.config, model.classes, True)
    assert again.preprocessing == model.preprocessing
    assert not again.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 1, "whoever may read one may read the other"


def test_preprocessing_follows_the_size_that_is_asked_for(tmp_path: Path) -> None:
    model = make()
    model.preprocessing = {"num_frames": 4, "stride": 8, "sampling": "clip", "image_size": 32}
    model.save_pretrained(tmp_path)
    other = timesformer.load_model(tmp_path, num_frames=2, image_size=64)
    assert other.preprocessing == {"num_frames": 2, "stride": 8, "sampling": "clip", "image_size": 64}


def test_a_run_folder_is_a_model_its_best_first(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "last")
    assert timesformer.load_model(tmp_path).config.num_classes == 5
    make(num_classes=7).save_pretrained(tmp_path / "best")
    assert timesformer.load_model(tmp_path).config.num_classes == 7


def test_another_number_of_classes_gives_a_new_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = make()
    model.classes = ("a", "b", "c", "d", "e")
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        other = timesformer.load_model(tmp_path, num_classes=3)
    assert "head not loaded: it has 5 classes, not 3" in caplog.text
    assert other.classes is None
    clip = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(other.features(clip), model.features(clip))


def test_positions_are_resized_over_the_grid_and_over_time(tmp_path: Path) -> None:
    model = make()
    rows = torch.arange(4.0)[:, None, None].expand(4, 4, 48)  # a position that says its row
    with torch.no_grad():
        model.pos_embed[0, 1:] = rows.reshape(16, 48)
        model.time_embed[0] = torch.arange(4.0)[:, None].expand(4, 48)  # type: ignore[index]
    model.save_pretrained(tmp_path)
    larger = timesformer.load_model(tmp_path, image_size=64, num_frames=8)
    grid = larger.pos_embed[0, 1:, 0].reshape(8, 8).detach()
    assert torch.allclose(grid, grid[:, :1].expand(8, 8), atol=1e-5), "the same along a row"
    assert (grid[1:, 0] > grid[:-1, 0]).all(), "growing from row to row"
    assert torch.equal(larger.pos_embed[:, :1], model.pos_embed[:, :1])
    assert larger.time_embed is not None
    assert (larger.time_embed[0, 1:, 0] >= larger.time_embed[0, :-1, 0]).all()


def test_what_is_no_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing: no such file or folder, nor the id"):
        timesformer.load_model(tmp_path / "nothing")
    make().save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    for broken in (weights[: len(weights) // 2], b"text", b""):
        (tmp_path / "model.safetensors").write_bytes(broken)
        with pytest.raises(WeightsError, match="not a file of weights, or damaged"):
            timesformer.load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="is not JSON"):
        timesformer.load_model(tmp_path)


def test_weights_that_do_not_fit_name_both_shapes(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    about["model"]["embed_dim"] = 96
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(
        WeightsError, match=r"weight blocks.0.attn.proj.bias: \(48,\) in the file, \(96,\) in the model"
    ):
        timesformer.load_model(tmp_path)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["norm.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"weight norm.bias: missing in the file"):
        timesformer.load_model(tmp_path)


def test_unknown_override(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model option 'frames' is not one of"):
        timesformer.load_model(tmp_path, frames=3)
