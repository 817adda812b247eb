"""What a classifier looks at in a video, as a strip of frames or a film: `timesformer explain`."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from numpy.typing import NDArray

from timesformer.evaluation.protocols import PROTOCOLS
from timesformer.evaluation.views import load_views, view_logits
from timesformer.explain.overlay import COLOURS, overlay
from timesformer.explain.rollout import Fusion, class_relevance, rollout
from timesformer.files import replace_file, save_figure
from timesformer.fonts import runs
from timesformer.model.timesformer import TimeSformer
from timesformer.outputs import check_output
from timesformer.predictor import VideoClassifier
from timesformer.text import shown
from timesformer.video.decode import VideoReader
from timesformer.video.preprocessing import Preprocessing

_FILM = 300  # frames of a film, at most
_STRIP = 8  # frames of a strip, at most
_GIF_RATE = 12  # frames a second, at most: a GIF keeps each as a picture
_GIF_SIZES = ((480, 64), (360, 48), (270, 32), (200, 32), (140, 16))  # width in px and colours, largest first
_GIF_BYTES = 1_900_000  # the largest of these sizes that takes no more is written; or else the smallest
_NARROWEST = 320  # px; films of smaller frames are enlarged, so that their captions can be read

SUFFIXES = (".mp4", ".gif", ".png", ".svg", ".pdf")

Method = Literal["rollout", "class"]


@dataclass(frozen=True)
class Explanation:
    """What the model made of one clip of a video, and of what patches.

    Attributes:
        path: the video.
        indices: the clip's frames (F,) in the video.
        shares: (F, H', W') of the patches, in units of an equal part: 1 is a patch's share if all had the same.
        scores: classes and scores, best first.
        method: what the shares are.
        preprocessing: how the model saw the frames.
    """

    path: Path
    indices: NDArray[np.int64]
    shares: NDArray[np.float32]
    scores: list[tuple[str, float]]
    method: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def by_frame(self) -> NDArray[np.float32]:
        """The share (F,) of each frame, in units of an equal part."""
        return np.asarray(self.shares.mean(axis=(1, 2)))

    def caption(self) -> list[str]:
        """Lines that say what is seen."""
        classes = ",  ".join(f"{name} {score:.1%}" for name, score in self.scores)
        times = f"{self.shares.max():.1f} times as much as the average"
        return [classes, f"{self.method}: the brightest place weighs {times}"]


def explain(
    classifier: VideoClassifier,
    video: str | Path,
    *,
    of: str | None = None,
    heads: Fusion = "mean",
    top: int = 3,
) -> Explanation:
    """Explain a classifier's answer for the middle clip of a video.

    Args:
        classifier: of a TimeSformer.
        video: a video file, GIF, or folder of images.
        of: name of a class: what speaks for it, by gradient-weighted attention. Without, attention rollout, which is of
            no class.
        heads: how rollout fuses attention heads.
        top: classes to name.

    Raises:
        VideoError: the video can't be read.
        ValueError: the model is no TimeSformer, or there is no such class.
    """
    model = classifier.model
    if not isinstance(model, TimeSformer):
        raise ValueError(f"only a TimeSformer's attention can be shown, not that of {model.architecture}")
    if of is not None and of not in classifier.classes:
        more = " …" if len(classifier.classes) > 20 else ""
        raise ValueError(f"class {of!r} is not one of the model's: {', '.join(classifier.classes[:20])}{more}")
    preprocessing = classifier.preprocessing
    with VideoReader(video, short_side=preprocessing.decoded_side) as reader:
        indices = PROTOCOLS["paper"].indices(preprocessing, len(reader), reader.fps, 1)[0]
    views = load_views(video, preprocessing)
    clip = preprocessing.normalize(views[0])[None].to(classifier.device)
    if of is None:
        shares, method = rollout(model, clip, heads=heads), "attention rollout"
    else:
        shares, method = class_relevance(model, clip, [classifier.classes.index(of)]), f"relevance for {of}"
    whole = shares[0].float().cpu()
    scores = PROTOCOLS["paper"].scores(view_logits(model, views, preprocessing), multi_label=model.multi_label)
    best = scores.topk(min(top, len(classifier.classes)))
    return Explanation(
        Path(video),
        indices,
        (whole * whole.numel() / whole.sum().clamp(min=1e-12)).numpy(),
        [(classifier.classes[i], s) for i, s in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
        method,
        preprocessing,
    )


def write_explanation(explanation: Explanation, file: Path) -> None:
    """Write a film (.mp4, .gif) or a strip (.png, .svg, .pdf), by the file's suffix.

    Raises:
        ValueError: another suffix, or the file is the video.
    """
    check_output(file, "out", suffixes=SUFFIXES, inputs=[explanation.path])
    suffix = file.suffix.lower()
    if suffix == ".mp4":
        _write_mp4(explanation, file)
    elif suffix == ".gif":
        _write_gif(explanation, file)
    else:
        _draw_strip(explanation, file)


def _film(explanation: Explanation, fastest: float = np.inf) -> tuple[Iterator[NDArray[np.uint8]], float]:
    """Frames from the clip's first to its last, explained, with shares in between interpolated; and their rate.

    All frames, or as many as are allowed, and as are shown by `fastest` a second.
    """
    reader = VideoReader(explanation.path)
    first, last = explanation.indices[[0, -1]]
    step = max(-(-(last - first + 1) // _FILM), math.ceil(reader.fps / fastest))
    wanted = np.arange(first, last + 1, step)
    fps = max(1.0, reader.fps / step)

    def frames() -> Iterator[NDArray[np.uint8]]:
        with reader:
            box = explanation.preprocessing.seen(reader.height, reader.width)
            places = np.interp(wanted, explanation.indices, np.arange(len(explanation.indices)))
            factor = -(-_NARROWEST // reader.width)
            for frame, place in zip(reader.one_by_one(wanted.tolist()), places, strict=True):
                before, part = int(place), place - int(place)
                after = min(before + 1, len(explanation.shares) - 1)
                shares = (1 - part) * explanation.shares[before] + part * explanation.shares[after]
                top = float(explanation.shares.max())
                picture = overlay(frame[None], torch.from_numpy(shares)[None].float(), top=top, box=box)[0]
                yield _captioned(picture.repeat(factor, axis=0).repeat(factor, axis=1), explanation.caption())

    return frames(), fps


def _captioned(picture: NDArray[np.uint8], lines: list[str]) -> NDArray[np.uint8]:
    """A picture with lines of text under it, even in height and width."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    size = max(10, width // 42)
    line = round(1.5 * size)
    image = Image.new("RGB", (width + width % 2, height + line * len(lines) + (height + line * len(lines)) % 2))
    image.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(image)
    for number, text in enumerate(map(shown, lines)):
        pieces = [(piece, ImageFont.truetype(file, size)) for piece, file in runs(text)]
        while sum(draw.textlength(piece, font) for piece, font in pieces) > width - 8 and len(text) > 4:
            text = text[:-2] + "…"
            pieces = [(piece, ImageFont.truetype(file, size)) for piece, file in runs(text)]
        x = 4.0
        for piece, font in pieces:
            draw.text((x, height + number * line + 2 + size), piece, "white", font, anchor="ls")  # on one base line
            x += draw.textlength(piece, font)
    return np.asarray(image)


def _write_mp4(explanation: Explanation, file: Path) -> None:
    pictures, fps = _film(explanation)
    with replace_file(file) as new, new.open("w+b") as out, av.open(out, "w", format="mp4") as container:
        stream: Any = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
                stream.options = {"crf": "20"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_gif(explanation: Explanation, file: Path) -> None:
    from PIL import Image

    shown_frames, fps = _film(explanation, fastest=_GIF_RATE)
    pictures = []
    for frame in shown_frames:
        picture = Image.fromarray(frame)
        picture.thumbnail((_GIF_SIZES[0][0], picture.height))
        pictures.append(picture)
    ends = np.round(np.arange(len(pictures) + 1) * 100 / fps)  # a GIF counts in hundredths of a second
    durations = (10 * np.diff(ends)).astype(int).tolist()
    content = b""
    for width, colours in _GIF_SIZES:
        content = _gif(pictures, width, colours, durations)
        if len(content) <= _GIF_BYTES:
            break
    with replace_file(file) as new:
        new.write_bytes(content)


def _gif(pictures: Sequence[Any], width: int, colours: int, durations: list[int]) -> bytes:
    """A GIF of pictures, at most so wide, in one palette for all: what stays from frame to frame takes no bytes."""
    from PIL import Image

    scale = min(1.0, width / pictures[0].width)
    size = (max(1, round(pictures[0].width * scale)), max(1, round(pictures[0].height * scale)))
    small = [picture.resize(size) for picture in pictures]
    some = small[:: -(-len(small) // 4)]
    both = Image.new("RGB", (size[0], size[1] * len(some)))
    for number, picture in enumerate(some):
        both.paste(picture, (0, number * size[1]))
    palette = both.quantize(colours)
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in small]
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return out.getvalue()


def _draw_strip(explanation: Explanation, file: Path) -> None:
    """Frames of the clip, the same explained, and the share of each frame as a curve."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    count = len(explanation.indices)
    drawn = np.unique(np.linspace(0, count - 1, min(_STRIP, count)).round().astype(int))
    with VideoReader(explanation.path) as reader:
        frames = reader.frames(explanation.indices[drawn])
        times = reader.times[explanation.indices]
    box, top = explanation.preprocessing.seen(*frames.shape[1:3]), float(explanation.shares.max())
    explained = overlay(frames, torch.from_numpy(explanation.shares[drawn]), top=top, box=box)
    side = 12 / len(drawn)
    tall = side * frames.shape[1] / frames.shape[2]
    figure = Figure(figsize=(13, 2 * tall + 2.2), layout="constrained")
    grid = figure.add_gridspec(3, len(drawn), height_ratios=[tall, tall, 1.2])
    for column, place in enumerate(drawn):
        for row, picture in enumerate((frames.numpy(), explained)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture[column])
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(f"{times[place]:.2f} s", fontsize=8)
    curve = figure.add_subplot(grid[2, :])
    curve.plot(times, explanation.by_frame, marker="o", color="#b03a2e")
    curve.axhline(1, color="grey", linewidth=0.6)
    curve.set_ylim(0, 1.15 * float(explanation.by_frame.max()))
    curve.set_xlabel("time (s)", fontsize=8)
    curve.set_ylabel("weight of frame", fontsize=8)
    curve.tick_params(labelsize=8)
    scale = ScalarMappable(Normalize(0, top), COLOURS)
    figure.colorbar(scale, ax=figure.axes[: 2 * len(drawn)], label="weight (average: 1)", shrink=0.8, pad=0.01)
    figure.suptitle("\n".join([shown(explanation.path.name), *explanation.caption()]), fontsize=9)
    save_figure(file, figure)
