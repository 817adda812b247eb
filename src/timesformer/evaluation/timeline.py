"""Scores over the time of a long video, each frame of which is decoded once; memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timesformer.class_colours import class_colours
from timesformer.evaluation.protocols import finite
from timesformer.evaluation.views import usual_batch, view_logits
from timesformer.files import save_figure, write_csv, write_json
from timesformer.outputs import check_replaceable
from timesformer.predictor import VideoClassifier
from timesformer.text import shown
from timesformer.video import sampling
from timesformer.video.decode import VideoReader
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.transforms import center_crop

_DRAWN = 8  # classes of a picture, at most


@dataclass(frozen=True)
class Segment:
    """A stretch of a video in which a class scores high: seconds, and the mean of its scores."""

    label: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Timeline:
    """Scores of the clips of a video, in order.

    Attributes:
        path: the video.
        classes: names of the classes.
        times: first and last second (K, 2) of each clip.
        scores: (K, classes) in [0, 1].
    """

    path: str
    classes: tuple[str, ...]
    times: NDArray[np.float64]
    scores: NDArray[np.float32]

    def segments(self, threshold: float = 0.5) -> list[Segment]:
        """Where a class scores at least `threshold`, by the time it starts.

        Clips that follow at once or overlap are one.
        """
        found = []
        for c, label in enumerate(self.classes):
            run: list[int] = []
            for clip in [*np.flatnonzero(self.scores[:, c] >= threshold).tolist(), None]:
                if run and (clip is None or not self._goes_on(run[-1], clip)):
                    score = float(self.scores[run, c].mean())
                    found.append(Segment(label, float(self.times[run[0], 0]), float(self.times[run[-1], 1]), score))
                    run = []
                if clip is not None:
                    run.append(clip)
        return sorted(found, key=lambda segment: (segment.start, segment.label))

    def _goes_on(self, clip: int, later: int) -> bool:
        start, end = self.times[later, 0], self.times[clip, 1]
        return bool(start < end or (later == clip + 1 and start == end))

    def to_json(self, threshold: float = 0.5) -> dict[str, Any]:
        """All of it, for JSON: clips with seconds and scores, and the segments at a threshold."""
        return {
            "video": self.path,
            "classes": self.classes,
            "clips": [
                {"start": start, "end": end, "scores": [round(float(score), 6) for score in scores]}
                for (start, end), scores in zip(self.times.tolist(), self.scores, strict=True)
            ],
            "threshold": threshold,
            "segments": [vars(segment) for segment in self.segments(threshold)],
        }

    def write(self, stem: Path, threshold: float = 0.5) -> None:
        """Write STEM.json, STEM.csv (a line a clip) and STEM.png, in place of those of an earlier timeline.

        Raises ValueError where one of these names is something else's.
        """
        table, lines_of, picture = check_timeline(stem)
        write_json(table, self.to_json(threshold))  # first: it shows whose the files are
        lines = [
            [f"{start:.3f}", f"{end:.3f}", *(f"{score:.6f}" for score in scores)]
            for (start, end), scores in zip(self.times, self.scores, strict=True)
        ]
        write_csv(lines_of, [["start", "end", *self.classes], *lines])
        self.draw(picture, threshold)

    def draw(self, file: Path, threshold: float = 0.5) -> None:
        """Draw the classes that score highest anywhere over time, and the segments as bars."""
        from matplotlib.figure import Figure

        colours = class_colours(self.classes)
        best = np.argsort(-self.scores.max(axis=0), kind="stable")[:_DRAWN]
        figure = Figure(figsize=(11, 0.45 * len(best) + 3.2), layout="constrained")
        curves, bars = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.3 * len(best) + 0.4])
        middle = self.times.mean(axis=1)
        edges = [self.times[0, 0], *(middle[1:] + middle[:-1]) / 2, self.times[-1, 1]]
        lines = []
        for number, c in enumerate(best):
            colour = colours[self.classes[c]]
            lines.append(curves.stairs(self.scores[:, c], edges, baseline=None, color=colour, linewidth=1.2))
            for segment in self.segments(threshold):
                if segment.label == self.classes[c]:
                    bars.barh(number, segment.end - segment.start, left=segment.start, color=colour)
        curves.axhline(threshold, color="grey", linewidth=0.6, linestyle=":")
        names = [shown(self.classes[c]) for c in best]
        curves.legend(lines, names, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        curves.set_ylim(0, 1.02)
        curves.set_ylabel("score")
        curves.set_title(Path(self.path).name, fontsize=9)
        bars.set_yticks(range(len(best)), names, fontsize=8)
        bars.set_ylim(len(best) - 0.5, -0.5)
        bars.set_xlim(0, float(self.times[-1, 1]))
        bars.set_xlabel("time (s)")
        save_figure(file, figure)


def check_timeline(stem: Path) -> tuple[Path, Path, Path]:
    """The files of a timeline, JSON, CSV and picture. ValueError where one exists that is something else's."""
    table, lines, picture = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("json", "csv", "png"))
    check_replaceable((table, lines, picture), ("video", "clips", "segments"), "a timeline")
    return table, lines, picture


def timeline(
    classifier: VideoClassifier,
    video: str | Path,
    *,
    hop: int | None = None,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> Timeline:
    """Score a video clip by clip from its start to its end.

    Args:
        classifier: of any model.
        video: a video file of any length, GIF, or folder of images.
        hop: frames from the start of one clip to that of the next; by default clips lie side by side.
        on_clip: called with the number of clips done, and of all.

    Raises:
        VideoError: the video can't be read.
        ValueError: hop is below 1, or the model's outputs are not finite.
    """
    preprocessing = classifier.preprocessing
    model = classifier.model
    with VideoReader(video, short_side=preprocessing.decoded_side) as reader:
        span = max(1, round(preprocessing.num_frames * preprocessing.stride))
        indices = sampling.sliding_clips(
            len(reader), preprocessing.num_frames, preprocessing.stride, span if hop is None else hop
        )
        scores: list[Tensor] = []
        batch: list[Tensor] = []
        for done, clip in enumerate(_clips(reader, indices, preprocessing), 1):
            batch.append(clip)
            if len(batch) == usual_batch(preprocessing) or done == len(indices):
                logits = view_logits(model, torch.stack(batch), preprocessing)
                scores.append(finite(logits.sigmoid() if model.multi_label else logits.softmax(dim=-1)))
                batch = []
                on_clip(done, len(indices))
        ends = np.append(reader.times[1:], reader.duration)
        times = np.stack([reader.times[indices[:, 0]], ends[np.minimum(indices[:, 0] + span, len(reader)) - 1]], axis=1)
    return Timeline(str(video), classifier.classes, times, torch.cat(scores).numpy())


def _clips(reader: VideoReader, indices: sampling.Indices, preprocessing: Preprocessing) -> Iterator[Tensor]:
    """Clips (F, S, S, 3) one after the other, in the order of colours that the model takes.

    Each frame is read once, and kept for as long as a clip needs it.
    """
    kept: dict[int, Tensor] = {}
    wanted = np.unique(indices).tolist()  # in order, also where clips overlap: a decoder goes forward alone
    ahead = zip(wanted, reader.one_by_one(wanted), strict=True)
    for clip in indices:
        kept = {index: frame for index, frame in kept.items() if index >= clip[0]}
        while int(clip[-1]) not in kept:
            index, picture = next(ahead)
            frame = preprocessing.colours(preprocessing.resize(picture[None]))
            kept[index] = center_crop(frame, preprocessing.image_size)[0].clone()
        yield torch.stack([kept[int(index)] for index in clip])
