"""What training saves and hands to its parts: average or weights, heads, colours, seeds; each by its definition."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import timesformer
from timesformer import models
from timesformer.model.base import VideoModel
from timesformer.training import loop
from timesformer.training.loop import make_model, train
from timesformer.training.recipe import Recipe, load_recipe
from timesformer.training.step import Step, take_step
from timesformer.video.clips import BadVideo, ClipDataset
from timesformer.video.items import VideoItem, VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_video
from timesformer.video.transforms import TrainTransform

CONVNET = "model={name: slow_r50, num_frames: 2, image_size: 32, width: 8, depths: [1, 1, 1, 1]}"
TRANSFORMER = (
    "model={name: timesformer_tiny, num_frames: 2, image_size: 32, patch_size: 16, embed_dim: 24, depth: 1, "
    "num_heads: 2}"
)
QUICK = [
    "data={short_side: [1, 1], scale: null, workers: 0, cache: null, flip: 0, rand_augment: 0, erasing: 0, trim: 0}",
    "batch_size=4", "steps=null", "epochs=3", "validate_every=1", "precision=float32", "checkpoint_minutes=60",
    "optimizer.name=sgd", "optimizer.lr=0.5", "optimizer.clip_grad=1", "optimizer.warmup=0",
]  # fmt: skip
COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}


def recipe(*settings: str) -> Recipe:
    return load_recipe("scratch", [*QUICK, *settings])


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """Two noisy videos of each of three plain colours."""
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    items = []
    for label, (name, colour) in enumerate(COLOURS.items()):
        for number in range(2):
            frames = np.array(colour) + rng.integers(-20, 21, (3, 32, 40, 3))
            write_video(folder / f"{name}_{number}.mp4", frames.clip(0, 255).astype(np.uint8), fps=8)
            items.append(VideoItem(folder / f"{name}_{number}.mp4", (label,)))
    return VideoList(tuple(items), tuple(COLOURS), False, folder)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights and statistics of the model before the first step, then after each."""
    states: list[dict[str, Tensor]] = []

    def spy(parallel: Any, *arguments: Any, **options: Any) -> Step:
        if not states:
            states.append({name: value.clone() for name, value in parallel.model.state_dict().items()})
        taken = take_step(parallel, *arguments, **options)
        states.append({name: value.clone() for name, value in parallel.model.state_dict().items()})
        return taken

    monkeypatch.setattr(loop, "take_step", spy)
    return states


def averaged(states: Sequence[dict[str, Tensor]], decay: float, parameters: set[str]) -> dict[str, Tensor]:
    """The moving average of parameters over the states after each step; of all else the last."""
    expected = {name: value.double() for name, value in states[0].items()}
    for k, state in enumerate(states[1:], 1):
        d = min(decay, (1 + k) / (10 + k))
        for name, value in state.items():
            expected[name] = d * expected[name] + (1 - d) * value.double() if name in parameters else value.double()
    return expected


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_best_and_last_are_the_average_where_there_is_one(
    videos: VideoList, tmp_path: Path, steps: list[dict[str, Tensor]], decay: float
) -> None:
    """Of a convolutional network, whose batch norms have statistics; two steps an epoch."""
    returned = train(videos, tmp_path, recipe(CONVNET, f"ema={decay}"), validation=videos)
    assert len(steps) == 1 + 6
    parameters = {name for name, _ in returned.named_parameters()}
    scores = [json.loads(line)["validation_accuracy"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    best = max(epoch for epoch, score in enumerate(scores, 1) if score == max(scores))
    for name, taken in (("last", 6), ("best", 2 * best)):
        expected = averaged(steps[: 1 + taken], decay, parameters) if decay else steps[taken]
        saved = models.load(tmp_path / name).state_dict()
        for key, value in expected.items():
            torch.testing.assert_close(saved[key].double(), value.double(), atol=1e-5, rtol=1e-5, msg=f"{name}: {key}")
    for key, value in models.load(tmp_path / "last").state_dict().items():
        assert torch.equal(returned.state_dict()[key], value)
    assert not returned.training
    apart = max(float((saved[key] - steps[2 * best][key]).abs().max()) for key in parameters)
    assert (apart > 1e-3) == bool(decay), "the two differ"


def test_the_average_is_what_is_validated(videos: VideoList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated: list[dict[str, Tensor]] = []
    evaluate = loop.evaluate

    def spy(model: VideoModel, *arguments: Any, **options: Any) -> Any:
        validated.append({name: value.clone() for name, value in model.state_dict().items()})
        return evaluate(model, *arguments, **options)

    monkeypatch.setattr(loop, "evaluate", spy)
    train(videos, tmp_path, recipe(CONVNET, "ema=0.2", "epochs=1"), validation=videos)
    saved = models.load(tmp_path / "last").state_dict()
    assert len(validated) == 1
    assert all(torch.equal(saved[name], value) for name, value in validated[0].items())


@pytest.mark.parametrize("hidden", ["", ", head_hidden_dim: 12"])
def test_rows_of_a_head_follow_the_names_of_their_classes(videos: VideoList, tmp_path: Path, hidden: str) -> None:
    """Three classes moved round, which is not undone by moving them round again."""
    shape = f"{TRANSFORMER[:-1]}{hidden}}}"
    first = make_model(recipe(shape), videos)
    *_, last = first.head.modules()
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.copy_(torch.arange(3.0)[:, None].expand_as(last.weight))
        last.bias.copy_(torch.arange(3.0) + 10)
    first.save_pretrained(tmp_path)
    order = ("green", "blue", "red")
    second = make_model(recipe(shape, f"init={tmp_path}"), replace(videos, classes=order))
    *_, moved = second.head.modules()
    assert isinstance(moved, torch.nn.Linear)
    value = {"red": 0.0, "green": 1.0, "blue": 2.0}
    for row, name in enumerate(order):
        assert set(moved.weight[row].tolist()) == {value[name]}
        assert moved.bias[row].item() == value[name] + 10
    assert second.classes == order
    clip = torch.randn(1, 3, 2, 32, 32)
    before = dict(zip(tuple(COLOURS), first.eval()(clip)[0].tolist(), strict=True))
    after = dict(zip(order, second.eval()(clip)[0].tolist(), strict=True))
    assert after == pytest.approx(before, abs=1e-4)


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("cached", [False, True])
def test_training_clips_have_the_models_order_of_colours(
    videos: VideoList, tmp_path: Path, colour: Any, cached: bool
) -> None:
    preprocessing = Preprocessing(2, 1, "clip", 32, colour)
    dataset = ClipDataset(
        videos, preprocessing, TrainTransform(32, (32, 32), flip=0), seed=0, short_side=32,
        cache=tmp_path if cached else None,
    )  # fmt: skip
    for index, item in enumerate(videos.items):
        sample = dataset[0, index]
        assert not isinstance(sample, BadVideo)
        brightest = int(sample[0].mean((1, 2, 3)).argmax())
        assert brightest == (item.labels[0] if colour == "RGB" else 2 - item.labels[0])


def test_a_model_that_was_trained_on_bgr_is_trained_further_on_bgr(
    videos: VideoList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its first layer would see red for blue: in a new run, in its going on, and in what is saved."""
    start = make_model(recipe(TRANSFORMER), videos)
    start.preprocessing = Preprocessing(2, 1, "clip", 32, "BGR").to_dict()
    start.save_pretrained(tmp_path / "start")
    brightest: dict[int, int] = {}
    plain = ClipDataset.__getitem__

    def spy(self: ClipDataset, key: tuple[int, int]) -> Any:
        sample = plain(self, key)
        assert not isinstance(sample, BadVideo)
        brightest[int(sample[1].argmax())] = int(sample[0].mean((1, 2, 3)).argmax())
        return sample

    monkeypatch.setattr(ClipDataset, "__getitem__", spy)
    settings = recipe(TRANSFORMER, f"init={tmp_path / 'start'}", "checkpoint_minutes=0", "epochs=2")

    def stop(report: loop.Report) -> None:
        if (report.epoch, report.step) == (1, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(videos, tmp_path / "run", settings, on_report=stop)
    assert brightest == {0: 2, 1: 1, 2: 0}
    brightest.clear()
    model = train(videos, tmp_path / "run", settings, resume=True)
    assert brightest == {0: 2, 1: 1, 2: 0}
    assert model.preprocessing is not None
    assert model.preprocessing["colour"] == "BGR"
    assert re.search('"colour": *"BGR"', (tmp_path / "run" / "last" / "config.json").read_text())
    assert timesformer.load_model(tmp_path / "run").preprocessing == model.preprocessing


def test_no_two_steps_of_a_run_draw_alike(videos: VideoList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither steps, nor clips, nor a step and a clip, have one seed; and clips come in another order each epoch."""
    seeds: list[tuple[int, ...]] = []
    keys: list[tuple[int, int]] = []

    def spy(*arguments: Any, seed: Sequence[int], **options: Any) -> Step:
        seeds.append(tuple(seed))
        return take_step(*arguments, seed=seed, **options)

    plain = ClipDataset.__getitem__

    def item(self: ClipDataset, key: tuple[int, int]) -> Any:
        keys.append(key)
        return plain(self, key)

    monkeypatch.setattr(loop, "take_step", spy)
    monkeypatch.setattr(ClipDataset, "__getitem__", item)
    train(videos, tmp_path, recipe(TRANSFORMER, "seed=5", "ema=0"))
    assert len(seeds) == 6
    assert len(keys) == 18
    assert len({*seeds, *((5, *key) for key in keys)}) == 24
    assert all(seed[0] == 5 for seed in seeds)
    epochs = [[video for when, video in keys if when == epoch] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [[*range(6)]] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
