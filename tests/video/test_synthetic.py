"""Generated videos: what the classes are, and what they must not show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from timesformer.video.synthetic import Frames, Task, class_names, render, write_dataset, write_video


def clip(task: Task, label: int, seed: int = 0, num_frames: int = 32) -> Frames:
    return render(task, label, np.random.default_rng(seed), num_frames=num_frames)


def bag(frames: Frames) -> Counter[bytes]:
    return Counter(frame.tobytes() for frame in frames)


def decode(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("seed", range(5))
def test_motion_classes_are_orders_of_the_same_frames(seed: int) -> None:
    clips = [clip("motion", label, seed) for label in range(8)]
    for one in clips[1:]:
        assert bag(one) == bag(clips[0])
    assert len({one.tobytes() for one in clips}) == 8


def test_motion_backwards_swaps_every_factor() -> None:
    """Up to the places of the two middle acts: a clip backwards shows the hand before the wedge."""
    backwards = clip("motion", 0)[::-1]
    other = clip("motion", 7)
    np.testing.assert_array_equal(backwards[:4], other[:4])
    np.testing.assert_array_equal(backwards[4:16], other[16:28])
    np.testing.assert_array_equal(backwards[16:28], other[4:16])
    np.testing.assert_array_equal(backwards[28:], other[28:])


def test_motion_coding_keeps_the_frames_exchangeable(tmp_path: Path) -> None:
    for label in (0, 7):
        write_video(tmp_path / f"{label}.mp4", clip("motion", label), fps=16)
    assert bag(decode(tmp_path / "0.mp4")) == bag(decode(tmp_path / "7.mp4"))


@pytest.mark.parametrize("label", range(8))
def test_motion_shows_what_its_name_says(label: int) -> None:
    direction, rotation, order = class_names("motion")[label].split("_")
    for seed in range(20):
        frames = clip("motion", label, seed).astype(float)
        red, blue = (frames[:, 24:40, 24:40, channel].mean((1, 2)) for channel in (0, 2))
        assert ("redfirst" if red[0] > blue[0] else "bluefirst") == order
        assert (red[31] > blue[31]) != (red[0] > blue[0])

        light = frames.mean(-1)[::4]  # as sampled by a clip of 8 frames
        profiles = light[1:4, 26:38].mean(1)
        x = [np.angle(np.exp(2j * np.pi * np.arange(64) / 64) @ profile) for profile in profiles]
        assert ("right" if steps(x).mean() > 0 else "left") == direction
        y, x_ = np.mgrid[-31.5:32, -31.5:32]
        turn = np.exp(1j * np.arctan2(y, x_)) * (np.hypot(y, x_) < 24)
        angle = [np.angle((turn * image).sum()) for image in light[4:7]]
        assert ("clockwise" if steps(angle).mean() > 0 else "counterclockwise") == rotation
        assert np.abs(steps(x)).max() < 1.3  # well under half a period, pi
        assert np.abs(steps(angle)).max() < 1.0


def steps(phases: list[float]) -> np.ndarray:
    return (np.diff(phases) + np.pi) % (2 * np.pi) - np.pi


@pytest.mark.parametrize("task", ["appearance", "shapes"])
def test_appearance_is_in_every_frame(task: Task) -> None:
    """Clips of two classes with the same chances differ in every frame, and there in one place alone."""
    names = class_names(task)
    for label, other in ((0, 1), (0, 2), (3, 7)):
        one, two = (clip(task, which, seed=5).astype(int) for which in (label, other))
        colours: list[list[np.ndarray]] = [[], []]
        for frame, changed in zip(one, two, strict=True):
            mask = abs(frame - changed).max(-1) > 0
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert mask.sum() > 20
            assert max(np.ptp(rows), np.ptp(columns)) < 0.75 * 64, "the clutter is the same"
            assert min(rows[0], columns[0], 63 - rows[-1], 63 - columns[-1]) >= 0
            for seen, picture in zip(colours, (frame, changed), strict=True):
                seen.append(picture[mask].mean(0))
        same_colour = names[label].split("_")[0] == names[other].split("_")[0]
        apart = np.abs(np.mean(colours[0], 0) - np.mean(colours[1], 0)).max()
        assert same_colour or apart > 60


def test_steps_are_told_by_their_order_over_long_times() -> None:
    """Every row flashes in both colours, the class says which first, and rows differ in the time between."""
    apart: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for label in range(8):
        frames = clip("steps", label, seed=label, num_frames=96).astype(int)
        for row in range(3):
            band = frames[:, 22 * row : 22 * row + 20]
            red = (band[..., 0] - band[..., 2] > 90).any((1, 2))
            blue = (band[..., 2] - band[..., 0] > 90).any((1, 2))
            assert red.sum() == blue.sum() == 4
            first_red, first_blue = red.argmax(), blue.argmax()
            assert (first_blue < first_red) == bool(label >> (2 - row) & 1)
            apart[row].append(abs(int(first_blue) - int(first_red)))
    assert max(apart[0]) <= 14
    assert 22 <= min(apart[1]) <= max(apart[1]) <= 28
    assert min(apart[2]) >= 60


@pytest.mark.parametrize(("size", "num_frames"), [(16, 8), (32, 9), (48, 13), (96, 33)])
def test_sizes(size: int, num_frames: int) -> None:
    for label in range(8):
        frames = render("motion", label, np.random.default_rng(0), size, num_frames)
        assert frames.shape == (num_frames, size, size, 3)
        assert frames.dtype == np.uint8


def test_dataset(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = write_dataset(
        tmp_path / "new" / "data",
        "motion",
        train=16,
        val=8,
        test=0,
        fps=12,
        progress=lambda *at: seen.append(at),
    )
    assert seen == [(done, 24) for done in range(1, 25)]
    assert [path.name for path in folder.parent.iterdir()] == ["data"]
    assert tuple((folder / "classes.txt").read_text().splitlines()) == class_names("motion")
    assert not (folder / "test.csv").exists()
    lines = [line.split() for line in (folder / "train.csv").read_text().splitlines()]
    assert Counter(label for _, label in lines) == {str(label): 2 for label in range(8)}
    for path, label in lines:
        assert path.startswith(class_names("motion")[int(label)] + "/")
        with av.open(str(folder / path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate, stream.width) == ("h264", 12, 64)
        assert len(decode(folder / path)) == 32
    expected = render("motion", 3, np.random.default_rng([0, 0, 3])).astype(float)
    assert np.abs(decode(folder / lines[3][0]) - expected).mean() < 6


def test_same_seed_same_pixels_and_a_larger_split_extends(tmp_path: Path) -> None:
    sizes = {"a": (8, 1), "b": (16, 1), "c": (8, 2)}
    for name, (train, seed) in sizes.items():
        write_dataset(tmp_path / name, "appearance", train=train, val=0, test=0, seed=seed)
    path = (tmp_path / "a" / "train.csv").read_text().split()[0]
    a, b, c = (decode(tmp_path / name / path) for name in sizes)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_errors_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'dance' is unknown; allowed: appearance, motion, shapes, steps"):
        write_dataset(tmp_path / "x", "dance")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="63, 32; allowed: an even size"):
        write_dataset(tmp_path / "x", "motion", size=63)
    with pytest.raises(ValueError, match="-1"):
        write_dataset(tmp_path / "x", "motion", test=-1)
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    with pytest.raises(FileExistsError, match="full: exists already"):
        write_dataset(tmp_path / "full", "motion")
    assert (tmp_path / "full" / "precious").exists()
