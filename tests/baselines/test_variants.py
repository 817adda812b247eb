"""Baselines by name, and from what was saved of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.baselines.tiny import TINY, clip_for, tiny
from timesformer.baselines import build, create_baseline


@pytest.mark.parametrize("name", TINY)
def test_a_saved_model_is_remade_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = tiny(name, image_size=(32, 64))
    model.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    again = build(about["architecture"], about["model"]).eval()
    assert type(again) is type(model)
    assert again.config == model.config
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    clip = clip_for(model)
    assert torch.equal(again(clip), model(clip))


def test_what_a_configuration_leaves_out_is_at_its_default() -> None:
    with torch.device("meta"):
        assert build("x3d", {"num_classes": 7}).config == create_baseline("x3d_m", num_classes=7).config


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("r2plus1d", {}, "baseline 'r2plus1d' is not one of i3d_r50, .*x3d_l"),
        ("i3d_r50", {"alpha": 4}, "model option 'alpha' is not one of num_classes, .*depths"),
        ("i3d_r50", {"depths": (3, 4, 6)}, r"depths=\(3, 4, 6\) must be four whole numbers"),
        ("i3d_r50", {"depths": 3}, "depths=3 must be four"),
        ("slow_r50", {"width": 0}, "width=0 must be a whole number from 1 up"),
        ("slow_r50", {"dropout": 1.0}, r"dropout=1.0 must be a number from 0 below 1"),
        ("slowfast_r50", {"width": 12}, "width=12 must be a multiple of beta_inverse=8"),
        ("slowfast_r50", {"lateral_kernel": 4}, "lateral_kernel=4 must be odd"),
        ("slowfast_r50", {"alpha": 0}, "alpha=0 must be a whole number from 1"),
        ("x3d_m", {"expansion": 0.01}, "expansion=0.01 must be at least"),
        ("x3d_m", {"feature_dim": 0}, "feature_dim=0 must be"),
        ("image_vit_base", {"attention": "axial"}, "attention='axial', .*an image model has 'space_only'"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_baseline(name, **options)


def test_an_unknown_architecture() -> None:
    with pytest.raises(ValueError, match="architecture 'c3d' is not one of i3d, slow, slowfast, x3d, image_vit"):
        build("c3d", {})
