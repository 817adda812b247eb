"""Training on real, generated video files: learning, exact resuming, broken videos, several labels."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import timesformer
from tests.baselines.tiny import tiny as tiny_baseline
from timesformer.training.loop import Report, StepOrder, TrainingError, make_model, train
from timesformer.training.recipe import Recipe, load_recipe
from timesformer.training.step import _loss
from timesformer.video.datasets import read_videos
from timesformer.video.items import VideoItem, VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_dataset, write_video

TINY = [
    "model={name: timesformer_tiny, num_frames: 4, image_size: 32, patch_size: 16, embed_dim: 48, depth: 2}",
    "data.short_side=[1,1.25]", "data.scale=null", "data.workers=1", "data.cache=null", "data.flip=0",
    "data.rand_augment=0", "data.erasing=0", "data.trim=0", "batch_size=16", "steps=null", "epochs=2", "ema=0.9",
]  # fmt: skip


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("data") / "appearance", "appearance", train=48, val=16, test=16, size=40, num_frames=8
    )


def recipe(*changes: str) -> Recipe:
    return load_recipe("scratch", [*TINY, *changes])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return timesformer.load_model(folder / "last").state_dict()


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[Report], None]:
    def on_report(report: Report) -> None:
        if report.validation is None and report.epoch * report.steps + report.step == step:
            raise Stop

    return on_report


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """Four plain colours, in noise, on videos that were not seen in training."""
    rng = np.random.default_rng(0)
    for name, colour in {
        "red": (200, 40, 40),
        "green": (40, 200, 40),
        "blue": (40, 40, 200),
        "grey": (90, 90, 90),
    }.items():
        for split, count in (("train", 12), ("val", 4)):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(-40, 41, (8, 40, 40, 3))
                frames = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                write_video(tmp_path / "data" / split / name / f"{number}.mp4", frames, fps=8)
    choices = recipe("epochs=40", "optimizer.lr=2e-3")
    train(
        read_videos(tmp_path / "data", "train"),
        tmp_path / "run",
        choices,
        validation=read_videos(tmp_path / "data", "val"),
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 41))
    assert lines[-1]["validation_accuracy"] == 1
    assert lines[-1]["loss"] < lines[0]["loss"] / 2


def test_the_run_folder(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(read_videos(videos, "train"), out, recipe("validate_every=1"), validation=read_videos(videos, "val"))
    assert {path.name for path in out.iterdir()} == {
        "best", "last", "checkpoint.pt", "recipe.yaml", "metrics.jsonl", "tensorboard", "videos.json",
    }  # fmt: skip
    model = timesformer.load_model(out)
    assert model.classes == read_videos(videos, "train").classes
    assert model.preprocessing == Preprocessing(4, 32.0, "segments", 32, "RGB").to_dict()
    assert load_recipe(str(out / "recipe.yaml")) == recipe("validate_every=1")
    with pytest.raises(TrainingError, match="holds a run already"):
        train(read_videos(videos, "train"), out, recipe())


@pytest.mark.parametrize("step", [3, 4, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 5, 6))])
def test_resuming_after_any_step_is_exact(videos: Path, tmp_path: Path, step: int) -> None:
    """Dropped paths, augmentation, mixing, the average of weights and micro-batches all included.

    A step is reported before its checkpoint is written: the run goes on from the one before.
    """
    choices = recipe(
        "checkpoint_minutes=0", "data.rand_augment=5", "data.erasing=0.5", "data.mixup=0.8", "data.cutmix=1",
        "micro_batch_size=6", "model.drop_path=0.3", "validate_every=1",
    )  # fmt: skip
    listed = read_videos(videos, "train")
    validation = read_videos(videos, "val")
    train(listed, tmp_path / "whole", choices, validation=validation)
    with pytest.raises(Stop):
        train(listed, tmp_path / "parts", choices, validation=validation, on_report=stop_at(step))
    reports: list[Report] = []
    train(listed, tmp_path / "parts", choices, validation=validation, resume=True, on_report=reports.append)
    assert len([report for report in reports if report.validation is None]) == 6 - (step - 1), "it went on, not anew"
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    best = [(tmp_path / run / "best" / "model.safetensors").read_bytes() for run in ("whole", "parts")]
    assert best[0] == best[1]
    whole, parts = ((tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "parts"))
    assert whole == parts


def test_a_resumed_run_must_be_the_same_run(videos: Path, tmp_path: Path) -> None:
    listed = read_videos(videos, "train")
    with pytest.raises(Stop):
        train(listed, tmp_path, recipe("checkpoint_minutes=0"), on_report=stop_at(2))
    with pytest.raises(TrainingError, match=r"other optimizer.lr \(0.001, now 0.5\)"):
        train(listed, tmp_path, recipe("optimizer.lr=0.5"), resume=True)
    with pytest.raises(TrainingError, match="other videos"):
        train(replace(listed, items=listed.items[1:]), tmp_path, recipe(), resume=True)


def test_accumulated_micro_batches_give_the_gradient_of_the_whole(videos: Path, tmp_path: Path) -> None:
    choices = ["precision=float32", "optimizer.name=sgd", "optimizer.lr=0.1", "ema=0", "model.drop_path=0", "epochs=1"]
    listed = read_videos(videos, "train")
    train(listed, tmp_path / "whole", recipe(*choices))
    train(listed, tmp_path / "parts", recipe(*choices, "micro_batch_size=5"))
    for (name, one), other in zip(
        weights(tmp_path / "whole").items(), weights(tmp_path / "parts").values(), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)


def test_the_cache_of_frames_changes_nothing(videos: Path, tmp_path: Path) -> None:
    listed = read_videos(videos, "train")
    train(listed, tmp_path / "decoded", recipe("epochs=1"))
    train(listed, tmp_path / "cached", recipe("epochs=1", f"data.cache={tmp_path / 'frames'}"))
    assert len(list((tmp_path / "frames").glob("*.npy"))) == len(listed.items)
    assert_same_weights(tmp_path / "decoded", tmp_path / "cached")


def with_broken(videos: VideoList, folder: Path, count: int) -> VideoList:
    broken = []
    for number in range(count):
        file = folder / f"broken_{number}.mp4"
        file.write_bytes(b"this is no video")
        broken.append(VideoItem(file, (0,)))
    return replace(videos, items=(*videos.items, *broken))


def test_a_broken_video_is_left_out_and_named(videos: Path, tmp_path: Path) -> None:
    listed = with_broken(read_videos(videos, "train"), tmp_path, 2)
    train(listed, tmp_path / "run", recipe("batch_size=7"))
    lines = (tmp_path / "run" / "bad_videos.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(tmp_path / f"broken_{number}.mp4") for number in range(2)]
    assert len(weights(tmp_path / "run")) > 0


def test_batches_of_nothing_but_broken_videos_are_passed_over(videos: Path, tmp_path: Path) -> None:
    listed = with_broken(read_videos(videos, "train"), tmp_path, 2)
    train(listed, tmp_path / "run", recipe("batch_size=1", "epochs=1"))
    assert len((tmp_path / "run" / "bad_videos.txt").read_text().splitlines()) == 2


def test_too_many_broken_videos_stop_the_run(videos: Path, tmp_path: Path) -> None:
    listed = with_broken(read_videos(videos, "train"), tmp_path, 10)
    with pytest.raises(TrainingError, match=r"6 of 58 videos failed to decode, more than max_bad_share=0.1: see"):
        train(listed, tmp_path / "run", recipe("batch_size=1"))


def test_several_labels_a_video(videos: Path, tmp_path: Path) -> None:
    listed = read_videos(videos, "train")
    items = tuple(VideoItem(item.path, (item.labels[0] // 4, 2 + item.labels[0] % 4)) for item in listed.items)
    several = VideoList(items, ("red", "blue", "disc", "square", "triangle", "cross"), True, listed.source)
    model = train(several, tmp_path / "run", recipe(), validation=several)
    assert model.multi_label
    assert timesformer.load_model(tmp_path / "run").multi_label
    scores = timesformer.VideoClassifier.from_pretrained(tmp_path / "run").scores(items[0].path)
    assert 0 < scores.min() < scores.max() < 1
    assert abs(scores.sum().item() - 1) > 1e-3


def test_nothing_to_train_on(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no videos to train on"):
        train(replace(read_videos(videos, "train"), items=()), tmp_path, recipe())


def test_a_loss_that_is_not_finite_stops_the_run(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"try an optimizer\.lr below 1000000"):
        train(
            read_videos(videos, "train"), tmp_path,
            recipe("optimizer.name=sgd", "optimizer.lr=1e6", "optimizer.clip_grad=null", "epochs=20"),
        )  # fmt: skip


def test_start_from_another_model(videos: Path, tmp_path: Path) -> None:
    listed = read_videos(videos, "train")
    train(listed, tmp_path / "first", recipe())
    model = train(
        listed, tmp_path / "second", recipe(f"init={tmp_path / 'first'}", "optimizer.lr=1e-12", "optimizer.min_lr=0")
    )
    for name, value in weights(tmp_path / "first").items():
        torch.testing.assert_close(model.state_dict()[name], value, atol=1e-6, rtol=0)


def test_a_resumed_run_does_not_need_the_model_it_started_from(videos: Path, tmp_path: Path) -> None:
    listed = read_videos(videos, "train")
    train(listed, tmp_path / "first", recipe())
    choices = recipe(f"init={tmp_path / 'first'}", "checkpoint_minutes=0")
    train(listed, tmp_path / "whole", choices)
    with pytest.raises(Stop):
        train(listed, tmp_path / "parts", choices, on_report=stop_at(3))
    shutil.rmtree(tmp_path / "first")
    train(listed, tmp_path / "parts", choices, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_fine_tuning_from_nothing_is_refused(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"starts from a trained model: name it \(init=MODEL or"):
        train(read_videos(videos, "train"), tmp_path, load_recipe("finetune"))


def test_broken_validation_videos_are_named(videos: Path, tmp_path: Path) -> None:
    held = with_broken(read_videos(videos, "val"), tmp_path, 1)
    train(read_videos(videos, "train"), tmp_path / "run", recipe("validate_every=1"), validation=held)
    lines = (tmp_path / "run" / "bad_validation_videos.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(tmp_path / "broken_0.mp4")]


@given(
    num_videos=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    micro=st.none() | st.integers(1, 12),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_every_epoch_takes_every_video_once_from_any_step_on(
    num_videos: int, batch_size: int, micro: int | None, data: st.DataObject
) -> None:
    order = StepOrder(num_videos, batch_size, micro, seed=3, epochs=3)
    everything = list(order.micro_batches(0, 0))
    for epoch in range(3):
        assert sorted(video for part in everything for when, video in part if when == epoch) == list(range(num_videos))
    counts = [len(order.turns(step)) for step in range(order.steps)]
    assert sum(counts) * 3 == len(everything)
    epoch, step = data.draw(st.integers(0, 2)), data.draw(st.integers(0, order.steps - 1))
    assert list(order.micro_batches(epoch, step)) == everything[sum(counts) * epoch + sum(counts[:step]) :]
    assert all(len(part) <= (micro or batch_size) for part in everything)


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_weights(videos: Path, tmp_path: Path) -> None:
    """`kill -9` at random moments, five times; the loader's processes go with it."""

    def command(out: Path) -> list[str]:
        return [
            sys.executable, "-m", "timesformer", "train", "--data", str(videos), "--out", str(out), "--resume",
            "--set", *TINY, "epochs=60", "checkpoint_minutes=0.01", "data.rand_augment=5", "data.mixup=0.8",
        ]  # fmt: skip

    def epochs_done() -> int:
        file = tmp_path / "parts" / "metrics.jsonl"
        return len(file.read_bytes().splitlines()) if file.exists() else 0

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    moments = random.Random(int(os.environ.get("KILL_SEED", "0")))
    for _ in range(5):
        until = epochs_done() + moments.randint(
            1, 10
        )  # what is not in a checkpoint yet is done again, and counted anew
        process = subprocess.Popen(
            command(tmp_path / "parts"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while epochs_done() < until:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    subprocess.run(command(tmp_path / "parts"), check=True, capture_output=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    one, other = ((tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "parts"))
    assert one == other


def test_trimmed_clips_stay_inside_and_reach_both_ends() -> None:
    from timesformer.video.preprocessing import Preprocessing

    rng = np.random.default_rng(0)
    for sampling in ("clip", "segments"):
        clips = [Preprocessing(8, 1, sampling).training_indices(40, rng, trim=0.5) for _ in range(500)]  # type: ignore[arg-type]
        assert min(clip[0] for clip in clips) == 0
        assert max(clip[-1] for clip in clips) == 39
        spans = [clip[-1] - clip[0] for clip in clips]
        assert sampling == "clip" or min(spans) < 20 < max(spans)


def test_targets_and_clips_of_a_sample_depend_on_seed_epoch_and_index_alone(videos: Path) -> None:
    from timesformer.video.clips import BadVideo, ClipDataset
    from timesformer.video.preprocessing import Preprocessing
    from timesformer.video.transforms import TrainTransform

    listed = read_videos(videos, "train")
    transform = TrainTransform(32, (32, 40), rand_augment=5)
    make = lambda seed: ClipDataset(  # noqa: E731
        listed, Preprocessing(4, 1, "clip", 32), transform, seed=seed, short_side=40
    )
    np.random.seed(1)  # noqa: NPY002  global states are of no matter
    first = make(0)[0, 3]
    torch.manual_seed(9)
    again, later, other = make(0)[0, 3], make(0)[1, 3], make(1)[0, 3]
    for sample in (first, again, later, other):
        assert not isinstance(sample, BadVideo)
    assert torch.equal(first[0], again[0])  # type: ignore[index]
    assert not torch.equal(first[0], later[0])  # type: ignore[index]
    assert not torch.equal(first[0], other[0])  # type: ignore[index]
    assert first[1].tolist() == np.eye(8)[listed.items[3].labels[0]].tolist()  # type: ignore[index]


def test_start_from_an_image_model(videos: Path, tmp_path: Path) -> None:
    from tests.model.test_image_init import vit_weights

    weights = vit_weights(classes=8)
    torch.save(weights, tmp_path / "vit.pth")
    choices = [f"init_from_image={tmp_path / 'vit.pth'}", "initialization=released", "model.patch_size=8"]
    still = recipe(*choices, "model.num_heads=3", "optimizer.lr=1e-12", "optimizer.min_lr=0", "epochs=1")
    model = train(read_videos(videos, "train"), tmp_path / "run", still)
    for name in ("attn.qkv.weight", "temporal_attn.qkv.weight"):
        torch.testing.assert_close(
            model.state_dict()[f"blocks.1.{name}"], weights["blocks.1.attn.qkv.weight"], atol=1e-6, rtol=0
        )
    assert model.state_dict()["time_embed"].abs().max() < 1e-6
    for_scratch = dataclasses.replace(still, initialization="scratch")
    other = make_model(for_scratch, read_videos(videos, "train")).state_dict()
    assert torch.equal(other["blocks.1.attn.qkv.weight"], weights["blocks.1.attn.qkv.weight"])
    assert other["time_embed"].abs().mean() > 0.1, "what the ViT does not give is as the recipe says"
    assert other["blocks.1.temporal_fc.weight"].abs().mean() > 0.01
    with pytest.raises(ValueError, match="give one of them"):
        recipe(*choices, "init=x")


def test_a_head_of_other_classes_is_not_taken_for_ours(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = read_videos(videos, "train")
    still = ["optimizer.lr=1e-12", "optimizer.min_lr=0", "epochs=1"]
    first = train(listed, tmp_path / "first", recipe())
    turned = replace(
        listed,
        classes=listed.classes[::-1],
        items=tuple(VideoItem(item.path, (7 - item.labels[0],)) for item in listed.items),
    )
    model = train(turned, tmp_path / "turned", recipe(f"init={tmp_path / 'first'}", *still))
    torch.testing.assert_close(model.state_dict()["head.weight"], first.state_dict()["head.weight"].flip(0))
    other = replace(listed, classes=tuple(f"other {number}" for number in range(8)))
    with caplog.at_level(logging.WARNING):
        model = train(other, tmp_path / "other", recipe(f"init={tmp_path / 'first'}", *still))
    assert "head not loaded: its classes are others" in caplog.text
    assert (model.state_dict()["head.weight"] - first.state_dict()["head.weight"]).abs().max() > 0.01


@pytest.mark.parametrize("frozen", [0, 1, -1])
def test_frozen_blocks_stay_as_they_are(videos: Path, tmp_path: Path, frozen: int) -> None:
    choices = recipe("model.depth=2", f"frozen_blocks={frozen}", "epochs=1", "activation_checkpointing=true")
    listed = read_videos(videos, "train")
    torch.manual_seed(choices.seed)
    before = {name: value.clone() for name, value in make_model(choices, listed).state_dict().items()}
    after = train(listed, tmp_path / "run", choices).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = {name.rsplit(".", 2)[0] for name in changed if name.endswith("attn.qkv.weight")}
    assert "head.weight" in changed
    assert ("patch_embed.proj.weight" in changed) == ("cls_token" in changed) == (frozen == 0)
    assert len({part.split(".")[1] for part in parts}) == {0: 2, 1: 1, -1: 0}[frozen]
    if frozen == 1:
        assert all(not name.startswith("blocks.0.") for name in changed)


def test_a_step_of_the_head_alone_keeps_no_activations() -> None:
    model = timesformer.create_model("timesformer_tiny", depth=2, image_size=32, num_frames=2, num_classes=3)
    model.freeze(-1)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        loss = model.train()(torch.randn(2, 3, 2, 32, 32)).sum()
    loss.backward()
    assert sum(tensor.numel() for tensor in kept) < 10 * 2 * 192
    assert model.head.weight.grad is not None
    assert model.blocks[0].mlp.fc1.weight.grad is None
    assert not model.blocks[1].drop_path.training
    with pytest.raises(ValueError, match=r"frozen_blocks=3 is not in -1\.\.2"):
        model.freeze(3)


def test_nothing_but_broken_videos_stops_the_run(videos: Path, tmp_path: Path) -> None:
    listed = read_videos(videos, "train")
    broken = with_broken(listed, tmp_path, 1).items[-1:]
    assert not broken[0].path.read_bytes().startswith(b"\0\0\0")  # no MP4
    with pytest.raises(TrainingError, match="1 of 1 videos failed to decode"):
        train(replace(listed, items=broken), tmp_path / "run", recipe("data.workers=0"))
    assert not (tmp_path / "run" / "last").exists()


def test_fine_tuning_a_trained_baseline_by_default(videos: Path, tmp_path: Path) -> None:
    baseline = tiny_baseline("x3d_s")
    baseline.classes = tuple("abcde")
    baseline.save_pretrained(tmp_path / "trained")
    listed = read_videos(videos, "train")
    model = make_model(load_recipe("finetune", [f"init={tmp_path / 'trained'}"]), listed)
    assert model.architecture == "x3d"
    assert model.config.num_classes == 8
    for name, value in baseline.state_dict().items():
        assert name.startswith("head.") or torch.equal(model.state_dict()[name], value), name
    with pytest.raises((ValueError, TrainingError), match="patch_size"):
        make_model(load_recipe("finetune", [f"init={tmp_path / 'trained'}", "model.patch_size=8"]), listed)
    named = make_model(load_recipe("scratch", ["model={name: x3d_s, image_size: 32, drop_path: 0.1}"]), listed)
    assert named.architecture == "x3d"


def test_fine_tuning_keeps_the_order_of_colours_of_the_weights(videos: Path, tmp_path: Path) -> None:
    model = timesformer.create_model("timesformer_tiny", depth=1, embed_dim=24, num_heads=3, num_classes=8)
    model.preprocessing = {"num_frames": 8, "stride": 4, "image_size": 224, "colour": "BGR"}
    model.save_pretrained(tmp_path / "bgr")
    tuned = make_model(load_recipe("finetune", [f"init={tmp_path / 'bgr'}"]), read_videos(videos, "train"))
    assert tuned.preprocessing is not None
    assert tuned.preprocessing["colour"] == "BGR"


def test_smoothing_of_several_labels() -> None:
    """Each label y counts as y (1 - s) + s / 2: half of the smoothed share says yes."""
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    expected = 0.0
    for row, labels in zip(logits.tolist(), targets.tolist(), strict=True):
        for logit, label in zip(row, labels, strict=True):
            yes, share = 1 / (1 + math.exp(-logit)), label * 0.8 + 0.1
            expected -= (share * math.log(yes) + (1 - share) * math.log(1 - yes)) / 3
    assert _loss(logits, targets, True, 0.2).item() == pytest.approx(expected, rel=1e-5)
    assert _loss(logits, targets, True, 0.0).item() != pytest.approx(expected, rel=1e-2)
