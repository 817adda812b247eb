"""A model's own colours, everywhere: the same model in other words must give the same everywhere.

(v / 255 - m) / s is ((v / 255 - 0.45) / 0.225) * 0.225 / s + (0.45 - m) / s, and the first layer is linear: a model of
one normalisation, or order of colours, is one of another with other numbers in its first layer.
"""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import timesformer
from timesformer.evaluation.bulk import BulkJob, run_bulk
from timesformer.evaluation.features import embed, video_features
from timesformer.evaluation.timeline import timeline
from timesformer.explain.explain import explain
from timesformer.export import metadata
from timesformer.predictor import ClassifierSource, VideoClassifier
from timesformer.training.checkpoint import load_checkpoint
from timesformer.training.loop import make_model, train
from timesformer.training.order import load_batches
from timesformer.training.recipe import load_recipe
from timesformer.video.datasets import read_videos
from timesformer.video.decode import VideoReader
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_dataset

MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.2, 0.4)
OWN = Preprocessing(4, 2, "clip", 32, "BGR", mean=MEAN, std=STD)
USUAL = Preprocessing(4, 2, "clip", 32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    folder = tmp_path_factory.mktemp("videos")
    write_dataset(folder, "motion", train=8, val=0, test=0, size=48, num_frames=13)
    return read_videos(folder, "train")


@pytest.fixture(scope="module")
def pair() -> tuple[VideoClassifier, VideoClassifier]:
    """A model of its own colours, and the same one in the usual ones."""
    size = {"depth": 2, "embed_dim": 24, "num_heads": 3, "image_size": 32, "patch_size": 8, "num_frames": 4}
    torch.manual_seed(0)
    own, usual = (timesformer.create_model("timesformer_tiny", **size, num_classes=8) for _ in range(2))
    for name, parameter in own.named_parameters():
        if parameter.ndim > 1 and "embed" not in name:  # positions stay small: pixels are to count
            torch.nn.init.normal_(parameter, std=0.4)
    state = own.state_dict()
    kernel, bias = state["patch_embed.proj.weight"].double(), state["patch_embed.proj.bias"].double()
    mean, std = (torch.tensor(each, dtype=torch.float64).view(1, 3, 1, 1) for each in (MEAN, STD))
    state["patch_embed.proj.bias"] = (bias + (kernel * (0.45 - mean) / std).sum((1, 2, 3))).float()
    state["patch_embed.proj.weight"] = (kernel * 0.225 / std).float()[:, [2, 1, 0]]
    usual.load_state_dict(state)
    own.preprocessing, usual.preprocessing = OWN.to_dict(), USUAL.to_dict()
    return VideoClassifier(own, device="cpu"), VideoClassifier(usual, device="cpu")


def test_the_two_differ_where_colours_are_taken_as_usual(pair: Any, videos: VideoList) -> None:
    wrong = VideoClassifier(pair[0].model, preprocessing=USUAL, device="cpu").scores(videos.items[0].path)
    assert (wrong - pair[1].scores(videos.items[0].path)).abs().max() > 0.1


def test_files_timelines_streams_features_and_explanations(pair: Any, videos: VideoList) -> None:
    path = videos.items[0].path
    first, second = (each.scores(path, clips=2, crops=3) for each in pair)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    first, second = (timeline(each, path, hop=3).scores for each in pair)
    np.testing.assert_allclose(first, second, atol=1e-4)
    with VideoReader(path) as reader:
        frames = reader.frames(range(len(reader)))
    streams = [list(each.stream(frames, top=1)) for each in pair]
    for (n, [(label, score)]), (m, [(other, also)]) in zip(*streams, strict=True):
        assert (n, label, score) == (m, other, pytest.approx(also, abs=1e-4))
    first, second = (video_features(e.model, videos, e.preprocessing, indices=[0], workers=0)[0].values for e in pair)
    np.testing.assert_allclose(first, second, atol=2e-3)
    for of in (None, "1"):
        first, second = (explain(each, path, of=of).shares for each in pair)
        np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-4)


def test_calibration_of_8_bits(pair: Any, videos: VideoList) -> None:
    paths = [item.path for item in videos.items[:2]]
    first, second = (each.prepared("int8", calibration=paths).scores(paths[0]) for each in pair)
    torch.testing.assert_close(first, second, atol=0.05, rtol=0)


def test_what_is_exported_says_how_colours_are_normalised(pair: Any) -> None:
    about = json.loads(metadata(pair[0])["preprocessing"])
    assert (about["mean"], about["std"], about["colour"]) == (list(MEAN), list(STD), "BGR")
    larger = VideoClassifier(pair[0].model, preprocessing=replace(OWN, short_side=40, keep_aspect=False), device="cpu")
    about = json.loads(metadata(larger)["preprocessing"])
    names = ("height", "width", "scaled_height", "scaled_width", "keep_aspect", "interpolation")
    assert [about[name] for name in names] == [32, 32, 40, 40, False, "bilinear"]


def test_training_clips(videos: VideoList) -> None:
    recipe = load_recipe("scratch", ["data.workers=0", "data.rand_augment=0", "data.erasing=0", "data.cache=null"])
    first, second = (next(load_batches(videos, recipe, each, iter([[(0, 0), (0, 1)]]))).clips for each in (OWN, USUAL))
    mean, std = (torch.tensor(each).view(1, 3, 1, 1, 1) for each in (MEAN, STD))
    torch.testing.assert_close(first, second.flip(1) * 0.225 / std + (0.45 - mean) / std, atol=1e-4, rtol=0)


def test_training_from_a_model_keeps_its_colours_also_when_it_goes_on(
    pair: Any, videos: VideoList, tmp_path: Path
) -> None:
    pair[0].model.save_pretrained(tmp_path / "own")
    recipe = load_recipe("finetune", [f"init={tmp_path / 'own'}", "epochs=1", "batch_size=8", "data.workers=0"])
    model = train(videos, tmp_path / "run", recipe)
    assert model.preprocessing is not None
    found = Preprocessing(**model.preprocessing)
    assert (found.colour, found.mean, found.std) == ("BGR", MEAN, STD)
    assert (found.stride, found.sampling) == (recipe.data.stride, recipe.data.sampling)  # which are the recipe's
    _, states = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    again = make_model(recipe, videos, states)
    assert again.preprocessing == model.preprocessing


def test_only_preprocessing_normalises() -> None:
    """Nobody else calls the function whose defaults are the usual values."""
    root = Path(timesformer.__file__).parent
    for file in root.rglob("*.py"):
        if file.name in ("preprocessing.py", "transforms.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            assert not {"normalize", "MEAN", "STD"} & set(names), file


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", [0.5, 0.5]),
        ("mean", 0.5),
        ("mean", [0.5, 0.5, "x"]),
        ("std", [0.2, 0.2, 0.0]),
        ("std", [0.2, float("nan"), 0.2]),
        ("short_side", 31),
        ("keep_aspect", "no"),
        ("interpolation", "lanczos"),
    ],
)
def test_values_that_are_not_allowed(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}="):
        Preprocessing(**{**OWN.to_dict(), name: value})


def test_what_the_crop_shows_of_a_frame() -> None:
    assert USUAL.seen(60, 90) == (0, 15, 60, 60)
    assert replace(USUAL, short_side=40).seen(60, 90) == (6, 21, 48, 48)  # 32 of 40
    assert replace(USUAL, short_side=40, keep_aspect=False).seen(60, 90) == (6, 9, 48, 72)


def test_a_job_does_not_go_on_with_another_model(pair: Any, videos: VideoList, tmp_path: Path) -> None:
    """Nor one that was loaded with other options: same weights, other answers."""
    model = pair[0].model

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        embed(model, videos, OWN, tmp_path / "f.safetensors", workers=0, on_video=stop)
    model.save_pretrained(tmp_path / "own")
    other = timesformer.load_model(tmp_path / "own", num_heads=2)
    with pytest.raises(ValueError, match="parts for other videos or views, or by another model"):
        embed(other, videos, OWN, tmp_path / "f.safetensors", workers=0)
    embed(model, videos, OWN, tmp_path / "f.safetensors", workers=0)  # and with the same it does


def test_nor_does_a_job_of_labels(pair: Any, videos: VideoList, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pair[0].model.save_pretrained(tmp_path / "own")
    paths = tuple(item.path for item in videos.items[:2])
    for options in ({}, {"num_heads": 2}):
        job = BulkJob(ClassifierSource(tmp_path / "own", options=options), paths, "labels", workers=1)
        if not options:
            run_bulk(job, tmp_path / "out")
            (tmp_path / "out" / "part-000000.parquet").unlink()
            continue
        with pytest.raises(ValueError, match="other videos, another model or other views"):
            run_bulk(job, tmp_path / "out")
