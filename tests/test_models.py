"""TimeSformers and baselines by one door: created, trained, saved, loaded, started from image models."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

import timesformer
from tests.model.test_image_init import vit_weights
from timesformer import models
from timesformer.baselines.i3d import I3D
from timesformer.model.tensors import WeightsError
from timesformer.training.loop import train
from timesformer.training.recipe import load_recipe
from timesformer.video.datasets import read_videos
from timesformer.video.items import VideoList
from timesformer.video.synthetic import write_dataset

TINY = {"width": 8, "depths": (1, 1, 1, 1), "num_classes": 4, "num_frames": 8, "image_size": 32}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    folder = tmp_path_factory.mktemp("models")
    return read_videos(
        write_dataset(folder / "data", "appearance", train=16, val=0, test=8, size=40, num_frames=8), "train"
    )


@pytest.mark.parametrize("name", ["i3d_r50", "slowfast_r50", "x3d_s", "image_vit_base"])
def test_baselines_are_trained_and_used_as_any_model(name: str, videos: VideoList, tmp_path: Path) -> None:
    size = "image_size: 32, num_frames: 8"
    options = {
        "x3d_s": "width: 8, feature_dim: 16, depths: [1, 1, 1, 1]",
        "image_vit_base": "embed_dim: 24, depth: 1, num_heads: 3",
    }
    recipe = load_recipe(
        "scratch",
        [
            f"model={{name: {name}, {size}, {options.get(name, 'width: 8, depths: [1, 1, 1, 1]')}}}", "epochs=2",
            "steps=null", "data.cache=null", "data.workers=0", "data.short_side=[1,1.25]", "data.scale=null", "ema=0.9",
            "batch_size=8", "checkpoint_minutes=0",
        ],
    )  # fmt: skip
    model = train(videos, tmp_path / "run", recipe, validation=videos)
    again = models.load(tmp_path / "run" / "last")
    assert type(again) is type(model)
    assert again.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    norms = [value for key, value in model.state_dict().items() if key.endswith("running_var")]
    assert all(not torch.equal(value, torch.ones_like(value)) for value in norms), "the average has the statistics"
    label, score = timesformer.VideoClassifier.from_pretrained(tmp_path / "run").predict(videos.items[0].path, top=1)[0]
    assert label in videos.classes
    assert 0 < score <= 1
    resumed = train(videos, tmp_path / "run", recipe, validation=videos, resume=True)
    assert type(resumed) is type(model)


def test_loading_a_baseline_with_other_classes_and_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = models.create("i3d_r50", **TINY)
    model.preprocessing = {"num_frames": 8, "stride": 8, "sampling": "clip", "image_size": 32}
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        other = models.load(tmp_path, num_classes=2, image_size=64)
    assert "head not loaded: it has 4 classes, not 2" in caplog.text
    assert other.preprocessing is not None
    assert other.preprocessing["image_size"] == 64
    clip = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(other.features(clip), model.eval().features(clip))
    with pytest.raises(WeightsError, match="a i3d, not a TimeSformer"):
        timesformer.load_model(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    for changed, told in (
        ({"model": {**about["model"], "width": 2**10}}, r"weight \S+: \(.*\) in the file, \(.*\) in the model"),
        ({"classes": 5}, "classes=5, preprocessing=.* are not understood"),
        ({"preprocessing": "x"}, "preprocessing='x' are not understood"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**about, **changed}))
        for options in ({}, {"num_classes": 2}):
            with pytest.raises(WeightsError, match=told):
                models.load(tmp_path, **options)
    (tmp_path / "config.json").write_text('{"architecture": "resnet", "model": {}}')
    with pytest.raises(WeightsError, match="architecture 'resnet' is not one of i3d"):
        models.load(tmp_path)


def test_names(tmp_path: Path) -> None:
    assert models.create("timesformer_tiny", depth=1).architecture == "timesformer"
    with pytest.raises(ValueError, match=r"model 'vit' is not one of timesformer_tiny.*slowfast_r50"):
        models.create("vit")


def test_image_models_by_architecture(tmp_path: Path) -> None:
    torch.save(vit_weights(), tmp_path / "vit.pth")
    video = models.create(
        "timesformer_tiny", num_classes=5, image_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3
    )
    assert "blocks.0.temporal_attn.qkv.weight" in models.init_from_image(video, tmp_path / "vit.pth").loaded
    i3d = models.create("i3d_r50", **TINY)
    assert isinstance(i3d, I3D)
    image = {
        key.removeprefix("pathway."): value for key, value in i3d.state_dict().items() if key.startswith("pathway.")
    }
    torch.save({k: v.sum(2) if v.ndim == 5 else v for k, v in image.items()}, tmp_path / "resnet.pth")
    assert "pathway.layer1.0.conv1.weight" in models.init_from_image(i3d, tmp_path / "resnet.pth").loaded
    with pytest.raises(ValueError, match="x3d: no image model is known"):
        models.init_from_image(models.create("x3d_s", **TINY), tmp_path / "vit.pth")
