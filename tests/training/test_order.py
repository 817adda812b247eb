"""The order of videos: every epoch another, of every seed another, and what load_batches makes of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from timesformer.training import order as order_module
from timesformer.training.order import StepOrder, load_batches
from timesformer.training.recipe import DataRecipe, Recipe
from timesformer.video.clips import ClipDataset
from timesformer.video.items import VideoItem, VideoList
from timesformer.video.preprocessing import Preprocessing


def orders(seed: int, epochs: int = 4) -> list[tuple[int, ...]]:
    parts = list(StepOrder(12, 5, None, seed, epochs).micro_batches(0, 0))
    return [tuple(video for part in parts for when, video in part if when == epoch) for epoch in range(epochs)]


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    """Of 12! orders two are hardly ever the same; nor is one of them that of the list."""
    found = [*orders(0), *orders(1), tuple(range(12))]
    assert len(set(found)) == 9
    assert orders(0) == orders(0)
    for place in range(12):
        assert len({order[place] for order in found}) > 1


def test_videos_meet_others_in_each_epoch() -> None:
    """A batch is not one of the epoch before in another order."""
    batches = [frozenset(video for _, video in part) for part in StepOrder(12, 4, None, 0, 3).micro_batches(0, 0)]
    assert len(batches) == 9
    assert len(set(batches)) == 9


@pytest.mark.parametrize(
    ("videos", "batch", "micro", "world", "step", "sizes", "turns"),
    [  # sizes of all micro-batches of the step; places of each process's turns
        (10, 4, None, 1, 0, [4], [[0]]),
        (10, 4, None, 1, 2, [2], [[0]]),
        (10, 4, 3, 1, 0, [3, 1], [[0, 1]]),
        (10, 4, 3, 1, 2, [2], [[0]]),
        (10, 10, 3, 2, 0, [3, 3, 3, 1], [[0, 2], [1, 3]]),
        (9, 9, 3, 2, 0, [3, 3, 3], [[0, 2], [1, None]]),
        (10, 4, None, 2, 0, [2, 2], [[0], [1]]),
        (10, 5, None, 2, 1, [3, 2], [[0], [1]]),
        (10, 9, None, 3, 1, [1], [[0], [None], [None]]),
        (4, 4, None, 3, 0, [2, 2], [[0], [1], [None]]),
    ],
)
def test_a_step_is_cut_and_dealt(
    videos: int, batch: int, micro: int | None, world: int, step: int, sizes: list[int], turns: list[list[int | None]]
) -> None:
    each = [StepOrder(videos, batch, micro, 0, 1, rank, world) for rank in range(world)]
    assert [order.turns(step) for order in each] == turns
    whole = next(StepOrder(videos, batch, None, 0, 1).micro_batches(0, step))
    by_place: dict[int, list[tuple[int, int]]] = {}
    for order in each:
        places = [place for place in order.turns(step) if place is not None]
        by_place |= dict(zip(places, itertools.islice(order.micro_batches(0, step), len(places)), strict=True))
    assert [len(by_place[place]) for place in sorted(by_place)] == sizes
    assert [key for place in sorted(by_place) for key in by_place[place]] == whole


@pytest.mark.parametrize(("videos", "batch", "steps"), [(1, 4, 1), (8, 4, 2), (9, 4, 3), (11, 4, 3), (12, 4, 3)])
def test_steps_of_an_epoch(videos: int, batch: int, steps: int) -> None:
    assert StepOrder(videos, batch, None, 0, 1).steps == steps


def test_keys_from_a_step_of_an_epoch_on() -> None:
    order = StepOrder(5, 2, None, 0, 3)
    from_there = list(order.micro_batches(1, 2))
    assert [{when for when, _ in part} for part in from_there] == [{1}, {2}, {2}, {2}]
    assert [len(part) for part in from_there] == [1, 2, 2, 1]


def test_clips_are_made_as_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def load(dataset: ClipDataset, **options: Any) -> Any:
        given.update(options, dataset=dataset)
        return iter(())

    monkeypatch.setattr(order_module, "load", load)
    recipe = Recipe(
        seed=7,
        data=DataRecipe(
            short_side=(1.25, 1.5), flip=0.25, rand_augment=3, erasing=0.125, trim=0.4, cache=str(tmp_path), workers=5
        ),
    )
    videos = VideoList((VideoItem(tmp_path / "a.mp4", (0,)),), ("a",), False, tmp_path)
    keys = iter([[(0, 0)]])
    load_batches(videos, recipe, Preprocessing(4, 2, "clip", 32), keys)
    dataset = given["dataset"]
    transform = dataset.transform
    assert (transform.image_size, transform.short_side, transform.flip) == (32, (40, 48), 0.25)
    assert (transform.scale, transform.rand_augment, transform.erasing) == (None, 3, 0.125)
    assert (dataset.seed, dataset.short_side, dataset.trim) == (7, 48, 0.4)
    assert dataset.videos is videos
    assert dataset.cache.folder == tmp_path
    assert dataset.cache.short_side == 48
    assert (given["workers"], given["batch_sampler"]) == (5, keys)
    good = (torch.ones(3, 1, 2, 2), torch.ones(1))
    assert given["collate_fn"]([good, good]).clips.shape == (2, 3, 1, 2, 2)
    load_batches(videos, Recipe(data=DataRecipe(scale=(0.2, 0.9))), Preprocessing(4, 2, "clip", 32), keys)
    assert given["dataset"].transform.scale == (0.2, 0.9)
    assert given["dataset"].cache is None
