"""Which frames of a video make a clip: pure functions from counts to frame indices.

A clip of F frames at stride τ spans F·τ source frames, one sample for every τ of them. A video shorter
than that span is covered whole: the stride shrinks to n/F, and frames repeat only where n < F. Throughout,
`n` is the number of frames of the video, `stride` may be fractional, and the indices are int64, in 0..n-1
and non-decreasing. Every function raises ValueError for a count below 1 or a stride that is not a finite
number above 0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def random_clip(n: int, num_frames: int, stride: float, rng: np.random.Generator) -> Indices:
    """A clip at a start uniform over all that leave room for its span: (F,). For training (Appendix A)."""
    _check(n=n, num_frames=num_frames, stride=stride)
    start = int(rng.integers(0, _last_start(n, num_frames, stride), endpoint=True))
    return start + _offsets(n, num_frames, stride)


def centre_clip(n: int, num_frames: int, stride: float) -> Indices:
    """The clip whose span is in the middle of the video: (F,). For testing with one clip."""
    _check(n=n, num_frames=num_frames, stride=stride)
    return _last_start(n, num_frames, stride) // 2 + _offsets(n, num_frames, stride)


def uniform_clips(n: int, num_frames: int, stride: float, num_clips: int) -> Indices:
    """K clips, their starts spread evenly from the first to the last possible: (K, F).

    K = 1 is the centre clip. Clips overlap, or repeat, where the video is shorter than K spans (Figure 6).
    """
    _check(n=n, num_frames=num_frames, stride=stride, num_clips=num_clips)
    if num_clips == 1:
        return centre_clip(n, num_frames, stride)[None]
    starts = np.arange(num_clips) * _last_start(n, num_frames, stride) // (num_clips - 1)
    return starts[:, None] + _offsets(n, num_frames, stride)


def spread_clips(n: int, num_frames: int, stride: float, num_clips: int, fps: float) -> Indices:
    """K clips as the released code takes them: (K, F).

    A clip spans F·τ frames at 30 frames a second, so F·τ·fps/30 of this video; its frames are spread evenly from the
    first to the last of these, rounded down. Clip k starts at k/K of the frames beside a clip. At 30 fps, 8 frames at
    stride 32 are 0, 36, 72, 109, 145, 182, 218, 255.
    """
    _check(n=n, num_frames=num_frames, stride=stride, num_clips=num_clips)
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be a finite number above 0, got {fps}")
    span = num_frames * stride * fps / 30
    starts = max(n - span, 0.0) * np.arange(num_clips) / num_clips
    places = starts[:, None] + np.linspace(0, span - 1, num_frames)
    return places.clip(0, n - 1).astype(np.int64)


def covering_clips(n: int, num_frames: int, stride: float) -> Indices:
    """As many clips as tile the whole video, their spans side by side: (K, F). For long videos (Table 8).

    Clip k spans the frames from its first index up to the first index of clip k + 1, the last clip up to
    the end. What is left after the full spans gets a clip of its own, at a stride shrunk to fit, or, where fewer than
    F frames are left, the last clip that fits into the video. A rest shorter than one stride, too short for one more
    sample, stays with the clip before it.
    """
    _check(n=n, num_frames=num_frames, stride=stride)
    span = max(1, num_frames * stride)  # below one frame, neighbouring clips would be the same
    num_clips = max(1, math.floor((n - stride) / span) + 1)
    starts = (np.arange(num_clips) * span).astype(np.int64).tolist()
    return _clips_from(starts, n, num_frames, stride, least=1)


def sliding_clips(n: int, num_frames: int, stride: float, hop: int) -> Indices:
    """Clips that start at 0, `hop`, 2 `hop`, ... until one sees the end of the video: (K, F). For timelines.

    Where less than a span is left for the last clip, its stride shrinks to fit; where that is fewer than F frames, or
    than one stride, the last clip is the last one that fits into the video. So no clip repeats a frame unless the video
    is shorter than a span.
    """
    _check(n=n, num_frames=num_frames, stride=stride, hop=hop)
    span = max(1, num_frames * stride)
    starts = [0]
    while starts[-1] + span < n:
        starts.append(starts[-1] + hop)
    return _clips_from(starts, n, num_frames, stride, least=stride)


def _clips_from(starts: list[int], n: int, num_frames: int, stride: float, least: float) -> Indices:
    """Clips at these starts; the last one starts earlier where it would have fewer than F frames, or than `least`."""
    span = max(1, math.floor(num_frames * stride))
    if len(starts) > 1 and n - starts[-1] < max(min(num_frames, span), least):
        starts = [*starts[:-1], n - span]
    return np.stack([start + _offsets(n - start, num_frames, stride) for start in starts])


def random_segments(n: int, num_frames: int, rng: np.random.Generator) -> Indices:
    """A random frame from each of F equal segments of the video: (F,). For training on SSv2."""
    edges = _segment_edges(n, num_frames)
    return rng.integers(edges[:-1], edges[1:], endpoint=True)


def centre_segments(n: int, num_frames: int) -> Indices:
    """The middle frame of each of F equal segments of the video: (F,). For testing on SSv2."""
    edges = _segment_edges(n, num_frames)
    return (edges[:-1] + edges[1:]) // 2


def uniform_segments(n: int, num_frames: int, num_clips: int) -> Indices:
    """K clips of a frame from each of F equal segments, at the middles of K equal parts of it: (K, F).

    K = 1 is `centre_segments`.
    """
    _check(num_clips=num_clips)
    edges = _segment_edges(n, num_frames)
    parts = 2 * np.arange(num_clips, dtype=np.int64)[:, None] + 1
    return edges[:-1] + (edges[1:] - edges[:-1]) * parts // (2 * num_clips)


def _offsets(n: int, num_frames: int, stride: float) -> Indices:
    """The F indices of a clip that starts at 0 in a video of n frames."""
    steps: Indices = np.arange(num_frames, dtype=np.int64)
    if num_frames * stride < n:
        return (steps * stride).astype(np.int64)
    # In integers: a product with the float n/F can fall just short of a whole number.
    return steps * n // num_frames


def _last_start(n: int, num_frames: int, stride: float) -> int:
    return max(0, math.floor(n - num_frames * stride))


def _segment_edges(n: int, num_frames: int) -> Indices:
    """The F + 1 edges of the segments, neighbours sharing theirs, as in the released code."""
    _check(n=n, num_frames=num_frames)
    return np.round(np.arange(num_frames + 1) * ((n - 1) / num_frames)).astype(np.int64)


def _check(*, stride: float = 1, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if not 0 < stride < math.inf:
        raise ValueError(f"stride must be a finite number above 0, got {stride}")
