from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timesformer.evaluation.protocols import PROTOCOLS
from timesformer.evaluation.views import load_views
from timesformer.video import sampling
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_video

BASE = Preprocessing(8, 32, "clip", 224)


def test_the_released_codes_frames() -> None:
    indices = PROTOCOLS["released"].indices(BASE, 300, 30, 1)
    assert indices.tolist() == [[0, 36, 72, 109, 145, 182, 218, 255]]
    assert PROTOCOLS["paper"].indices(BASE, 300, 30, 1).tolist() == [[22 + 32 * i for i in range(8)]]


def test_the_released_codes_clip_spans_the_same_time_at_any_rate() -> None:
    slow = PROTOCOLS["released"].indices(BASE, 1000, 15, 1)[0]
    assert slow[0] == 0
    assert slow[-1] == 127
    starts = PROTOCOLS["released"].indices(BASE, 256 + 100, 30, 4)[:, 0]
    assert starts.tolist() == [0, 25, 50, 75]


@given(
    n=st.integers(1, 2000),
    frames=st.integers(1, 32),
    stride=st.floats(0.5, 64),
    clips=st.integers(1, 6),
    fps=st.floats(5, 120),
)
def test_spread_clips_stay_inside(n: int, frames: int, stride: float, clips: int, fps: float) -> None:
    indices = sampling.spread_clips(n, frames, stride, clips, fps)
    assert indices.shape == (clips, frames)
    assert indices.min() >= 0
    assert indices.max() < n
    if frames * stride * fps / 30 >= 1:
        assert (np.diff(indices, axis=1) >= 0).all()
    assert (np.diff(indices[:, 0]) >= 0).all()


def test_segments_and_tiles_are_the_same_by_both() -> None:
    segments = Preprocessing(8, 32, "segments", 224)
    paper, released = PROTOCOLS["paper"], PROTOCOLS["released"]
    assert np.array_equal(paper.indices(segments, 90, 12, 1), released.indices(segments, 90, 12, 1))
    assert np.array_equal(paper.indices(BASE, 900, 12, "cover"), released.indices(BASE, 900, 12, "cover"))


def test_scores() -> None:
    logits = torch.tensor([[4.0, 0.0, 1.0], [0.0, 1.0, 1.5]])
    torch.testing.assert_close(PROTOCOLS["paper"].scores(logits), logits.softmax(1).mean(0))
    torch.testing.assert_close(PROTOCOLS["released"].scores(logits), logits.mean(0).softmax(0))
    torch.testing.assert_close(PROTOCOLS["released"].scores(logits, multi_label=True), logits.mean(0).sigmoid())
    torch.testing.assert_close(PROTOCOLS["paper"].scores(logits, multi_label=True), logits.sigmoid().mean(0))


def test_colours_in_the_models_order(tmp_path: Path) -> None:
    frames = np.zeros((8, 32, 32, 3), dtype=np.uint8)
    frames[..., 0] = 200
    write_video(tmp_path / "red.mp4", frames, fps=10)
    small = {"num_frames": 4, "stride": 1, "image_size": 32}
    for colour, red in (("RGB", 0), ("BGR", 2)):
        view = load_views(tmp_path / "red.mp4", Preprocessing(**small, colour=colour))  # type: ignore[arg-type]
        assert view.float().mean(dim=(0, 1, 2, 3)).argmax() == red
    with pytest.raises(ValueError, match="colour='GBR' is not one of RGB, BGR"):
        Preprocessing(colour="GBR")  # type: ignore[arg-type]
