"""A stopped run leaves a model; a finished one can be made longer, where that is the same as one long run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.test_loop import Stop, assert_same_weights, recipe, stop_at
from timesformer.model.weights import load_model
from timesformer.training.errors import TrainingError
from timesformer.training.loop import train
from timesformer.training.recipe import Recipe, load_recipe
from timesformer.video.datasets import read_videos
from timesformer.video.synthetic import write_dataset

STEPS = ("optimizer.schedule=steps", "optimizer.warmup=0", "optimizer.milestones=[1,3]", "checkpoint_minutes=0")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "appearance"
    return write_dataset(folder, "appearance", train=16, val=0, test=0, size=32, num_frames=8)


def small(*changes: str) -> Recipe:
    return recipe("batch_size=8", *changes)


def test_a_run_that_was_stopped_has_a_model(videos: Path, tmp_path: Path) -> None:
    """That of its last checkpoint: the average of its weights."""
    with pytest.raises(Stop):
        train(read_videos(videos, "train"), tmp_path, small(*STEPS, "epochs=2"), on_report=stop_at(2))
    states = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    model = load_model(tmp_path)
    assert model.classes == read_videos(videos, "train").classes
    for name, value in model.state_dict().items():
        assert torch.equal(value, states["average"]["model"][name]), name


def test_a_finished_run_is_lengthened_to_what_a_long_one_is(videos: Path, tmp_path: Path) -> None:
    listed = read_videos(videos, "train")
    train(listed, tmp_path / "whole", small(*STEPS, "epochs=4"))
    train(listed, tmp_path / "parts", small(*STEPS, "epochs=2", "optimizer.milestones=[1]"))
    train(listed, tmp_path / "parts", small(*STEPS, "epochs=4"), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert load_recipe(str(tmp_path / "parts" / "recipe.yaml")).epochs == 4


@pytest.mark.parametrize(
    ("first", "later", "message"),
    [  # of a run by steps without milestones, unless
        (["optimizer.schedule=cosine"], ["epochs=4"], "cosine.*init=.*"),
        ([], ["epochs=4", "optimizer.milestones=[1]"], "milestones"),
        ([], ["epochs=1"], "epochs=1.*2 epochs"),
        (["optimizer.warmup=0.5"], ["epochs=4"], "warmup"),
    ],
    ids=["cosine", "milestone passed", "shorter", "warm-up"],
)  # fmt: skip
def test_what_would_not_be_one_run_is_refused(
    videos: Path, tmp_path: Path, first: list[str], later: list[str], message: str
) -> None:
    listed = read_videos(videos, "train")
    plain = ["epochs=2", "optimizer.schedule=steps", "optimizer.milestones=[]", "optimizer.warmup=0", *first]
    train(listed, tmp_path, small(*plain))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(TrainingError, match=message):
        train(listed, tmp_path, small(*plain, *later), resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_warm_up_of_the_same_steps_goes_on(videos: Path, tmp_path: Path) -> None:
    listed, plain = read_videos(videos, "train"), ["optimizer.schedule=steps", "optimizer.milestones=[]"]
    train(listed, tmp_path, small(*plain, "epochs=2", "optimizer.warmup=0.5"))
    train(listed, tmp_path, small(*plain, "epochs=4", "optimizer.warmup=0.25"), resume=True)
