"""Views of a video against indices and crops worked out by hand, and their way through a model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from timesformer.evaluation.protocols import PROTOCOLS
from timesformer.evaluation.views import in_batches, load_views, to_clips, usual_batch, view_logits
from timesformer.video.decode import VideoReader
from timesformer.video.preprocessing import Preprocessing

SMALL = Preprocessing(num_frames=2, stride=3, sampling="clip", image_size=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve frames of 8 x 20 px without loss: red is the column, green the row, blue ten times the frame."""
    for number in range(12):
        frame = np.zeros((8, 20, 3), np.uint8)
        frame[..., 0], frame[..., 1], frame[..., 2] = np.arange(20)[None, :], np.arange(8)[:, None], 10 * number
        Image.fromarray(frame).save(tmp_path / f"{number:02}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("clips", "crops", "frames", "lefts"),
    [
        (1, 1, [[3, 6]], [6]),
        (3, 1, [[0, 3], [3, 6], [6, 9]], [6]),
        (2, 3, [[0, 3], [6, 9]], [0, 6, 12]),
        ("cover", 1, [[0, 3], [6, 9]], [6]),
    ],
)
def test_views_by_hand(folder: Path, clips: Any, crops: int, frames: list[list[int]], lefts: list[int]) -> None:
    """Clips of a span of 6 frames, 6 left over; crops of the 12 columns left over; crops within clips."""
    views = load_views(folder, SMALL, clips, crops)
    assert views.dtype == torch.uint8
    assert views.shape == (len(frames) * len(lefts), 2, 8, 8, 3)
    expected = [(clip, left) for clip in frames for left in lefts]
    for view, (numbers, left) in zip(views, expected, strict=True):
        for picture, number in zip(view, numbers, strict=True):
            assert torch.equal(picture[..., 2], torch.full((8, 8), 10 * number, dtype=torch.uint8))
            assert picture[0, :, 0].tolist() == list(range(left, left + 8))
            assert picture[:, 0, 1].tolist() == list(range(8))


def test_one_clip_and_one_crop_are_the_usual(folder: Path) -> None:
    assert torch.equal(load_views(folder, SMALL), load_views(folder, SMALL, 1, 1))
    assert torch.equal(load_views(folder, SMALL), load_views(folder, SMALL, protocol=PROTOCOLS["paper"]))


def test_clips_are_where_the_protocol_has_them(folder: Path) -> None:
    """By the released rule clip k of K starts at k/K of what is left over, in time: a folder has 30 frames a second."""
    with VideoReader(folder) as reader:
        span = 6 * reader.fps / 30
    views = load_views(folder, SMALL, 2, protocol=PROTOCOLS["released"])
    starts = [0, int((12 - span) / 2)]
    assert (views[:, 0, 0, 0, 2] // 10).tolist() == starts


def test_the_reader_is_asked_for_small_frames_by_so_many_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    plain = VideoReader.__init__

    def init(self: VideoReader, path: Any, **options: Any) -> None:
        asked.append(options)
        plain(self, path, **options)

    monkeypatch.setattr(VideoReader, "__init__", init)
    load_views(folder, SMALL)
    load_views(folder, SMALL, num_threads=3)
    assert asked == [{"short_side": 8, "num_threads": 0}, {"short_side": 8, "num_threads": 3}]


def test_clips_are_normalised_views(folder: Path) -> None:
    views = load_views(folder, SMALL, 2)
    clips = to_clips(views, SMALL)
    assert clips.dtype == torch.float32
    assert clips.shape == (2, 3, 2, 8, 8)
    for v, c, f, y, x in ((0, 0, 0, 1, 2), (1, 2, 1, 7, 0), (1, 1, 0, 5, 5)):
        assert clips[v, c, f, y, x].item() == pytest.approx(
            (views[v, f, y, x, c].item() / 255 - 0.45) / 0.225, abs=1e-5
        )


@pytest.mark.parametrize(
    ("frames", "size", "batch"),
    [
        (8, 224, 16),
        (8, 448, 4),
        (16, 224, 8),
        (96, 224, 1),
        (128, 224, 1),
        (129, 224, 1),
        (4, 112, 64),
        (8, 112, 64),
        (16, 112, 32),
        (9, 224, 14),
        (8, 113, 62),
    ],
)
def test_batches_have_like_pixels(frames: int, size: int, batch: int) -> None:
    """As many as 16 views of 8 frames of 224 px have, rounded down; at least 1 and at most 64."""
    assert usual_batch(Preprocessing(frames, 1, "clip", size)) == batch


class Means(nn.Module):
    """The mean of each colour, in float64, for at most `most` clips at a time."""

    def __init__(self, most: int = 99, error: Callable[[], Exception] = MemoryError) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def forward(self, clips: Tensor) -> Tensor:
        if len(clips) > self.most:
            raise self.error()
        self.sizes.append(len(clips))
        return (self.weight * clips).double().mean(dim=(2, 3, 4))


def some(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 2, 4, 4, 3), dtype=np.uint8))


def means(views: Tensor) -> Tensor:
    return torch.tensor([[((view[..., c].double() / 255 - 0.45) / 0.225).mean() for c in range(3)] for view in views])


def test_views_go_through_in_their_order_and_batches() -> None:
    model = Means()
    logits = view_logits(model, some(7), SMALL, batch_size=3)
    assert model.sizes == [3, 3, 1]
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    torch.testing.assert_close(logits, means(some(7)).float(), atol=1e-5, rtol=0)
    model = Means()
    view_logits(model, some(20), SMALL)
    assert model.sizes == [16, 4]
    doubled = in_batches(model, lambda clips: 2 * model(clips), some(2), SMALL, 1)
    torch.testing.assert_close(doubled, 2 * means(some(2)).float(), atol=1e-5, rtol=0)
    bare = nn.Flatten()  # has no parameters, and so no device
    assert view_logits(bare, some(2), SMALL).shape == (2, 3 * 2 * 4 * 4)


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_batches_are_halved_as_often_as_need_be(
    error: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    model = Means(1, error)
    with caplog.at_level(logging.WARNING):
        logits = view_logits(model, some(5), SMALL, batch_size=4)
    assert model.sizes == [1] * 5
    torch.testing.assert_close(logits, means(some(5)).float(), atol=1e-5, rtol=0)
    assert [record.message for record in caplog.records] == [
        f"memory ran out with {size} views at a time: going on with {size // 2}" for size in (4, 2)
    ]


def test_what_halving_does_not_help_is_raised() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        view_logits(Means(0, lambda: torch.OutOfMemoryError("CUDA out of memory")), some(4), SMALL)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        view_logits(Means(2, lambda: RuntimeError("shapes do not fit")), some(4), SMALL)


def test_nothing_is_kept_for_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    enabled: list[bool] = []
    monkeypatch.setattr(
        Preprocessing, "normalize", lambda self, view: (enabled.append(torch.is_grad_enabled()), view.float())[1]
    )
    view_logits(nn.Flatten(), some(1), SMALL)
    assert enabled == [False]
