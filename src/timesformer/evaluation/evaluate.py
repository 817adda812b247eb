"""Scores of a whole list of videos, and what they say."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from timesformer import distributed
from timesformer.evaluation.metrics import Scores, average_precision, confusion_matrix, top_k_accuracy
from timesformer.evaluation.parts import ViewDataset, outputs
from timesformer.evaluation.protocols import PROTOCOLS, Clips, NotFiniteError, Protocol
from timesformer.evaluation.views import Part, usual_batch
from timesformer.files import save_figure, write_csv, write_json
from timesformer.outputs import check_replaceable
from timesformer.text import shown
from timesformer.video.clips import TIME_LIMIT, BadVideo, load, write_bad_videos
from timesformer.video.items import VideoItem, VideoList
from timesformer.video.preprocessing import Preprocessing

# What the folder of an evaluation holds, and what `metrics.json` says at least: by it the others are known.
FILES = ("metrics.json", "predictions.csv", "bad_videos.txt", "confusion.csv", "confusion.png", "report.html")
KEYS = ("videos", "bad_videos")


@dataclass(frozen=True)
class Evaluation:
    """Scores of the videos that could be read, and the list of those that could not.

    Attributes:
        classes: names of the classes.
        items: the videos, with their labels.
        scores: float32 (N, classes), the mean over views of softmax (of sigmoid where `multi_label`).
        multi_label: whether a video can have several labels.
        bad: videos that could not be decoded; they are not in `items`.
    """

    classes: tuple[str, ...]
    items: tuple[VideoItem, ...]
    scores: Scores
    multi_label: bool
    bad: tuple[BadVideo, ...]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The label (N,) of each video; where there are several, the first."""
        return np.array([item.labels[0] for item in self.items], dtype=np.int64)

    @cached_property
    def targets(self) -> NDArray[np.bool_]:
        """Whether each video has each label: (N, classes)."""
        targets = np.zeros(self.scores.shape, dtype=bool)
        for row, item in zip(targets, self.items, strict=True):
            row[list(item.labels)] = True
        return targets

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (classes, classes): row the true class, column the predicted one."""
        return confusion_matrix(self.scores.argmax(axis=1), self.labels, len(self.classes))

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, or mAP where a video can have several labels; in [0, 1], NaN without videos."""
        if not self.items:
            return float("nan")
        if self.multi_label:
            return float(np.nanmean(average_precision(self.scores, self.targets)))
        return top_k_accuracy(self.scores, self.labels, 1)

    def summary(self) -> dict[str, Any]:
        """The figures, for JSON: shares in [0, 1]; null for a class without a video."""
        figures: dict[str, Any] = {"videos": len(self.items), "bad_videos": len(self.bad)}
        if not self.items:
            return figures
        if self.multi_label:
            per_class = average_precision(self.scores, self.targets)
            figures["mean_average_precision"] = self.accuracy
        else:
            counts = self.confusion.sum(axis=1)
            per_class = np.where(counts > 0, self.confusion.diagonal() / np.maximum(counts, 1), np.nan)
            figures["top1"] = self.accuracy
            figures["top5"] = top_k_accuracy(self.scores, self.labels, 5)
            figures["mean_class_accuracy"] = float(np.nanmean(per_class))
        values = [None if np.isnan(value) else float(value) for value in per_class]
        figures["per_class"] = dict(zip(self.classes, values, strict=True))
        return figures

    def write(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        """Write `metrics.json`, `predictions.csv`, and for one label a video `confusion.csv` and `confusion.png`.

        Files of an earlier evaluation are replaced. Raises ValueError where one of these names is something else's.

        Args:
            folder: to write into.
            about: what the figures are of, for `metrics.json`, see `about_evaluation`.
        """
        check_replaceable([folder / name for name in FILES], KEYS, "an evaluation")
        write_json(folder / "metrics.json", {**(about or {}), **self.summary()})  # first: it shows whose the files are
        rows: list[list[Any]] = [["path", "labels", "predicted", *self.classes]]
        for item, scores in zip(self.items, self.scores, strict=True):
            labels = " ".join(self.classes[label] for label in item.labels)
            rows.append([item.path, labels, self.classes[scores.argmax()], *(f"{score:.6f}" for score in scores)])
        write_csv(folder / "predictions.csv", rows)
        write_bad_videos(folder / "bad_videos.txt", self.bad)
        if self.multi_label:
            return
        counts = [[name, *row] for name, row in zip(self.classes, self.confusion, strict=True)]
        write_csv(folder / "confusion.csv", [["true \\ predicted", *self.classes], *counts])
        save_figure(folder / "confusion.png", confusion_figure(self.confusion, self.classes))


def confusion_figure(confusion: NDArray[np.int64], classes: Sequence[str]) -> Any:
    """A matplotlib figure of a confusion matrix, each row as shares of its true class, with the counts written in."""
    from matplotlib.figure import Figure

    n, classes = len(classes), [shown(name) for name in classes]
    side = min(max(3.0, 0.36 * n), 36.0)
    names = 0.09 * max(map(len, classes)) if n <= 60 else 0.0  # inches; more names than that can't be read
    figure = Figure(figsize=(side + names + 2, side + names + 1), layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    if names:
        axes.set_xticks(range(n), classes, rotation=90)
        axes.set_yticks(range(n), classes)
        for row, column in np.argwhere(confusion):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=shade, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def evaluate(
    model: nn.Module,
    videos: VideoList,
    preprocessing: Preprocessing,
    *,
    clips: Clips = 1,
    crops: int = 1,
    protocol: Protocol = PROTOCOLS["paper"],
    workers: int = 1,
    batch_size: int | None = None,
    time_limit: float = TIME_LIMIT,
    on_video: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score every video of a list by all its views. A video that can't be read is listed and left out.

    Where there are several processes (see `timesformer.distributed`), each scores its share of the videos, every one
    of them once, and all return the whole.

    Args:
        model: maps clips to logits; it is put into evaluation mode.
        videos: what to score.
        preprocessing: what the model takes.
        clips, crops: the views of a video, see `load_views`.
        protocol: where clips are, and how the views' scores become the video's.
        workers: processes that decode; 0 decodes in this one.
        batch_size: views that go through the model at a time, across videos; see `usual_batch`.
        time_limit: seconds to decode a video, see `load`.
        on_video: called after each video.
    """
    model.eval()
    batch_size = batch_size or usual_batch(preprocessing)
    dataset = ViewDataset(videos, preprocessing, clips, crops, protocol, at_most=batch_size)
    # Videos go through the model in blocks that do not depend on the number of processes, and so nor do their scores.
    size = 1 if clips == "cover" else max(1, batch_size // (clips * crops))
    starts = range(0, len(videos.items), size)[distributed.rank() :: distributed.world_size()]
    mine = [index for start in starts for index in range(start, min(start + size, len(videos.items)))]
    scores: dict[int, Tensor] = {}
    bad: dict[int, BadVideo] = {}

    def good_videos() -> Iterator[tuple[int, Part]]:
        for index, part in load(dataset, sampler=mine, workers=workers, time_limit=time_limit):
            on_video()
            if isinstance(part, BadVideo):
                bad[index] = part
            else:
                yield index, part

    for _, block in itertools.groupby(good_videos(), lambda video: video[0] // size):
        logits = outputs(
            model, model, dataset, dict(block), batch_size=batch_size, workers=workers, time_limit=time_limit
        )
        for index, each in logits.items():
            if isinstance(each, BadVideo):
                bad[index] = each
                continue
            try:
                scores[index] = protocol.scores(each, multi_label=videos.multi_label)
            except NotFiniteError as error:
                path = videos.items[index].path
                bad[index] = BadVideo(str(path), f"{path}: {error}")

    for others_scores, others_bad in distributed.gather((scores, bad)):
        scores.update(others_scores)
        bad.update(others_bad)
    order = sorted(scores)
    empty = np.zeros((0, len(videos.classes)), dtype=np.float32)
    return Evaluation(
        classes=videos.classes,
        items=tuple(videos.items[index] for index in order),
        scores=np.stack([scores[index].numpy() for index in order]) if order else empty,
        multi_label=videos.multi_label,
        bad=tuple(bad[index] for index in sorted(bad)),
    )
