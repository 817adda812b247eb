"""Scores over time, from files and from streams."""

from __future__ import annotations

import csv
import json
import math
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import timesformer
from timesformer.cli import main
from timesformer.evaluation.timeline import Timeline, timeline
from timesformer.evaluation.views import load_views, view_logits
from timesformer.predictor import VideoClassifier
from timesformer.video.decode import VideoReader
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_video

PREPROCESSING = Preprocessing(num_frames=4, stride=2, sampling="clip", image_size=32)


@pytest.fixture(scope="module")
def classifier() -> VideoClassifier:
    torch.manual_seed(0)
    model = timesformer.create_model(
        num_classes=3, num_frames=4, image_size=32, patch_size=16, embed_dim=24, depth=2, num_heads=3
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.classes = ("run", "jump", "sit")
    model.preprocessing = PREPROCESSING.to_dict()
    return VideoClassifier(model)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "long.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (50, 40, 64, 3), dtype=np.uint8), fps=10)
    return path


def test_clips_side_by_side_are_those_that_cover_a_video(classifier: VideoClassifier, video: Path) -> None:
    found = timeline(classifier, video)
    views = load_views(video, PREPROCESSING, "cover")
    np.testing.assert_allclose(found.scores, view_logits(classifier.model, views, PREPROCESSING).softmax(-1), atol=1e-5)
    assert found.times[:, 0].tolist() == pytest.approx([0, 0.8, 1.6, 2.4, 3.2, 4.0, 4.2])
    assert found.times[:, 1].tolist() == pytest.approx([0.8, 1.6, 2.4, 3.2, 4.0, 4.8, 5.0])


def test_each_frame_is_decoded_once(classifier: VideoClassifier, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = VideoReader.one_by_one

    def one_by_one(self: VideoReader, indices: list[int]) -> Iterator[torch.Tensor]:
        asked.extend(indices)
        return plain(self, indices)

    monkeypatch.setattr(VideoReader, "one_by_one", one_by_one)
    found = timeline(classifier, video, hop=3)
    assert len(found.scores) == 15
    assert len(asked) == len(set(asked)) > 40
    assert asked == sorted(asked)


def test_segments_are_runs_of_clips() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.6], [0.2, 0.7], [0.6, 0.1]], np.float32)
    times = np.array([[0, 2], [1, 3], [2, 4], [3, 5]], float)
    found = Timeline("x", ("a", "b"), times, scores).segments(0.5)
    assert [(part.label, part.start, part.end) for part in found] == [("a", 0, 3), ("b", 1, 4), ("a", 3, 5)]
    assert found[0].score == pytest.approx(0.85)
    longer = np.stack([times[:, 0], times[:, 0] + 4], axis=1)  # clips 1 and 3 overlap
    found = Timeline("x", ("a", "b"), longer, scores).segments(0.5)
    assert [(part.label, part.start, part.end) for part in found] == [("a", 0, 7), ("b", 1, 6)]


def test_the_command(
    classifier: VideoClassifier, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier.model.save_pretrained(tmp_path / "model")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    command = ["predict", str(tmp_path / "model"), str(tmp_path / "broken.mp4"), str(video), "--timeline"]
    assert main([*command, "--out", str(out), "--hop", "4", "--threshold", "0.3", "--json", "-"]) == 1
    broken, result = json.loads(capsys.readouterr().out)
    assert "broken.mp4" in broken["error"]
    rows = list(csv.DictReader((out / "long.mp4.csv").open()))
    assert len(rows) == len(result["clips"]) == 12
    assert float(rows[1]["start"]) == 0.4
    assert result == json.loads((out / "long.mp4.json").read_text())
    assert Image.open(out / "long.mp4.png").width > 1000
    assert main([*command[:2], str(video), "--timeline", "--out", str(out)]) == 0
    assert " s to " in capsys.readouterr().out
    (tmp_path / "other").mkdir()
    same = tmp_path / "other" / video.name
    shutil.copy(video, same)
    assert main([*command[:2], str(video), str(same), "--timeline", "--out", str(tmp_path / "both")]) != 0
    assert "long.mp4: two videos have this name" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def frames(count: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    return (rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(count))


def test_a_stream_is_labelled_as_its_latest_clip_would_be(classifier: VideoClassifier, tmp_path: Path) -> None:
    found = list(classifier.stream(frames(20), hop=3, top=2))
    assert [number for number, _ in found] == [8, 11, 14, 17, 20]
    for number, labels in found:
        assert len(labels) == 2
        folder = tmp_path / str(number)
        folder.mkdir()
        for index, frame in enumerate(list(frames(20))[number - 8 : number]):
            Image.fromarray(frame).save(folder / f"{index}.png")
        expected = classifier.predict(folder, top=2)
        assert [label for label, _ in labels] == [label for label, _ in expected]
        assert [score for _, score in labels] == pytest.approx([score for _, score in expected], abs=2e-3)


def test_labels_come_at_once_and_memory_is_bounded(classifier: VideoClassifier) -> None:
    given = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal given
        while True:
            given += 1
            yield np.zeros((48, 64, 3), np.uint8)

    stream = classifier.stream(endless(), hop=5)
    for expected in (8, 13, 18):
        number, _ = next(stream)
        assert number == given == expected, "no frame is waited for"
    tracemalloc.start()
    for _ in range(20):
        next(stream)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(100):
        next(stream)
    assert tracemalloc.get_traced_memory()[0] - before < 200_000
    tracemalloc.stop()


def test_short_and_wrong_streams(classifier: VideoClassifier) -> None:
    assert [number for number, _ in classifier.stream(frames(5))] == [5]
    assert list(classifier.stream(frames(0))) == []
    with pytest.raises(ValueError, match=r"frame of torch.float32, \(4, 4, 3\): expected uint8"):
        list(classifier.stream([torch.zeros(4, 4, 3)]))
    for hop in (-1, 0):
        with pytest.raises(ValueError, match=f"hop={hop}"):
            list(classifier.stream(frames(3), hop=hop))


def test_a_stream_takes_colours_turned_round_and_read_only_frames(classifier: VideoClassifier) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 40, 64, 3), dtype=np.uint8)
    expected = list(classifier.stream(frames))
    turned = list(classifier.stream(frame[:, :, ::-1] for frame in frames[:, :, :, ::-1].copy()))
    from_a_pipe = list(
        classifier.stream(np.frombuffer(frame.tobytes(), np.uint8).reshape(40, 64, 3) for frame in frames)
    )
    assert expected == turned == from_a_pipe


def test_segments_do_not_reach_over_what_was_not_seen() -> None:
    times = np.array([[0, 1], [3, 4], [4, 5.0]])
    scores = np.array([[0.9], [0.9], [0.9]], np.float32)
    found = Timeline("a.mp4", ("run",), times, scores).segments()
    assert [(segment.start, segment.end) for segment in found] == [(0, 1), (3, 5)]


@pytest.mark.parametrize("clips", [1, 3])
def test_the_picture_shows_every_clip_and_names_every_curve(clips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("timesformer.evaluation.timeline.save_figure", lambda _, figure: drawn.append(figure))
    times = np.stack([np.arange(clips), np.arange(clips) + 1.0], axis=1)
    scores = np.random.default_rng(0).random((clips, 2), np.float32)
    Timeline("a.mp4", ("_idle", "run"), times, scores).draw(Path("a.png"))
    curves = drawn[0].axes[0]
    legend = curves.get_legend()
    assert legend is not None
    assert sorted(text.get_text() for text in legend.get_texts()) == ["_idle", "run"]
    for curve in curves.patches:
        assert isinstance(curve, StepPatch)
        assert curve.get_data().edges.tolist() == [*range(clips), clips]


def test_names_are_no_formulas(classifier: VideoClassifier, video: Path, tmp_path: Path) -> None:
    odd = shutil.copy(video, tmp_path / r"a$\foo$.mp4")
    timeline(classifier, odd).write(tmp_path / "line")
    assert (tmp_path / "line.png").exists()


class Brightest(nn.Module):
    """Classes `first`, `second` and `third` for clips whose channel of that number is the brightest."""

    def __init__(self, colour: str, multi_label: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(num_classes=3)
        self.classes, self.multi_label = ("first", "second", "third"), multi_label
        self.preprocessing = replace(PREPROCESSING, colour=colour).to_dict()  # type: ignore[arg-type]
        self.batches: list[int] = []

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(clips))
        return clips.mean(dim=(2, 3, 4))


@pytest.fixture(scope="module")
def red_then_blue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 red frames of 40 x 64 px, then 16 blue ones, at 10 a second."""
    frames = np.full((32, 40, 64, 3), 30, np.uint8)
    frames[:16, ..., 0] = 220
    frames[16:, ..., 2] = 220
    path = tmp_path_factory.mktemp("colours") / "red_then_blue.mp4"
    write_video(path, frames, fps=10)
    return path


@pytest.mark.parametrize(("colour", "red", "blue"), [("RGB", "first", "third"), ("BGR", "third", "first")])
def test_a_timeline_has_the_models_order_of_colours(red_then_blue: Path, colour: str, red: str, blue: str) -> None:
    model: Any = Brightest(colour)
    found = timeline(VideoClassifier(model), red_then_blue)
    best = [found.classes[number] for number in found.scores.argmax(axis=1)]
    assert best == [red, red, blue, blue]
    streamed = VideoClassifier(model).stream(np.full((8, 40, 64, 3), (220, 30, 30), np.uint8))
    assert [labels[0][0] for _, labels in streamed] == [red]


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_of_a_timeline_by_hand(red_then_blue: Path, multi_label: bool) -> None:
    """Of the mean of each colour; every clip in its place, however many go through the model at a time."""
    model: Any = Brightest("RGB", multi_label)
    done: list[tuple[int, int]] = []
    found = timeline(
        VideoClassifier(model), red_then_blue, hop=1, on_clip=lambda number, total: done.append((number, total))
    )
    assert found.path == str(red_then_blue)
    assert len(found.times) == 25, "from the one that starts with the first frame to the one that ends with the last"
    np.testing.assert_allclose(found.times, [[k / 10, k / 10 + 0.8] for k in range(25)], atol=1e-6)
    assert done[-1] == (25, 25)
    assert sum(model.batches) == 25
    for k, scores in enumerate(found.scores):
        red = sum(k + step < 16 for step in (0, 2, 4, 6)) / 4  # share of the clip's frames
        means = [30 + 190 * red, 30, 30 + 190 * (1 - red)]
        logits = [(mean / 255 - 0.45) / 0.225 for mean in means]
        if multi_label:
            expected = [1 / (1 + math.exp(-logit)) for logit in logits]
        else:
            expected = [math.exp(logit) / sum(map(math.exp, logits)) for logit in logits]
        np.testing.assert_allclose(scores, expected, atol=0.05)


def test_clips_are_scored_a_batch_at_a_time(red_then_blue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer.evaluation.timeline.usual_batch", lambda _: 4)
    model: Any = Brightest("RGB")
    done: list[tuple[int, int]] = []
    found = timeline(VideoClassifier(model), red_then_blue, hop=4, on_clip=lambda *numbers: done.append(numbers))
    assert model.batches == [4, 3]
    assert done == [(4, 7), (7, 7)]
    assert len(found.scores) == 7


def test_what_is_written_of_a_timeline(tmp_path: Path) -> None:
    times = np.array([[0, 0.5], [0.25, 0.75]])
    scores = np.array([[0.1234567, 0.9], [0.5, 0.3]], np.float32)
    Timeline("a.mp4", ("run", "sit"), times, scores).write(tmp_path / "line.of")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["line.of.csv", "line.of.json", "line.of.png"]
    assert json.loads((tmp_path / "line.of.json").read_text()) == {
        "video": "a.mp4",
        "classes": ["run", "sit"],
        "clips": [
            {"start": 0, "end": 0.5, "scores": [0.123457, 0.9]},
            {"start": 0.25, "end": 0.75, "scores": [0.5, 0.3]},
        ],
        "threshold": 0.5,
        "segments": [
            {"label": "sit", "start": 0, "end": 0.5, "score": pytest.approx(0.9)},
            {"label": "run", "start": 0.25, "end": 0.75, "score": 0.5},
        ],
    }
    assert (tmp_path / "line.of.csv").read_text().splitlines() == [
        "start,end,run,sit", "0.000,0.500,0.123457,0.900000", "0.250,0.750,0.500000,0.300000",
    ]  # fmt: skip


def test_usual_thresholds_are_a_half() -> None:
    times = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    line = Timeline("a.mp4", ("run",), times, np.array([[0.5], [0.49], [0.51]], np.float32))
    assert [(part.start, part.end) for part in line.segments()] == [(0, 1), (4, 5)]
    assert line.to_json()["threshold"] == 0.5
    assert len(line.to_json()["segments"]) == 2


def test_segments_of_one_start_are_in_the_order_of_names() -> None:
    times = np.array([[0.0, 1.0], [0.5, 1.5]])
    line = Timeline("a.mp4", ("sit", "run", "jump"), times, np.array([[1, 1, 0], [0, 0, 1]], np.float32))
    assert [(part.start, part.label) for part in line.segments()] == [(0, "run"), (0, "sit"), (0.5, "jump")]


def test_neighbours_that_touch_go_on_and_others_that_touch_do_not() -> None:
    """Side by side, two clips are one stretch; but not where the clip between them scores low."""
    times = np.array([[0.0, 1.0], [0.5, 1.5], [1.0, 2.0]])
    touching = Timeline("a.mp4", ("run",), times[[0, 2]], np.ones((2, 1), np.float32))
    assert [(part.start, part.end) for part in touching.segments()] == [(0, 2)]
    parted = Timeline("a.mp4", ("run",), times, np.array([[1], [0], [1]], np.float32))
    assert [(part.start, part.end) for part in parted.segments()] == [(0, 1), (1, 2)]


def test_a_stretch_is_as_long_as_its_clips_go_on() -> None:
    """Side by side, overlapping, and one that lies within another: each goes on from the clip before it."""
    ones = np.ones((4, 1), np.float32)
    for times, expected in (
        ([[0, 1], [1, 2], [2, 3], [3, 4]], [(0, 4)]),
        ([[0, 2], [1, 3], [2, 4], [3, 5]], [(0, 5)]),
        ([[0, 1], [1, 2], [2.5, 3], [3, 4]], [(0, 2), (2.5, 4)]),
    ):
        found = Timeline("a.mp4", ("run",), np.array(times, float), ones).segments()
        assert [(part.start, part.end) for part in found] == expected


@pytest.mark.parametrize(("stride", "clips"), [(0.25, 8), (0.5, 8), (1, 8), (2, 4), (3, 3)])
def test_clips_of_one_frame_lie_side_by_side(tmp_path: Path, stride: float, clips: int) -> None:
    """A span of less than a frame counts as one: of 8 frames, as many clips as spans."""
    for number in range(8):
        Image.fromarray(np.full((32, 32, 3), 30 * number, np.uint8)).save(tmp_path / f"{number}.png")
    model: Any = Brightest("RGB")
    model.preprocessing = Preprocessing(1, stride, "clip", 32).to_dict()
    found = timeline(VideoClassifier(model), tmp_path)
    assert len(found.times) == clips
    span = max(1, stride)
    *starts, last = range(clips)
    # Where less than a span is left for the last clip, it is the last whole span of the video. Images last 1/30 second.
    expected = [*(span * k for k in starts), min(span * last, 8 - span)]
    np.testing.assert_allclose(found.times[:, 0], np.array(expected) / 30)
    np.testing.assert_allclose(found.times[:, 1], (np.array(expected) + span) / 30)
