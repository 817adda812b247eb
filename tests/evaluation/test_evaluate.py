"""Views, scores and what is written of them, on generated video files."""

from __future__ import annotations

import csv
import json
import logging
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch import nn

import timesformer
from timesformer import distributed
from timesformer.cli import main
from timesformer.evaluation.evaluate import Evaluation, evaluate
from timesformer.evaluation.protocols import PROTOCOLS, Clips
from timesformer.evaluation.provenance import about_evaluation, write_used_videos
from timesformer.evaluation.timeline import timeline
from timesformer.evaluation.views import load_views, usual_batch, view_logits
from timesformer.model.card import model_card
from timesformer.predictor import VideoClassifier
from timesformer.video.datasets import read_videos, write_list
from timesformer.video.decode import VideoError, VideoReader
from timesformer.video.items import DataError, VideoItem, VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_dataset, write_video

PREPROCESSING = Preprocessing(num_frames=4, stride=2, sampling="clip", image_size=32)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    folder = write_dataset(
        tmp_path_factory.mktemp("data") / "appearance", "appearance", train=0, val=0, test=16, size=40, num_frames=20
    )
    return read_videos(folder, "test")


@pytest.fixture(scope="session")
def model() -> timesformer.TimeSformer:
    torch.manual_seed(0)
    model = timesformer.create_model(
        num_classes=8, num_frames=4, image_size=32, patch_size=16, embed_dim=24, depth=2, num_heads=3
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def test_views_are_the_frames_and_crops_they_should_be(tmp_path: Path) -> None:
    frames = np.zeros((20, 32, 48, 3), dtype=np.uint8)
    frames[:] = (np.arange(20) * 12)[:, None, None, None]  # brightness tells the frame
    frames[:, :, 24:, 0] = 0  # the right half has no red
    write_video(tmp_path / "wide.mp4", frames, fps=10)
    views = load_views(tmp_path / "wide.mp4", PREPROCESSING, clips=3, crops=3)
    assert views.shape == (9, 4, 32, 32, 3)
    shown = views.float().mean(dim=(2, 3))[..., 2].reshape(3, 3, 4) / 12  # blue: clip, crop, frame
    for clip, start in enumerate((0, 6, 12)):
        assert shown[clip].round().tolist() == [[start, start + 2, start + 4, start + 6]] * 3
    red, blue = (views[3, -1, ..., channel].float().mean(dim=0) for channel in (0, 2))
    assert (red / blue > 0.5).float().mean().item() == pytest.approx(24 / 32, abs=0.05), "first crop: the left"
    one = load_views(tmp_path / "wide.mp4", PREPROCESSING, clips=3, crops=1)
    assert torch.equal(one, views[1::3])


def test_views_of_small_videos_are_enlarged(videos: VideoList) -> None:
    large = replace(PREPROCESSING, image_size=64)
    assert load_views(videos.items[0].path, large).shape == (1, 4, 64, 64, 3)


def test_covering_views_show_every_part(videos: VideoList) -> None:
    assert len(load_views(videos.items[0].path, PREPROCESSING, clips="cover")) == 3  # 20 frames, 8 a clip


def test_clips_of_segments_all_span_the_video(videos: VideoList) -> None:
    segments = replace(PREPROCESSING, sampling="segments")
    assert segments.view_indices(41, 2).tolist() == [[2, 12, 22, 32], [7, 17, 27, 37]]
    assert segments.view_indices(41, 1).tolist() == segments.view_indices(41, "cover").tolist() == [[5, 15, 25, 35]]
    assert len(load_views(videos.items[0].path, segments, clips=5)) == 5


@pytest.mark.parametrize(("clips", "crops", "message"), [(0, 1, "num_clips"), (1, 2, "num_crops must be 1 or 3")])
def test_wrong_views(videos: VideoList, clips: int, crops: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_views(videos.items[0].path, PREPROCESSING, clips=clips, crops=crops)


def test_scores_are_the_mean_of_softmax(videos: VideoList, model: timesformer.TimeSformer) -> None:
    views = load_views(videos.items[0].path, PREPROCESSING, clips=3, crops=3)
    clips = (views.permute(0, 4, 1, 2, 3).float() / 255 - 0.45) / 0.225
    with torch.no_grad():
        logits = torch.stack([model(clip[None])[0] for clip in clips])
    torch.testing.assert_close(view_logits(model, views, PREPROCESSING, batch_size=4), logits, atol=1e-5, rtol=1e-4)
    expected = logits.softmax(dim=1)
    result = evaluate(model, videos, PREPROCESSING, clips=3, crops=3, workers=1)
    assert result.scores[0] == pytest.approx(expected.mean(0).numpy(), abs=1e-5)


def test_evaluation_agrees_with_prediction(videos: VideoList, model: timesformer.TimeSformer) -> None:
    classifier = VideoClassifier(model, preprocessing=PREPROCESSING)
    result = evaluate(model, videos, PREPROCESSING, clips=2, workers=0)
    for item, scores in zip(result.items, result.scores, strict=True):
        assert classifier.scores(item.path, clips=2).numpy() == pytest.approx(scores, abs=1e-5)


def test_predictions_are_sorted_and_named(videos: VideoList, model: timesformer.TimeSformer) -> None:
    model.classes = videos.classes
    classifier = VideoClassifier(model, preprocessing=PREPROCESSING)
    path = videos.items[3].path
    top = classifier.predict(path, top=99)
    scores = classifier.scores(path)
    assert top == [(videos.classes[i], pytest.approx(scores[i].item())) for i in scores.argsort(descending=True)]
    assert sum(score for _, score in top) == pytest.approx(1)
    assert classifier.predict(path, top=2) == top[:2]
    with pytest.raises(ValueError, match="top=0 must be at least 1"):
        classifier.predict(path, top=0)
    with pytest.raises(VideoError, match="nowhere"):
        classifier.predict("nowhere.mp4")


def test_a_model_that_does_not_say_its_input_is_warned_of(
    model: timesformer.TimeSformer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        preprocessing = VideoClassifier(model).preprocessing
    assert preprocessing == Preprocessing(model.config.num_frames, 32, "clip", 32)
    assert "the model does not say how videos become its input" in caplog.text


def test_broken_videos_are_left_out_and_listed(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    mixed = replace(videos, items=(videos.items[0], VideoItem(broken, (1,)), *videos.items[1:]))
    calls: list[None] = []
    result = evaluate(model, mixed, PREPROCESSING, workers=2, on_video=lambda: calls.append(None))
    assert len(calls) == 17
    assert result.items == videos.items
    assert [bad.path for bad in result.bad] == [str(broken)]
    np.testing.assert_allclose(result.scores, evaluate(model, videos, PREPROCESSING, workers=0).scores, atol=1e-6)
    result.write(tmp_path / "out")
    assert (tmp_path / "out" / "bad_videos.txt").read_text().startswith(f"{broken}\t")


def test_what_is_written(videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path) -> None:
    result = evaluate(model, videos, PREPROCESSING, workers=0)
    result.write(tmp_path)
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["videos"] == 16
    assert summary["top1"] == pytest.approx((result.scores.argmax(1) == result.labels).mean())
    assert list(summary["per_class"]) == list(videos.classes)
    rows = list(csv.reader((tmp_path / "predictions.csv").open()))
    assert rows[0] == ["path", "labels", "predicted", *videos.classes]
    assert [row[0] for row in rows[1:]] == [str(item.path) for item in videos.items]
    assert [row[2] for row in rows[1:]] == [videos.classes[i] for i in result.scores.argmax(1)]
    confusion = list(csv.reader((tmp_path / "confusion.csv").open()))
    counts = np.array([[int(count) for count in row[1:]] for row in confusion[1:]])
    assert np.array_equal(counts, result.confusion)
    assert counts.sum(axis=1).tolist() == [2] * 8
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 300


def test_several_labels(videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path) -> None:
    items = tuple(replace(item, labels=(item.labels[0], (item.labels[0] + 1) % 8)) for item in videos.items)
    several = replace(videos, items=items, multi_label=True)
    result = evaluate(model, several, PREPROCESSING, workers=0)
    summary = result.summary()
    assert 0 < summary["mean_average_precision"] <= 1
    assert "top1" not in summary
    result.write(tmp_path)
    assert not (tmp_path / "confusion.png").exists()


def test_a_list_must_suit_the_task_of_the_model(videos: VideoList) -> None:
    assert videos.for_task(True).multi_label
    with pytest.raises(DataError, match="has several labels a video, the model only one"):
        videos.for_task(True).for_task(False)


def test_a_list_of_nothing_but_broken_videos(videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    result = evaluate(model, replace(videos, items=(VideoItem(tmp_path / "a.mp4", (0,)),)), PREPROCESSING, workers=0)
    assert result.summary() == {"videos": 0, "bad_videos": 1}


class _Unsure(nn.Module):
    """NaN for clips of which the first is dark, as a model that has diverged may give for some."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.threshold = threshold

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits = clips.mean(dim=(1, 2, 3, 4))[:, None] * self.weight
        return torch.where(clips.mean(dim=(1, 2, 3, 4))[:, None] < self.threshold, torch.nan, logits)


def test_outputs_that_are_no_numbers_are_no_scores(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brightness = sorted(
        (((load_views(item.path, PREPROCESSING).float().mean() / 255 - 0.45) / 0.225).item(), str(item.path))
        for item in videos.items
    )
    threshold = (brightness[2][0] + brightness[3][0]) / 2
    result = evaluate(_Unsure(threshold), videos, PREPROCESSING, workers=0)
    assert len(result.items) == 13
    assert np.isfinite(result.scores).all()
    assert {bad.path for bad in result.bad} == {path for _, path in brightness[:3]}
    assert all(bad.reason.startswith(bad.path) and "not finite" in bad.reason for bad in result.bad)

    broken = timesformer.create_model("timesformer_tiny", **vars(model.config))
    broken.load_state_dict(model.state_dict())
    nn.init.constant_(broken.head.bias, torch.nan)
    broken.classes, broken.preprocessing = videos.classes, PREPROCESSING.to_dict()
    path = videos.items[0].path
    classifier = VideoClassifier(broken)
    with pytest.raises(ValueError, match=f"{path}: the model's outputs are not finite"):
        classifier.predict(path)
    with pytest.raises(ValueError, match="not finite"):
        timeline(classifier, path)
    broken.save_pretrained(tmp_path / "nan")
    command = ["evaluate", str(tmp_path / "nan"), "--data", str(videos.source), "--workers", "1"]
    assert main([*command, "--json", "-"]) == 1
    assert "top1" not in json.loads(capsys.readouterr().out)
    assert main(["predict", str(tmp_path / "nan"), str(path), "--workers", "1"]) == 1
    assert "not finite" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("chosen", ["best", "last"])
def test_figures_say_what_they_are_of(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: str
) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    model.preprocessing, model.classes = PREPROCESSING.to_dict(), videos.classes
    for name in ("best", "last"):
        model.save_pretrained(run / name)
    model.preprocessing = model.classes = None
    (run / "recipe.yaml").write_text("epochs: 1\n")
    by_split = {"train": videos.items[:6], "val": videos.items[6:10], "test": videos.items[10:]}
    data.mkdir()
    for split, items in by_split.items():
        write_list(data / f"{split}.csv", replace(videos, items=items))
    (data / "classes.txt").write_text("\n".join(videos.classes))
    write_used_videos(run, replace(videos, items=by_split["train"]), replace(videos, items=by_split["val"]))
    for split, trained, by in (("train", 6, 0), ("val", 0, 4), ("test", 0, 0)):
        out = tmp_path / f"{split}_of_{chosen}"
        command = ["evaluate", str(run / chosen), "--data", str(data), "--split", split, "--out", str(out)]
        assert main([*command, "--workers", "1", "--crops", "1"]) == 0
        said = json.loads((out / "metrics.json").read_text())
        by = by if chosen == "best" else 0
        assert (said["split"], said["trained_on"], said["chosen_by"]) == (split, trained, by)
        assert (said["data"], said["protocol"], said["clips"], said["crops"]) == (str(data), "paper", 1, 1)
        told = " ".join(capsys.readouterr().err.split())
        assert (f"trained on {trained} of these" in told) == bool(trained)
        assert (f"chosen by {by} of these" in told) == bool(by)
        (run / "evaluation").mkdir(exist_ok=True)
        (run / "evaluation" / "metrics.json").write_text((out / "metrics.json").read_text())
        card = " ".join(model_card(model, "someone/run", run=run).split())
        assert f"on data, split {split} (1 x 1 views, protocol paper)" in card
        assert ("trained on 6 of these videos" in card) == bool(trained)
        assert ("scored best on 4 of these videos" in card) == bool(by)
        assert ("neither trained on these videos nor chosen by them" in card) == (not trained and not by)
        assert "its test videos" not in card
        assert str(tmp_path) not in card, "folders of the machine are nobody's business"


def test_figures_of_a_model_without_a_run_claim_nothing(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path
) -> None:
    said = about_evaluation("some/model", str(videos.source), "test", videos, PROTOCOLS["paper"], "cover", 1)
    assert (said["trained_on"], said["chosen_by"]) == (None, None)
    (tmp_path / "recipe.yaml").write_text("epochs: 1\n")
    evaluate(model, videos, PREPROCESSING, workers=0).write(tmp_path / "evaluation")
    card = model_card(model, "someone/run", run=tmp_path)
    assert "is not recorded" in card
    assert "its test videos" not in card


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"train": [1], "validation": []}', '{"train": "ab", "validation": []}', "{"]
)
def test_used_videos_that_are_not_understood(videos: VideoList, tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.yaml").write_text("epochs: 1\n")
    (tmp_path / "videos.json").write_text(content)
    with pytest.raises(ValueError, match=r"videos\.json"):
        about_evaluation(tmp_path, str(videos.source), "test", videos, PROTOCOLS["paper"], 1, 1)


def test_each_frame_is_decoded_once(videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    one_by_one = VideoReader.one_by_one

    def counting(self: VideoReader, indices: Sequence[int]) -> Iterator[torch.Tensor]:
        asked.extend(indices)
        return one_by_one(self, indices)

    monkeypatch.setattr(VideoReader, "one_by_one", counting)
    load_views(videos.items[0].path, PREPROCESSING, clips=8, crops=3)
    assert len(asked) == len(set(asked)) > 8


def test_a_model_without_a_head_classifies_nothing() -> None:
    with pytest.raises(ValueError, match="a model without a head can't classify"):
        VideoClassifier(timesformer.create_model("timesformer_tiny", num_classes=0, depth=1))


@pytest.mark.parametrize(("clips", "crops", "batch_size"), [(1, 1, 4), (3, 1, 8), ("cover", 1, 16)])
def test_several_processes_score_exactly_as_one(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path, clips: Clips, crops: int, batch_size: int
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    items = (*videos.items[:5], VideoItem(tmp_path / "broken.mp4", (0,)), *videos.items[5:10])  # 11: no multiple of 3
    some = replace(videos, items=items)
    arguments = (model, some, PREPROCESSING, clips, crops, batch_size)
    address = f"file://{tmp_path / 'meeting'}"
    torch.multiprocessing.spawn(_evaluate_share, (arguments, address, tmp_path), nprocs=3)
    alone = evaluate(model, some, PREPROCESSING, clips=clips, crops=crops, batch_size=batch_size, workers=0)
    seen = []
    for rank in range(3):
        with (tmp_path / f"{rank}.pickle").open("rb") as file:
            together, mine = pickle.load(file)
        np.testing.assert_array_equal(together.scores, alone.scores)
        assert (together.items, together.bad) == (alone.items, alone.bad)
        assert len(alone.items) == 10
        seen.append(mine)
    assert sum(seen) == 11, "each video is read once"
    assert min(seen) > 0


def _evaluate_share(rank: int, arguments: Any, address: str, out: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=3)
    model, videos, preprocessing, clips, crops, batch_size = arguments
    seen: list[None] = []
    result = evaluate(
        model, videos, preprocessing,
        clips=clips, crops=crops, batch_size=batch_size, workers=0, on_video=lambda: seen.append(None),
    )  # fmt: skip
    with (out / f"{rank}.pickle").open("wb") as file:
        pickle.dump((result, len(seen)), file)
    distributed.leave()


def test_the_command_under_torchrun_writes_what_it_writes_alone(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path
) -> None:
    model.preprocessing, model.classes = PREPROCESSING.to_dict(), videos.classes
    model.save_pretrained(tmp_path / "model")
    model.preprocessing = model.classes = None
    command = ["timesformer", "evaluate", str(tmp_path / "model"), "--data", str(videos.source), "--out"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for out, how in (("one", ["-m"]), ("two", launch)):
        done = subprocess.run(
            [sys.executable, *how, *command, str(tmp_path / out)],
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("top1") == 1, "one process speaks"
    for name in ("predictions.csv", "metrics.json", "confusion.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_batches_are_halved_where_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            if len(clips) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            sizes.append(len(clips))
            return clips.mean(dim=(2, 3, 4))

    views = torch.randint(0, 256, (11, 2, 8, 8, 3), dtype=torch.uint8)
    logits = view_logits(Small(), views, PREPROCESSING, batch_size=8)
    assert sizes == [2, 2, 2, 2, 2, 1]
    assert "memory ran out with 8 views at a time: going on with 4" in caplog.text
    expected = torch.cat([view_logits(Small(), view[None], PREPROCESSING) for view in views])
    torch.testing.assert_close(logits, expected)

    class Broken(Small):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        view_logits(Broken(), views, PREPROCESSING)


def test_usual_batches_are_of_like_pixels() -> None:
    def batch(frames: int, size: int) -> int:
        return usual_batch(Preprocessing(frames, 1, "clip", size))

    assert (batch(8, 224), batch(96, 224), batch(16, 448), batch(8, 32)) == (16, 1, 2, 64)


def test_a_prepared_classifier_says_the_same(videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path) -> None:
    model.preprocessing = PREPROCESSING.to_dict()
    model.classes = videos.classes
    model.save_pretrained(tmp_path / "model")
    model.preprocessing, model.classes = None, None
    classifier = VideoClassifier.from_pretrained(tmp_path / "model")
    paths = [item.path for item in videos.items]
    plain = torch.stack([classifier.scores(path) for path in paths])
    for dtype, apart in (("float32", 1e-5), ("bfloat16", 0.03), ("int8", 0.05)):
        fast = classifier.prepared(dtype, calibration=paths[:8])  # type: ignore[arg-type]
        assert fast.classes == videos.classes
        assert (torch.stack([fast.scores(path) for path in paths]) - plain).abs().max() < apart
    out = tmp_path / "out.json"
    command = ["evaluate", str(tmp_path / "model"), "--data", str(videos.source), "--dtype", "int8", "--json", str(out)]
    assert main([*command, "--calibrate", str(videos.source)]) == 0
    assert json.loads(out.read_text())["videos"] == 16
    assert main(command) == 1, "8 bits need videos to be set by"


def evaluation(predicted: Sequence[int], labels: Sequence[int], classes: int) -> Evaluation:
    """Of scores whose highest is the prediction."""
    scores = np.full((len(labels), classes), 0.1, np.float32)
    scores[np.arange(len(labels)), predicted] = 0.9
    items = tuple(VideoItem(Path(f"{number}.mp4"), (label,)) for number, label in enumerate(labels))
    return Evaluation(tuple("abcdefg"[:classes]), items, scores, False, ())


def test_mean_class_accuracy_is_the_mean_over_classes() -> None:
    """Of classes of 6, 2, 1 and 0 videos: a mean over videos is another number, and so is one over all four."""
    labels = [0, 0, 0, 0, 0, 0, 1, 1, 2]
    predicted = [0, 0, 0, 0, 0, 2, 1, 0, 3]
    summary = evaluation(predicted, labels, 4).summary()
    assert summary["top1"] == pytest.approx(6 / 9)
    assert summary["mean_class_accuracy"] == pytest.approx((5 / 6 + 1 / 2 + 0) / 3)
    assert summary["per_class"] == {"a": pytest.approx(5 / 6), "b": 0.5, "c": 0.0, "d": None}


def test_mean_class_accuracy_is_scikit_learns_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.choice(5, size=40, p=[0.5, 0.25, 0.15, 0.07, 0.03]).tolist()
        predicted = rng.choice(5, size=40, p=[0.4, 0.3, 0.1, 0.1, 0.1]).tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of predicted classes without a video
            expected = balanced_accuracy_score(labels, predicted)
        summary = evaluation(predicted, labels, 5).summary()
        assert summary["mean_class_accuracy"] == pytest.approx(expected)
        assert summary["top1"] == pytest.approx(accuracy_score(labels, predicted))
