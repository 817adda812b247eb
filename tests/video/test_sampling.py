from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from timesformer.video import sampling

lengths = st.integers(1, 2000)
frames = st.integers(1, 100)
strides = st.one_of(st.integers(1, 64), st.floats(0.05, 64))
seeds = st.integers(0, 2**32)


def assert_valid(indices: sampling.Indices, n: int, num_frames: int) -> None:
    assert indices.dtype == np.int64
    assert indices.shape[-1] == num_frames
    assert indices.min() >= 0
    assert indices.max() <= n - 1
    assert (np.diff(indices, axis=-1) >= 0).all()


@given(lengths, frames, strides, st.integers(1, 12), seeds)
def test_indices_are_in_range_and_in_order(n: int, f: int, stride: float, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for clip in (
        sampling.random_clip(n, f, stride, rng),
        sampling.centre_clip(n, f, stride),
        sampling.random_segments(n, f, rng),
        sampling.centre_segments(n, f),
    ):
        assert clip.shape == (f,)
        assert_valid(clip, n, f)
    uniform = sampling.uniform_clips(n, f, stride, k)
    assert uniform.shape == (k, f)
    assert_valid(uniform, n, f)
    assert_valid(sampling.covering_clips(n, f, stride), n, f)


@given(frames, st.integers(1, 64), st.integers(0, 500), seeds)
def test_stride_is_kept_when_the_video_is_long_enough(f: int, stride: int, spare: int, seed: int) -> None:
    n = f * stride + spare
    for clip in (
        sampling.random_clip(n, f, stride, np.random.default_rng(seed)),
        sampling.centre_clip(n, f, stride),
        *sampling.uniform_clips(n, f, stride, 3),
        sampling.covering_clips(n, f, stride)[0],
    ):
        assert (np.diff(clip) == stride).all()
        assert clip[0] + f * stride <= n


@given(lengths, frames, strides)
@example(n=122, f=14, stride=64)  # where i * (n / F) in floating point falls short of a whole number
def test_short_video_is_covered_whole(n: int, f: int, stride: float) -> None:
    if f * stride < n:
        stride = math.ceil(n / f)
    expected = [i * n // f for i in range(f)]
    assert sampling.centre_clip(n, f, stride).tolist() == expected
    assert sampling.random_clip(n, f, stride, np.random.default_rng(0)).tolist() == expected
    assert sampling.covering_clips(n, f, stride)[0].tolist() == expected
    if n >= f:
        assert len(set(expected)) == f


@given(frames, st.integers(1, 64), st.integers(0, 500))
def test_centre_clip_is_centred(f: int, stride: int, spare: int) -> None:
    n = f * stride + spare
    before = int(sampling.centre_clip(n, f, stride)[0])
    after = n - (before + f * stride)
    assert after - before in (0, 1)


def test_random_starts_are_uniform_and_reach_both_ends() -> None:
    rng = np.random.default_rng(0)
    starts = Counter(int(sampling.random_clip(41, 8, 4, rng)[0]) for _ in range(10_000))
    assert sorted(starts) == list(range(10))
    assert all(abs(count - 1000) < 150 for count in starts.values())  # five standard deviations


def test_random_indices_depend_on_the_generator_alone() -> None:
    def draw(seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        return [*sampling.random_clip(1000, 8, 4, rng), *sampling.random_segments(1000, 8, rng)]

    assert draw(3) == draw(3) != draw(4)


def test_uniform_clips_spread_from_the_first_start_to_the_last() -> None:
    assert sampling.uniform_clips(300, 8, 32, 5)[:, 0].tolist() == [0, 11, 22, 33, 44]
    assert (sampling.uniform_clips(300, 8, 32, 1) == sampling.centre_clip(300, 8, 32)).all()
    assert (sampling.uniform_clips(301, 8, 32, 3)[1] == sampling.centre_clip(301, 8, 32)).all()


@given(lengths, frames, strides)
def test_covering_clips_tile_the_video(n: int, f: int, stride: float) -> None:
    clips = sampling.covering_clips(n, f, stride)
    span = max(1, f * stride)
    starts = clips[:, 0].tolist()
    *full, last = range(len(clips))
    assert starts[:last] == [math.floor(k * span) for k in full], "the spans lie side by side from frame 0"
    assert len(set(starts)) == len(starts)
    for clip, end in zip(clips[:-1], starts[1:-1], strict=False):
        assert clip[-1] < end or stride < 1
    assert n - starts[-1] < span + stride + 1, "only a rest shorter than a stride joins the last clip"
    if starts[-1] != math.floor(last * span):
        assert n - math.floor(last * span) < f, "what is left holds fewer frames than a clip"
        assert starts[-1] == n - max(1, math.floor(span)), "so that the last clip ends with the video"


def test_covering_clips_in_numbers() -> None:
    assert sampling.covering_clips(16, 4, 2).tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert sampling.covering_clips(17, 4, 2).tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert sampling.covering_clips(14, 4, 2).tolist() == [[0, 2, 4, 6], [8, 9, 11, 12]]
    assert sampling.covering_clips(2, 4, 2).tolist() == [[0, 0, 1, 1]]
    assert sampling.covering_clips(3, 1, 0.25).tolist() == [[0], [1], [2]]
    assert len(sampling.covering_clips(256, 8, 32 * 29.97 / 30)) == 1  # NTSC: no clip of one frame at the end
    assert len(sampling.covering_clips(48 * 256, 8, 32)) == 48  # Table 8


@given(lengths, frames, seeds)
def test_segments_follow_the_released_rule(n: int, f: int, seed: int) -> None:
    segment = (n - 1) / f
    random = sampling.random_segments(n, f, np.random.default_rng(seed))
    centre = sampling.centre_segments(n, f)
    for i in range(f):
        first, last = round(segment * i), round(segment * (i + 1))
        assert first <= random[i] <= last
        assert centre[i] == (first + last) // 2


def test_random_segments_reach_both_edges() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([sampling.random_segments(41, 8, rng) for _ in range(500)])
    assert drawn.min(0).tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
    assert drawn.max(0).tolist() == [5, 10, 15, 20, 25, 30, 35, 40]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampling.centre_clip(0, 8, 4), "n must be at least 1, got 0"),
        (lambda: sampling.covering_clips(9, 0, 4), "num_frames must be at least 1, got 0"),
        (lambda: sampling.uniform_clips(9, 8, 4, -1), "num_clips must be at least 1, got -1"),
        (lambda: sampling.uniform_clips(9, 8, 0, 2), "stride must be a finite number above 0, got 0"),
        (lambda: sampling.centre_clip(9, 8, math.nan), "stride must be a finite number above 0, got nan"),
        (lambda: sampling.centre_segments(0, 8), "n must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


@given(n=st.integers(1, 300), num_frames=st.integers(1, 40), num_clips=st.integers(1, 12))
def test_clips_of_segments_lie_evenly_in_them(n: int, num_frames: int, num_clips: int) -> None:
    clips = sampling.uniform_segments(n, num_frames, num_clips)
    assert clips.shape == (num_clips, num_frames)
    edges = np.round(np.arange(num_frames + 1) * (n - 1) / num_frames)
    assert (clips >= edges[:-1]).all()
    assert (clips <= edges[1:]).all()
    expected = edges[:-1] + np.diff(edges) * (np.arange(num_clips)[:, None] + 0.5) / num_clips
    assert np.abs(clips - expected).max() < 1
    assert np.array_equal(sampling.uniform_segments(n, num_frames, 1)[0], sampling.centre_segments(n, num_frames))


def test_sliding_and_covering_clips_by_their_definition() -> None:
    """Clips start at 0, hop, 2 hop, ...; the last one sees the end; none repeats a frame of a video that has enough."""
    for n, f, stride, hop in itertools.product(range(1, 41), (1, 2, 3, 4, 8), (1, 2, 3, 5), (1, 2, 4, 7, 8, 24)):
        span = f * stride
        case = f"n={n}, F={f}, stride={stride}, hop={hop}"
        clips = sampling.sliding_clips(n, f, stride, hop).tolist()
        assert [clip[0] for clip in clips[:-1]] == [hop * k for k in range(len(clips) - 1)], case
        for clip in clips[:-1]:
            assert clip == list(range(clip[0], clip[0] + span, stride)), case
            assert clip[0] + span < n, f"{case}: it is not the last that sees the end"
        last = clips[-1]
        regular = hop * (len(clips) - 1)
        left = n - regular
        assert left <= span, f"{case}: the last sees the end"
        if left == span:
            assert last == list(range(regular, n, stride)), case
        elif len(clips) == 1 or left >= max(f, stride):
            assert last == [regular + i * left // f for i in range(f)], f"{case}: the stride shrinks to what is left"
        else:
            assert last == list(range(n - span, n, stride)), f"{case}: too little is left: it ends with the video"
        if n >= f:
            assert all(len(set(clip)) == f for clip in clips), f"{case}: {clips}"
            assert all(len(set(clip)) == f for clip in sampling.covering_clips(n, f, stride).tolist()), case
        if hop == span and (n % span == 0 or n % span >= stride or n < span):
            assert clips == sampling.covering_clips(n, f, stride).tolist(), case


@given(n=lengths, f=frames, stride=strides, hop=st.integers(1, 80))
def test_sliding_clips_of_any_stride_are_valid(n: int, f: int, stride: float, hop: int) -> None:
    clips = sampling.sliding_clips(n, f, stride, hop)
    assert_valid(clips, n, f)
    starts = clips[:, 0].tolist()
    assert starts[:-1] == [hop * k for k in range(len(clips) - 1)]
    assert all(a < b for a, b in itertools.pairwise(starts))


def test_sliding_clips_in_numbers() -> None:
    assert sampling.sliding_clips(10, 4, 1, 2).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert sampling.sliding_clips(11, 2, 2, 4).tolist() == [[0, 2], [4, 6], [8, 9]]
    assert sampling.sliding_clips(3, 4, 1, 5).tolist() == [[0, 0, 1, 2]]
    assert sampling.sliding_clips(257, 8, 32, 256).tolist() == [list(range(0, 256, 32)), list(range(1, 257, 32))]
    assert sampling.covering_clips(10, 4, 2).tolist() == [[0, 2, 4, 6], [2, 4, 6, 8]]
    with pytest.raises(ValueError, match="hop must be at least 1, got 0"):
        sampling.sliding_clips(9, 4, 1, 0)


def test_spread_clips_in_numbers() -> None:
    """The released rule's own example, and others by its words: spans in time, starts at k/K of what is beside them."""
    assert sampling.spread_clips(300, 8, 32, 1, 30).tolist() == [[0, 36, 72, 109, 145, 182, 218, 255]]
    assert sampling.spread_clips(300, 8, 32, 2, 30)[:, 0].tolist() == [0, 22]  # half of 44
    assert sampling.spread_clips(300, 8, 32, 4, 30)[:, -1].tolist() == [255, 266, 277, 288]
    assert sampling.spread_clips(100, 4, 10, 2, 15).tolist() == [[0, 6, 12, 19], [40, 46, 52, 59]]  # a span of 20
    assert sampling.spread_clips(100, 4, 10, 1, 60).tolist() == [[0, 26, 52, 79]]  # of 80
    assert sampling.spread_clips(10, 4, 10, 2, 30).tolist() == [[0, 9, 9, 9]] * 2  # no room beside it
    assert sampling.spread_clips(41, 4, 10, 2, 30).tolist() == [[0, 13, 26, 39], [0, 13, 26, 39]]
    assert sampling.spread_clips(42, 4, 10, 2, 30)[1].tolist() == [1, 14, 27, 40]
    assert sampling.spread_clips(5, 4, 0.25, 2, 30).tolist() == [[0, 0, 0, 0], [2, 2, 2, 2]]  # a span of one frame


@given(
    n=st.integers(1, 400),
    f=st.integers(1, 20),
    stride=st.integers(1, 40),
    k=st.integers(1, 6),
    fps=st.sampled_from([8, 15, 25, 30, 60]),
)
def test_spread_clips_are_the_released_rule(n: int, f: int, stride: int, k: int, fps: int) -> None:
    span = f * stride * fps / 30
    clips = sampling.spread_clips(n, f, stride, k, fps)
    assert clips.shape == (k, f)
    for number in range(k):
        start = max(n - span, 0) * number / k
        for place in range(f):
            exact = start + (span - 1) * (place / (f - 1) if f > 1 else 0)
            exact = min(max(exact, 0), n - 1)
            assert abs(exact - 0.5 - clips[number, place]) <= 0.5 + 1e-6, "rounded down"


@pytest.mark.parametrize("fps", [0, -1, math.inf, math.nan])
def test_a_rate_that_is_none_is_named(fps: float) -> None:
    with pytest.raises(ValueError, match=f"^fps must be a finite number above 0, got {fps}$"):
        sampling.spread_clips(9, 8, 4, 2, fps)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: sampling.random_clip(0, 8, 4, np.random.default_rng(0)), "n"),
        (lambda: sampling.random_clip(8, 0, 4, np.random.default_rng(0)), "num_frames"),
        (lambda: sampling.random_clip(8, 8, 0, np.random.default_rng(0)), "stride"),
        (lambda: sampling.centre_clip(8, 0, 4), "num_frames"),
        (lambda: sampling.uniform_clips(0, 8, 4, 1), "n"),
        (lambda: sampling.uniform_clips(8, 0, 4, 1), "num_frames"),
        (lambda: sampling.uniform_clips(8, 8, 4, 0), "num_clips"),
        (lambda: sampling.spread_clips(0, 8, 4, 1, 30), "n"),
        (lambda: sampling.spread_clips(8, 0, 4, 1, 30), "num_frames"),
        (lambda: sampling.spread_clips(8, 8, 4, 0, 30), "num_clips"),
        (lambda: sampling.spread_clips(8, 8, math.inf, 1, 30), "stride"),
        (lambda: sampling.covering_clips(0, 8, 4), "n"),
        (lambda: sampling.covering_clips(8, 8, math.inf), "stride"),
        (lambda: sampling.sliding_clips(0, 8, 4, 1), "n"),
        (lambda: sampling.sliding_clips(8, 0, 4, 1), "num_frames"),
        (lambda: sampling.sliding_clips(8, 8, -1, 1), "stride"),
        (lambda: sampling.random_segments(0, 8, np.random.default_rng(0)), "n"),
        (lambda: sampling.random_segments(8, 0, np.random.default_rng(0)), "num_frames"),
        (lambda: sampling.centre_segments(8, 0), "num_frames"),
        (lambda: sampling.uniform_segments(8, 8, 0), "num_clips"),
        (lambda: sampling.uniform_segments(0, 8, 1), "n"),
    ],
)
def test_every_count_is_checked_by_every_function(call: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()
