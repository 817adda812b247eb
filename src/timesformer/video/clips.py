"""Training clips of a list of videos, as a function of (epoch, index) alone, so that a run resumes exactly."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from timesformer.files import replace_file
from timesformer.video.datasets import VideoList
from timesformer.video.decode import VideoError, VideoReader
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.transforms import TrainTransform

T = TypeVar("T")


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be decoded, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Clips (B, 3, F, S, S), targets (B, classes) as 0 or 1, and the videos that had to be left out."""

    clips: Tensor
    targets: Tensor
    bad: tuple[BadVideo, ...]


class FrameCache:
    """Frames of whole videos, decoded once at a short side and kept as files that are mapped into memory.

    Worth its disk space (3 bytes a pixel) where the same short videos are read again and again. Videos of more than
    `LARGEST` bytes are not kept.
    """

    LARGEST = 2**28

    def __init__(self, folder: Path, short_side: int) -> None:
        self.folder, self.short_side = folder, short_side

    def frames(self, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
        """All frames of a video, uint8 (n, H, W, 3), read from the disk when used; None if not kept."""
        try:
            stat = path.stat()
            key = os.fsencode(path.resolve()) + f" {stat.st_mtime_ns} {stat.st_size} {self.short_side}".encode()
            file = self.folder / f"{hashlib.sha256(key).hexdigest()[:32]}.npy"
            if not file.exists() and not self._keep(path, file):
                return None
            mapped: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = np.load(file, mmap_mode="r")
        except OSError:  # the video is not there, which its reader will say, or the disk is full
            return None
        return mapped

    def _keep(self, path: Path, file: Path) -> bool:
        with VideoReader(path, short_side=self.short_side, num_threads=1) as video:
            shape = (len(video), video.height, video.width, 3)
            if np.prod(shape) > self.LARGEST:
                return False
            with replace_file(file) as new:
                frames = np.lib.format.open_memmap(new, mode="w+", dtype=np.uint8, shape=shape)
                for place, frame in zip(frames, video, strict=True):
                    place[:] = frame.numpy()
                frames.flush()
        return True


class ClipDataset(Dataset["tuple[Tensor, Tensor] | BadVideo"]):
    """Random, augmented clips of labelled videos; its items are addressed as (epoch, index)."""

    def __init__(
        self,
        videos: VideoList,
        preprocessing: Preprocessing,
        transform: TrainTransform,
        *,
        seed: int,
        short_side: int,
        trim: float = 0.0,
        cache: Path | None = None,
    ) -> None:
        self.videos, self.preprocessing, self.transform, self.seed = videos, preprocessing, transform, seed
        self.short_side, self.trim = short_side, trim
        self.cache = FrameCache(cache, short_side) if cache else None

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor] | BadVideo:
        epoch, index = key
        item = self.videos.items[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        try:
            clip = self._random_clip(item.path, rng)
        except VideoError as error:
            return BadVideo(str(item.path), str(error))
        target = torch.zeros(len(self.videos.classes))
        target[list(item.labels)] = 1
        return self.transform(self.preprocessing.colours(clip), rng), target

    def _random_clip(self, path: Path, rng: np.random.Generator) -> Tensor:
        frames = self.cache.frames(path) if self.cache else None
        if frames is not None:
            return torch.from_numpy(frames[self.preprocessing.training_indices(len(frames), rng, self.trim)])
        with VideoReader(path, short_side=self.short_side, num_threads=1) as video:
            return video.frames(self.preprocessing.training_indices(len(video), rng, self.trim))


def load(dataset: Dataset[T], *, workers: int, **options: Any) -> Iterator[Any]:
    """The items of a dataset, made by worker processes; `options` are DataLoader's."""
    # Workers may be forked: garbage with threads of its own, such as a decoder that someone left open, must be gone by
    # then, since collecting it in a process that lacks those threads never ends.
    gc.collect()
    return iter(DataLoader(dataset, num_workers=workers, worker_init_fn=_ignore_interrupt, **options))


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C, and what ends a job, reach all its processes; the main one decides what becomes of it."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def collate(samples: Sequence[tuple[Tensor, Tensor] | BadVideo]) -> Batch:
    """A batch of the samples that could be decoded; empty tensors where none could."""
    good = [sample for sample in samples if not isinstance(sample, BadVideo)]
    bad = tuple(sample for sample in samples if isinstance(sample, BadVideo))
    if not good:
        return Batch(torch.empty(0), torch.empty(0), bad)
    clips, targets = zip(*good, strict=True)
    return Batch(torch.stack(clips), torch.stack(targets), bad)


def write_bad_videos(file: Path, bad: Iterable[BadVideo]) -> None:
    """Write a line `path TAB reason` for each bad video; no file where there is none."""
    lines = [f"{video.path}\t{video.reason}\n" for video in bad]
    if not lines:
        file.unlink(missing_ok=True)
        return
    with replace_file(file) as new:
        new.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def read_bad_videos(file: Path) -> list[BadVideo]:
    """What `write_bad_videos` wrote; none where there is no such file."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [BadVideo(*line.split("\t", 1)) for line in lines]
