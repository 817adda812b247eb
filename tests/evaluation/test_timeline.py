"""Scores over time, from files and from streams."""

from __future__ import annotations

import csv
import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

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
