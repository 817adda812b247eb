"""Views of long videos, part by part: the same as all at once, in memory that does not grow with the video."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from timesformer.evaluation import views as view_module
from timesformer.evaluation.bulk import BulkJob, rows_of
from timesformer.evaluation.evaluate import evaluate
from timesformer.evaluation.features import video_features
from timesformer.evaluation.protocols import PROTOCOLS
from timesformer.evaluation.views import load_views, view_parts
from timesformer.model.base import VideoConfig, VideoModel
from timesformer.predictor import ClassifierSource, VideoClassifier
from timesformer.video.decode import VideoError, VideoReader
from timesformer.video.items import VideoItem, VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_video

SIZE = 64
LONG = Preprocessing(num_frames=8, stride=1, image_size=SIZE)
SMALL = Preprocessing(num_frames=4, stride=2, image_size=224)  # 32 views at a time, so that a test is quick


_OTHERS = ("predict", "features", "bulk")


class Grey(VideoModel):
    """Features are means of the clip's colours; it notes the memory that is in use when it runs."""

    architecture = "grey"

    def __init__(self) -> None:
        super().__init__()
        self.config = VideoConfig(num_classes=3, num_frames=8, image_size=SIZE)
        self.head = nn.Identity()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[int] = []

    def forward(self, clip: Tensor) -> Tensor:
        self.seen.append(resident())
        return clip.mean(dim=(2, 3, 4)) * self.weight

    features = forward


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Made:
    """A reader of frames that are made as they are asked for: `<n>.mp4` has n of them, frame i of grey i % 251."""

    fps = 30.0

    def __init__(self, path: Any, **_: Any) -> None:
        self.count = int(Path(path).stem)

    def __len__(self) -> int:
        return self.count

    def one_by_one(self, indices: Sequence[int]) -> Iterator[Tensor]:
        return (torch.full((SIZE, SIZE, 3), int(index) % 251, dtype=torch.uint8) for index in indices)

    def frames(self, indices: Sequence[int]) -> Tensor:
        return torch.stack(list(self.one_by_one(indices)))

    def __enter__(self) -> Made:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Source(ClassifierSource):
    """A classifier that is there already."""

    def __init__(self, classifier: VideoClassifier) -> None:
        object.__setattr__(self, "classifier", classifier)
        super().__init__("grey")

    def plain(self) -> VideoClassifier:
        classifier: VideoClassifier = self.classifier  # type: ignore[attr-defined]
        return classifier


def _outputs(how: str, model: Grey, path: Path) -> np.ndarray:
    videos = VideoList((VideoItem(path, (0,)),), ("a", "b", "c"), False, path.parent)
    classifier = VideoClassifier(model, preprocessing=LONG)
    if how == "predict":
        return classifier.scores(path, clips="cover").numpy()
    if how == "evaluate":
        return evaluate(model, videos, LONG, clips="cover", workers=0).scores[0]
    if how == "features":
        return video_features(model, videos, LONG, clips="cover", workers=0)[0].values[0]
    job = BulkJob(Source(classifier), (path,), "features", clips="cover", workers=0)
    return np.array(rows_of(job)[0]["features"])


@pytest.fixture
def large_blocks_go_back() -> Iterator[None]:
    """Let the C library return blocks from 64 KiB up when they are freed, so that memory in use is what is needed."""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is read from /proc")
    mallopt, threshold = ctypes.CDLL(None).mallopt, -3
    mallopt(threshold, 2**16)
    yield
    mallopt(threshold, 2**25)


@pytest.mark.usefixtures("large_blocks_go_back")
@pytest.mark.parametrize("how", ["evaluate", *(pytest.param(how, marks=pytest.mark.slow) for how in _OTHERS)])
def test_memory_does_not_grow_with_a_covered_video(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "VideoReader", Made)
    peaks = {}
    for count in (4000, 4008, 16000):  # the first warms up: what was freed is in pieces by then, and taken again
        gc.collect()
        model = Grey()
        outputs = _outputs(how, model, Path(f"{count}.mp4"))
        peaks[count] = max(model.seen)
        frames = np.arange(count) % 251
        means = torch.tensor([(frames[k : k + 8].mean() / 255 - 0.45) / 0.225 for k in range(0, count, 8)])
        logits = means[:, None].expand(-1, 3).float()
        expected = logits.mean(0) if how in ("features", "bulk") else logits.softmax(1).mean(0)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert peaks[16000] < 1.05 * peaks[4008], {count: f"{peak / 2**20:.0f} MiB" for count, peak in peaks.items()}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "long.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (90, 24, 40, 3), dtype=np.uint8), fps=10)
    return path


@pytest.mark.parametrize(("clips", "crops", "sampling"), [("cover", 1, "clip"), (7, 3, "clip"), (5, 3, "segments")])
@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_parts_are_the_views_in_turn(video: Path, clips: Any, crops: int, sampling: Any, protocol: str) -> None:
    preprocessing = Preprocessing(num_frames=4, stride=2, image_size=24, sampling=sampling, colour="BGR")
    chosen = PROTOCOLS[protocol]
    whole = load_views(video, preprocessing, clips, crops, protocol=chosen)
    with VideoReader(video, short_side=24) as reader:  # by the definition: each clip's frames, each crop's columns
        indices = chosen.indices(preprocessing, len(reader), reader.fps, clips)
        frames = torch.stack([reader.frames(clip) for clip in indices]).flip(-1)
    places = [8] if crops == 1 else [0, 8, 16]
    expected = torch.stack([frames[:, :, :, left : left + 24] for left in places], dim=1).flatten(0, 1)
    assert torch.equal(whole, expected)
    for at_most in (1, 6, 7):
        parts = list(view_parts(video, preprocessing, clips, crops, at_most=at_most, protocol=chosen))
        assert torch.equal(torch.cat([part.views for part in parts]), whole)
        assert [part.left for part in parts] == list(range(len(parts)))[::-1]
        assert all(len(part.views) <= max(at_most, crops) for part in parts)
        later = view_parts(video, preprocessing, clips, crops, at_most=at_most, start=1, protocol=chosen)
        assert torch.equal(torch.cat([part.views for part in later]), torch.cat([part.views for part in parts[1:]]))


@pytest.mark.parametrize("keep_aspect", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_parts_are_scaled_as_the_preprocessing_says(video: Path, interpolation: Any, keep_aspect: bool) -> None:
    preprocessing = Preprocessing(
        4, 2, "clip", 16, "BGR", short_side=20, interpolation=interpolation, keep_aspect=keep_aspect
    )
    smaller = 20 if interpolation == "bilinear" else None  # which decoders do as they read, and nothing else
    with VideoReader(video, short_side=smaller) as reader:
        frames = torch.cat([reader.frames(clip) for clip in preprocessing.view_indices(len(reader), 5)])
    planes, sides = frames.permute(0, 3, 1, 2), (20, round(20 * 40 / 24)) if keep_aspect else (20, 20)
    if planes.shape[-2:] != sides:
        planes = nn.functional.interpolate(planes, sides, mode=interpolation, antialias=True)
    left = (sides[1] - 16) // 2
    expected = planes[..., 2:18, left : left + 16].permute(0, 2, 3, 1).flip(-1).unflatten(0, (5, 4))
    parts = list(view_parts(video, preprocessing, 5, at_most=2))
    assert [len(part.views) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.views for part in parts]), expected)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """Videos of 38, 2 and 75 clips of `SMALL`, of which 32 go through a model at a time."""
    folder = tmp_path_factory.mktemp("many")
    generator = np.random.default_rng(1)
    for name, count in (("a", 300), ("b", 16), ("c", 600)):
        write_video(folder / f"{name}.mp4", generator.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8), fps=10)
    items = tuple(VideoItem(folder / f"{name}.mp4", (number,)) for number, name in enumerate("abc"))
    return VideoList(items, ("a", "b", "c"), False, folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_long_and_short_videos_in_turn(many: VideoList, workers: int) -> None:
    model = Grey()
    result = evaluate(model, many, SMALL, clips="cover", workers=workers)
    for item, scores in zip(many.items, result.scores, strict=True):
        whole = load_views(item.path, SMALL, "cover").float().mean(dim=(1, 2, 3)) / 255
        logits = (whole - 0.45) / 0.225
        np.testing.assert_allclose(scores, logits.softmax(1).mean(0), atol=1e-5)
    assert len(result.scores) == 3


def _breaks_late(monkeypatch: pytest.MonkeyPatch, name: str, fail: Any) -> None:
    """Make decoding fail late in the video of this name."""
    plain = VideoReader.one_by_one

    def one_by_one(self: VideoReader, indices: Sequence[int]) -> Iterator[Tensor]:
        for index, frame in zip(indices, plain(self, indices), strict=True):
            if index > 280 and Path(str(self.path)).name == name:
                fail(self.path)
            yield frame

    monkeypatch.setattr(VideoReader, "one_by_one", one_by_one)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_is_damaged_late_is_left_out_whole(
    many: VideoList, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Any) -> None:
        raise VideoError(f"{path}: is damaged")

    _breaks_late(monkeypatch, "a.mp4", fail)
    result = evaluate(Grey(), many, SMALL, clips="cover", workers=workers)
    assert [item.path.name for item in result.items] == ["b.mp4", "c.mp4"]
    assert [bad.reason for bad in result.bad] == [f"{many.items[0].path}: is damaged"]
    features, bad = video_features(Grey(), many, SMALL, clips="cover", workers=workers)
    assert [Path(path).name for path in features.paths] == ["b.mp4", "c.mp4"]
    assert len(bad) == 1
    job = BulkJob(
        Source(VideoClassifier(Grey(), preprocessing=SMALL)),
        tuple(item.path for item in many.items), "labels", clips="cover", workers=workers,
    )  # fmt: skip
    rows = rows_of(job)
    assert [row["error"] for row in rows] == [f"{many.items[0].path}: is damaged", None, None]
    assert rows[0]["labels"] is None


def test_a_decoder_that_dies_late_costs_one_video(many: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    _breaks_late(monkeypatch, "a.mp4", lambda path: os._exit(3))
    result = evaluate(Grey(), many, SMALL, clips="cover", workers=1)
    assert [item.path.name for item in result.items] == ["b.mp4", "c.mp4"]
    assert "kills the process" in result.bad[0].reason
    assert str(many.items[0].path) in result.bad[0].reason
