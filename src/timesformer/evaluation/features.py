"""Features of videos: what a model makes of them before its head, kept in one file."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from timesformer import distributed
from timesformer.documents import parse_json
from timesformer.evaluation.parts import ViewDataset, outputs
from timesformer.evaluation.protocols import PROTOCOLS, Clips, NotFiniteError, finite
from timesformer.evaluation.views import usual_batch
from timesformer.files import check_same_job, remove_unfinished, replace_file
from timesformer.model.base import VideoModel, digest
from timesformer.outputs import check_output, check_own_folder
from timesformer.text import text_of
from timesformer.video.clips import TIME_LIMIT, BadVideo, load, read_bad_videos, write_bad_videos
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing

PART = 256  # videos that a job which is cut off loses at most: its output is written in parts of so many
_JOB = "of.json"  # of a folder of parts: says which job they are of
_PART = re.compile(r"\d{6}\.(safetensors|bad\.txt)")


@dataclass(frozen=True)
class Features:
    """Features of videos, with what the videos are.

    Attributes:
        values: float32 (N, D).
        paths: of the videos.
        labels: the first label (N,) of each, -1 for none.
        classes: names of the labels.
    """

    values: NDArray[np.float32]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def save(self, file: Path) -> None:
        """Write a .safetensors file: `features`, `labels`, and as metadata `paths` and `classes` in JSON."""
        about = {name: json.dumps(list(map(text_of, getattr(self, name)))) for name in ("paths", "classes")}
        with replace_file(file) as new:
            save_file({"features": self.values, "labels": self.labels}, new, about)

    @classmethod
    def load(cls, file: str | Path) -> Features:
        """Read what `save` wrote. Raises ValueError for a file that is none."""
        try:
            with safe_open(file, "numpy") as content:
                about = content.metadata()
                features = cls(
                    content.get_tensor("features"),
                    _texts(about["paths"], "paths"),
                    content.get_tensor("labels"),
                    _texts(about["classes"], "classes"),
                )
            features.check()
            return features
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise ValueError(f"{file}: no file of features, as `timesformer embed` writes it ({error})") from error

    def check(self) -> None:
        """See that all parts are of the same videos: ValueError."""
        if self.values.ndim != 2 or self.values.dtype != np.float32 or len(self.values) != len(self.paths):
            raise ValueError(f"features of {self.values.dtype}, {self.values.shape}, for {len(self.paths)} videos")
        if self.labels.shape != (len(self.paths),) or self.labels.dtype != np.int64:
            raise ValueError(f"labels of {self.labels.dtype}, {self.labels.shape}, for {len(self.paths)} videos")
        if len(self.labels) and not -1 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(f"labels that are not of its {len(self.classes)} classes")

    def nearest(self, index: int, count: int) -> list[tuple[int, float]]:
        """The videos most like one, best first, with the cosine of their features: (index, similarity) pairs."""
        unit = self.values / np.linalg.norm(self.values, axis=1, keepdims=True).clip(min=1e-12)
        similar = unit @ unit[index]
        order = [int(other) for other in np.argsort(-similar, kind="stable") if other != index]
        return [(other, float(similar[other])) for other in order[:count]]


def _texts(text: str, what: str) -> tuple[str, ...]:
    """A list of texts, as JSON."""
    values = parse_json(text, what)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{what} that are no list of texts")
    return tuple(values)


def video_features(
    model: VideoModel,
    videos: VideoList,
    preprocessing: Preprocessing,
    *,
    indices: Sequence[int] | None = None,
    clips: Clips = 1,
    crops: int = 1,
    workers: int = 1,
    time_limit: float = TIME_LIMIT,
    on_video: Callable[[], None] = lambda: None,
) -> tuple[Features, list[BadVideo]]:
    """The features of every video that can be read, the mean over its views; and the videos that cannot.

    Args:
        model: it is put into evaluation mode.
        videos: whose features.
        preprocessing: what the model takes.
        indices: which of the videos; all by default.
        clips, crops: the views of a video, see `load_views`.
        workers: processes that decode; 0 decodes in this one.
        time_limit: seconds to decode a video, see `load`.
        on_video: called after each video.
    """
    model.eval()
    found: list[tuple[int, NDArray[np.float32]]] = []
    bad: list[BadVideo] = []
    batch_size = usual_batch(preprocessing)
    dataset = ViewDataset(videos, preprocessing, clips, crops, PROTOCOLS["paper"], at_most=batch_size)
    sampler = range(len(videos.items)) if indices is None else indices
    for index, part in load(dataset, sampler=sampler, workers=workers, time_limit=time_limit):
        on_video()
        values = part
        if not isinstance(part, BadVideo):
            values = outputs(
                model, model.features, dataset, {index: part},
                batch_size=batch_size, workers=workers, time_limit=time_limit,
            )[index]  # fmt: skip
        if isinstance(values, BadVideo):
            bad.append(values)
            continue
        try:
            found.append((index, finite(values.mean(dim=0)).numpy()))
        except NotFiniteError as error:
            path = str(videos.items[index].path)
            bad.append(BadVideo(path, f"{path}: {error}"))
    items = [videos.items[index] for index, _ in found]
    stacked = np.stack([values for _, values in found]) if found else np.zeros((0, 0), np.float32)
    labels = np.array([item.labels[0] if item.labels else -1 for item in items], dtype=np.int64)
    return Features(stacked, tuple(str(item.path) for item in items), labels, videos.classes), bad


def embed(
    model: VideoModel,
    videos: VideoList,
    preprocessing: Preprocessing,
    file: Path,
    *,
    clips: Clips = 1,
    crops: int = 1,
    workers: int = 1,
    time_limit: float = TIME_LIMIT,
    on_video: Callable[[], None] = lambda: None,
) -> tuple[Features, list[BadVideo]]:
    """Write the features of a list of videos into one file, part by part, so that a job that is cut off goes on.

    Parts are kept in FILE.parts until all are there; videos that can't be read are listed in FILE.bad.txt. Where there
    are several processes (see `timesformer.distributed`), each does its share of the parts.

    Args:
        file: .safetensors, see `Features.save`.
        model, videos, preprocessing, clips, crops, workers, time_limit, on_video: as in `video_features`.

    Raises:
        ValueError: parts of another list of videos or by another model are there, or other files in their place; the
            file is one of the videos, or has another suffix; or no video could be read.
        OutputInUse: another process writes this file.
    """
    paths = [item.path for item in videos.items]
    check_output(file, "out", suffixes=(".safetensors",), inputs=paths)
    with distributed.locked(file, folder=False):
        return _embed(model, videos, preprocessing, file, clips, crops, workers, time_limit, on_video)


def _embed(
    model: VideoModel,
    videos: VideoList,
    preprocessing: Preprocessing,
    file: Path,
    clips: Clips,
    crops: int,
    workers: int,
    time_limit: float,
    on_video: Callable[[], None],
) -> tuple[Features, list[BadVideo]]:
    views = {"clips": clips, "crops": crops, "preprocessing": preprocessing.to_dict()}
    identity = json.dumps({"paths": [str(item.path) for item in videos.items], **views, "model": digest(model)})
    folder = file.with_name(f"{file.name}.parts")
    distributed.on_first(partial(_open_parts, file, folder, identity))
    parts = parts_of(len(videos.items))
    for number in range(distributed.rank(), len(parts), distributed.world_size()):
        part = folder / f"{number:06}.safetensors"
        if part.exists():
            for _ in parts[number]:
                on_video()
            continue
        found, bad = video_features(
            model, videos, preprocessing,
            indices=parts[number], clips=clips, crops=crops, workers=workers,
            time_limit=time_limit, on_video=on_video,
        )  # fmt: skip
        write_bad_videos(part.with_suffix(".bad.txt"), bad)
        found.save(part)
    distributed.gather(None)  # wait for all
    every = [Features.load(folder / f"{number:06}.safetensors") for number in range(len(parts))]
    read = [features for features in every if len(features.paths)]
    if not read:
        raise ValueError(f"{videos.source}: none of its videos could be read: see {folder}")
    bad = [video for number in range(len(parts)) for video in read_bad_videos(folder / f"{number:06}.bad.txt")]
    features = Features(
        np.concatenate([part.values for part in read]),
        tuple(path for part in read for path in part.paths),
        np.concatenate([part.labels for part in read]),
        videos.classes,
    )
    distributed.gather(None)  # all have read the parts
    if distributed.rank() == 0:
        features.save(file)
        write_bad_videos(file.with_name(f"{file.name}.bad.txt"), bad)
        _remove_parts(folder)
    distributed.gather(None)
    return features, bad


def _open_parts(file: Path, folder: Path, identity: str) -> None:
    """Begin the folder of parts, or go on with it. ValueError if it is of another job, or holds something else."""
    names = [path.name for path in folder.glob("*") if _PART.fullmatch(path.name)]
    check_own_folder(folder, _JOB, {_JOB, *names}, "this job")
    listed = file.with_name(f"{file.name}.bad.txt")
    if listed.exists() and not file.exists() and not folder.exists():
        raise ValueError(f"{listed}: exists without {file.name}, which it would be of: move it, or name another file")
    check_same_job(folder / _JOB, identity, "parts for other videos or views, or by another model")
    remove_unfinished(folder, "*")


def _remove_parts(folder: Path) -> None:
    """Remove what `embed` wrote into the folder of parts: what says whose they are at the end."""
    for part in folder.glob("[0-9]*"):
        if _PART.fullmatch(part.name):
            part.unlink()
    (folder / _JOB).unlink()
    with contextlib.suppress(OSError):  # something else was put there meanwhile
        folder.rmdir()


def parts_of(count: int) -> list[range]:
    """The numbers of the videos of each part of a job."""
    return [range(start, min(start + PART, count)) for start in range(0, count, PART)]
