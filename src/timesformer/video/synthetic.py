"""Small generated datasets of real H.264 files, for demonstrations, miniatures of experiments and tests.

Two tasks of eight classes each part what a model can see from what it must follow through time:

`appearance`
    Two shapes in four colours, before clutter. Every single frame shows the class; the motion is random and says
    nothing.

`motion`
    Three acts, each of which is played either as it was filmed or backwards, which is the class (2 x 2 x 2):
    a wedge drifts `right` or `left` (around the frame, from a random place, at a random speed), a hand turns
    `clockwise` or `counterclockwise` (from a random angle, at a random speed), and a lamp flashes red before
    the other two acts and blue after them (`redfirst`), or the other way round (`bluefirst`).

    The frames of a clip of one class, put in another order, are a clip of any other class, exactly: the acts
    are filmed, noise included, before the class is looked at, only one act is on stage at a time, and playing
    an act backwards reorders its frames. So the *unordered* frames of a clip have the same distribution under
    all eight classes, and a model that averages over frames cannot do better than chance, 1 in 8. With all
    acts on stage at once this would not hold: whether the wedge goes right while the hand goes clockwise
    shows in how their states correlate over the frames, whatever the order.

    The same is true of frames sampled evenly over the clip (or at random, symmetrically in time), as the
    first place and angle are uniform, if both flashes are sampled equally often: of 8 frames, 1 shows the
    first flash, 3 the wedge, 3 the hand, 1 the second flash. And it is true of the files, which code every
    frame by itself at a constant quantiser. (A frame known to be the first does tell the lamp's order.)

    Mirroring a clip turns right into left, and clockwise into counterclockwise: train without flips.

And two that stand for the paper's other data:

`shapes`
    As `appearance`, in sixteen classes of other shapes and colours: to train an image model on their frames.

`steps`
    Long videos. In each of three rows a lamp flashes red and, later, blue, or the other way round, which is the class
    (2 x 2 x 2). Between the two flashes lie about 8, 22 and 65 % of the video in the upper, middle and lower row: so a
    clip must span as much to tell a row's order, however many shorter clips are looked at.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
from numpy.typing import NDArray

Task = Literal["appearance", "motion", "shapes", "steps"]
Frames = NDArray[np.uint8]  # (F, H, W, 3) RGB
Floats = NDArray[np.floating]

RED, BLUE = (235.0, 40.0, 40.0), (50.0, 80.0, 245.0)

_COLOURS = {
    "red": RED, "blue": BLUE, "green": (40.0, 200.0, 60.0), "yellow": (240.0, 210.0, 50.0),
    "orange": (240.0, 140.0, 30.0), "cyan": (40.0, 210.0, 220.0), "magenta": (220.0, 50.0, 200.0),
    "white": (235.0, 235.0, 235.0),
}  # fmt: skip


def _names(*choices: Sequence[str]) -> tuple[str, ...]:
    return tuple("_".join(names) for names in itertools.product(*choices))


_CLASSES: dict[str, tuple[str, ...]] = {
    "appearance": _names(("red", "blue", "green", "yellow"), ("disc", "cross")),
    "motion": _names(("right", "left"), ("clockwise", "counterclockwise"), ("redfirst", "bluefirst")),
    "shapes": _names(("orange", "cyan", "magenta", "white"), ("ring", "square", "diamond", "bar")),
    "steps": _names(*[[f"{row}red", f"{row}blue"] for row in ("upper", "middle", "lower")]),
}


def class_names(task: Task) -> tuple[str, ...]:
    """The class names of a task, in the order of the labels. Raises ValueError for an unknown task."""
    if task not in _CLASSES:
        raise ValueError(f"task: {task!r} is unknown; allowed: {', '.join(get_args(Task))}")
    return _CLASSES[task]


def render(task: Task, label: int, rng: np.random.Generator, size: int = 64, num_frames: int = 32) -> Frames:
    """Draws one clip, uint8 (num_frames, size, size, 3) RGB. `rng` decides all that the label does not."""
    if not 0 <= label < len(class_names(task)):
        raise ValueError(f"label: {label} is outside 0..{len(class_names(task)) - 1}")
    if size < 16 or size % 2 or num_frames < 8:
        raise ValueError(f"size, num_frames: {size}, {num_frames}; allowed: an even size >= 16 and at least 8 frames")
    if task == "motion":
        return _motion(label, rng, size, num_frames)
    if task == "steps":
        return _steps(label, rng, size, num_frames)
    return _appearance(class_names(task)[label], rng, size, num_frames)


def write_dataset(
    folder: str | Path,
    task: Task,
    *,
    train: int = 480,
    val: int = 80,
    test: int = 80,
    size: int = 64,
    num_frames: int = 32,
    fps: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes CLASS/SPLIT_NUMBER.mp4, the lists train.csv, val.csv, test.csv (`path label`), and classes.txt.

    `train`, `val` and `test` are numbers of videos, spread evenly over the classes; a split of none has no
    list. The same arguments give the same videos, and a larger split begins with the videos of a smaller one.
    `progress(done, total)` is called after each video. The folder, which is returned, appears only when it is
    complete.
    Raises FileExistsError where there is something already, ValueError for arguments that cannot be.
    """
    folder, classes, counts = Path(folder), class_names(task), {"train": train, "val": val, "test": test}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: exists already; give a new or empty folder")
    if min(counts.values()) < 0 or fps < 1:
        raise ValueError(f"train, val, test, fps: {train}, {val}, {test}, {fps}; allowed: 0 or more, fps 1 or more")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    part.chmod(0o755)  # mkdtemp makes private folders
    try:
        (part / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
        for name in classes:
            (part / name).mkdir()
        done, total = 0, sum(counts.values())
        for number, (split, count) in enumerate(counts.items()):
            lines = []
            for index in range(count):
                label = index % len(classes)
                path = f"{classes[label]}/{split}_{index:05d}.mp4"
                rng = np.random.default_rng([seed, number, index])
                write_video(part / path, render(task, label, rng, size, num_frames), fps)
                lines.append(f"{path} {label}\n")
                done += 1
                if progress is not None:
                    progress(done, total)
            if lines:
                (part / f"{split}.csv").write_text("".join(lines))
        part.replace(folder)  # also replaces an empty folder
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def write_video(path: Path, frames: Frames, fps: int) -> None:
    """Writes uint8 (F, H, W, 3) frames of even height and width as H.264, each frame coded by itself."""
    with av.open(str(path), "w") as container:
        options = {"qp": "18", "g": "1", "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1  # threads cost more than so few pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _appearance(name: str, rng: np.random.Generator, size: int, num_frames: int) -> Frames:
    colour, shape = name.split("_")
    background = _clutter(rng, _background(rng, size))
    radius = size * rng.uniform(0.16, 0.3)
    margin = 1.1 * radius + 1  # the shape is never cut off
    first, last = rng.uniform(margin, size - margin, (2, 2))
    x, y = np.linspace(first, last, num_frames).T
    dx, dy = _offsets(size, x, y)
    mask = _soft(_outline(shape, dx / radius, dy / radius) * radius)
    shade = rng.uniform(0.6, 1)
    return _expose(rng, background, mask * shade, _COLOURS[colour])


def _clutter(rng: np.random.Generator, background: Floats) -> Floats:
    """Ten small boxes and bars of any colour on a background (H, W, 3), which are not what the class is about."""
    size = len(background)
    for _ in range(10):
        x, y = rng.uniform(0, size, (2, 1))
        width, height = size * rng.uniform(0.03, 0.14, 2)
        dx, dy = _offsets(size, x, y)
        mask = _soft(np.maximum(abs(dx) - width, abs(dy) - height))[0, ..., None] * rng.uniform(0.4, 0.9)
        background = background + mask * (rng.uniform(0, 255, 3).astype(np.float32) - background)
    return np.asarray(background, np.float32)


def _outline(shape: str, dx: Floats, dy: Floats) -> Floats:
    """Distance to a shape's outline, negative inside, from offsets to its middle; all in units of its radius."""
    long, short = np.maximum(abs(dx), abs(dy)), np.minimum(abs(dx), abs(dy))
    distances = {
        "disc": np.hypot(dx, dy) - 1,
        "cross": np.maximum(long - 1.1, short - 0.3),
        "ring": abs(np.hypot(dx, dy) - 0.8) - 0.25,
        "square": long - 0.8,
        "diamond": (abs(dx) + abs(dy) - 1.1) / np.sqrt(2),
        "bar": np.maximum(abs(dx) - 1.1, abs(dy) - 0.3),
    }
    return np.asarray(distances[shape])


def _steps(label: int, rng: np.random.Generator, size: int, num_frames: int) -> Frames:
    background = _background(rng, size)
    flash = max(2, num_frames // 24)
    frames = np.repeat(background[None], num_frames, axis=0)
    for row, (least, most) in enumerate([(0.06, 0.1), (0.2, 0.25), (0.6, 0.7)]):
        colours = (RED, BLUE) if not label >> (2 - row) & 1 else (BLUE, RED)
        apart = flash + round(num_frames * rng.uniform(least, most))
        first = rng.integers(0, num_frames - apart - flash + 1)
        x, y = size * rng.uniform(0.2, 0.8, 1), size * np.array([(1 + 2 * row) / 6])
        mask = _soft(np.hypot(*_offsets(size, x, y)) - size / 7)[0, ..., None]
        for start, colour in zip((first, first + apart), colours, strict=True):
            frames[start : start + flash] += mask * (np.array(colour, np.float32) - frames[start : start + flash])
    return _noisy(rng, frames)


def _motion(label: int, rng: np.random.Generator, size: int, num_frames: int) -> Frames:
    flash = num_frames // 8
    drifting = (num_frames - 2 * flash) // 2
    turning = num_frames - 2 * flash - drifting
    background = _background(rng, size)
    acts = (
        _drift(rng, background, drifting),
        _turn(rng, background, turning),
        _lamp(rng, background, flash),
    )
    backwards = ((label >> 2) & 1, (label >> 1) & 1, label & 1)  # the order of itertools.product
    drift, turn, lamp = (act[::-1] if back else act for act, back in zip(acts, backwards, strict=True))
    return np.concatenate([lamp[:flash], drift, turn, lamp[flash:]])


# The wedge and the hand shade off on one side. Played forwards a patch lights up at once and fades; backwards
# it brightens slowly and goes dark: time attention, which compares a place with itself, sees it in one patch.


def _drift(rng: np.random.Generator, background: Floats, num_frames: int) -> Frames:
    """A wedge, bright at its right end, goes right: by 15 to 20 % of the width in a third of the act."""
    size = len(background)
    x = _travel(rng, num_frames, 0.45, 0.6) * size
    dx, dy = _offsets(size, x, np.full(num_frames, rng.uniform(0.4, 0.6) * size))
    tail = -dx / size % 1  # 0 at the head, 1 just before it, as the tail goes all the way round
    return _expose(rng, background, _soft(abs(dy) - 0.4 * size) * (1 - tail), _colour(rng))


def _turn(rng: np.random.Generator, background: Floats, num_frames: int) -> Frames:
    """A hand with a fading trail, as on a radar, turns clockwise: by 36 to 48 degrees a third of the act."""
    size = len(background)
    angle = _travel(rng, num_frames, 0.3, 0.4)
    x, y = rng.uniform(0.47 * size, 0.53 * size, (2, 1))
    dx, dy = _offsets(size, x, y)
    turned = np.arctan2(dy, dx) / (2 * np.pi)  # in turns; clockwise, as y points down
    trail = (angle[:, None, None] - turned) % 1
    return _expose(rng, background, _soft(np.hypot(dx, dy) - 0.46 * size) * (1 - trail), _colour(rng))


def _lamp(rng: np.random.Generator, background: Floats, flash: int) -> Frames:
    """A large lamp, red for `flash` frames and then blue for as many."""
    size = len(background)
    x, y = rng.uniform(0.4 * size, 0.6 * size, (2, 1))
    mask = _soft(np.hypot(*_offsets(size, x, y)) - 0.35 * size).repeat(flash, axis=0)
    return np.concatenate([_expose(rng, background, mask, colour) for colour in (RED, BLUE)])


def _travel(rng: np.random.Generator, num_frames: int, least: float, most: float) -> NDArray[np.float64]:
    """Phases (F,) in periods: a uniform first one, then even steps; `least` to `most` periods in F frames."""
    return rng.uniform() + np.arange(num_frames) * rng.uniform(least, most) / num_frames


def _offsets(size: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Signed distances (F, H, W) in px from points x, y (F,) to each pixel, the shorter way on the torus."""
    grid = np.arange(size) + 0.5
    dx, dy = (((grid - at[:, None] + size / 2) % size - size / 2).astype(np.float32) for at in (x, y))
    shape = (len(x), size, size)
    return np.broadcast_to(dx[:, None, :], shape), np.broadcast_to(dy[:, :, None], shape)


def _soft(distance: Floats) -> Floats:
    """A mask in 0..1 with an edge one pixel wide, from signed distances to the edge."""
    return np.asarray(np.clip(0.5 - distance, 0, 1))


def _colour(rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(255 - rng.uniform(0, 80, 3))


def _background(rng: np.random.Generator, size: int) -> Floats:
    """A dark (H, W, 3) that blends four random corner colours."""
    corners = rng.uniform(0, 60, (2, 2, 3))
    ramp = np.linspace(0, 1, size)
    weights = np.stack([1 - ramp, ramp])
    return np.asarray(np.einsum("ijc,ih,jw->hwc", corners, weights, weights), np.float32)


def _expose(rng: np.random.Generator, background: Floats, mask: Floats, colour: tuple[float, ...]) -> Frames:
    """Blends `colour` over the background (H, W, 3) by the mask (F, H, W), adds noise: uint8 (F, H, W, 3)."""
    frames = background + mask[..., None] * (np.array(colour, np.float32) - background)
    return _noisy(rng, frames)


def _noisy(rng: np.random.Generator, frames: Floats) -> Frames:
    """Adds noise to (F, H, W, 3), in place; returns it as uint8."""
    frames += rng.integers(-8, 9, frames.shape, dtype=np.int8)
    return np.clip(frames, 0, 255).astype(np.uint8)
