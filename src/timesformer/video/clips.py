"""Training clips of a list of videos, as a function of (epoch, index) alone, so that a run resumes exactly."""

from __future__ import annotations

import gc
import hashlib
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from timesformer.files import replace_file
from timesformer.limits import OUT_OF_MEMORY
from timesformer.memory import is_out_of_memory, limit_memory
from timesformer.video.decode import VideoError, VideoReader
from timesformer.video.frame_folder import list_images
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.shards import PackedVideo, VideoPath, is_address, without_credentials
from timesformer.video.transforms import TrainTransform
from timesformer.workers import QUICKEST, JobError, Method, WorkerLost, Workers, at_step

K = TypeVar("K", contravariant=True)
S = TypeVar("S", covariant=True)
TIME_LIMIT = 600.0  # seconds for a video, unless asked otherwise


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be decoded, and why."""

    path: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("path", "reason"):  # which are shown and written, where passwords in addresses have no place
            object.__setattr__(self, name, without_credentials(getattr(self, name)))

    @property
    def is_missing(self) -> bool:
        """Whether it is not there at all."""
        return self.reason.endswith(": no such file")

    @classmethod
    def lost(cls, path: VideoPath, reason: str) -> BadVideo:
        """One whose decoder was lost; the reason names the file as a reader's would."""
        return cls(str(path), f"{path}: {reason}")


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

    def frames(self, path: VideoPath) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
        """All frames of a video, uint8 (n, H, W, 3), read from the disk when used; None if not kept."""
        try:
            key = fingerprint(path) + f" {self.short_side}".encode()
            file = self.folder / f"{hashlib.sha256(key).hexdigest()[:32]}.npy"
            if not file.exists() and not self._keep(path, file):
                return None
            mapped: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = np.load(file, mmap_mode="r")
        except OSError:  # the video is not there, which its reader will say, or the disk is full
            return None
        return mapped

    def _keep(self, path: VideoPath, file: Path) -> bool:
        with VideoReader(path, short_side=self.short_side, num_threads=1) as video:
            shape = (len(video), video.height, video.width, 3)
            if np.prod(shape) > self.LARGEST:
                return False
            with replace_file(file) as new, new.open("wb") as out:  # not mapped: a full disk would kill the process
                header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False}
                np.lib.format.write_array_header_1_0(out, {**header, "shape": shape})
                for frame in video:
                    out.write(frame.numpy().data)
        return True


def fingerprint(path: VideoPath) -> bytes:
    """Which video it is, and in what state: its path, size and time of change; of a folder, those of each image.

    Raises:
        OSError: it is not there.
    """
    if isinstance(path, PackedVideo):
        text = f"{path.absolute()} {path.offset} {path.size}".encode(errors="surrogateescape")
        return text if is_address(path.shard) else text + _state(Path(path.shard))
    name = os.fsencode(path.resolve())
    if not path.is_dir():
        return name + _state(path)
    return name + b"".join(b"/" + os.fsencode(image.name) + _state(image) for image in list_images(path))


def _state(file: Path) -> bytes:
    stat = file.stat()
    return f" {stat.st_mtime_ns} {stat.st_size}".encode()


class ClipDataset:
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
        # Some augmentations weigh the colours of RGB: the model's order comes after them.
        return self.transform(
            clip, rng, lambda frames: self.preprocessing.normalize(self.preprocessing.colours(frames))
        ), target

    def failed(self, key: tuple[int, int], reason: str) -> BadVideo:
        """What stands for a video whose decoder was lost."""
        return BadVideo.lost(self.videos.items[key[1]].path, reason)

    def _random_clip(self, path: VideoPath, rng: np.random.Generator) -> Tensor:
        frames = self.cache.frames(path) if self.cache else None
        if frames is not None:
            return torch.from_numpy(frames[self.preprocessing.training_indices(len(frames), rng, self.trim)])
        with VideoReader(path, short_side=self.short_side, num_threads=1) as video:
            return video.frames(self.preprocessing.training_indices(len(video), rng, self.trim))


class Videos(Protocol[K, S]):
    """Samples of videos by their keys, and what stands for one whose decoder was lost."""

    def __getitem__(self, key: K) -> S: ...

    def failed(self, key: K, reason: str) -> S:
        """What stands for a video whose decoder was lost, and why."""
        ...


def load(
    dataset: Videos[K, S],
    *,
    workers: int,
    sampler: Iterable[K] | None = None,
    batch_sampler: Iterable[Sequence[K]] | None = None,
    collate_fn: Callable[[Sequence[S]], Any] | None = None,
    time_limit: float = TIME_LIMIT,
    in_order: bool = True,
) -> Generator[Any, None, None]:
    """The samples of a dataset, or its batches, made by worker processes.

    Args:
        dataset: gives a sample for each key.
        workers: processes; 0 does it in this one, without a time limit.
        sampler, batch_sampler: the keys, one or several at a time; drawn a few ahead.
        collate_fn: makes a batch of samples, in the worker process; without, a batch is its first sample.
        time_limit: seconds for a video; the process of one that takes longer, or crashes, is replaced, and
            `dataset.failed` stands for its sample.
        in_order: of the keys; otherwise as they are done, so that none waits for one that hangs.

    Raises whatever else the dataset raises.
    """
    keys = ((key,) for key in sampler) if sampler is not None else batch_sampler or ()
    if workers == 0:
        make = _make_batches(dataset, collate_fn, threads=None)
        yield from (make(_Batch(tuple(batch))) for batch in keys)
        return
    # Workers may be forked: garbage with threads of its own, such as a decoder that someone left open, must be gone by
    # then, since collecting it in a process that lacks those threads never ends.
    gc.collect()
    with loaders(dataset, workers=workers, collate_fn=collate_fn, method=QUICKEST) as pool:
        yield from load_by(pool, keys, time_limit, in_order=in_order)


def loaders(
    dataset: Videos[K, S], *, workers: int, collate_fn: Callable[[Sequence[S]], Any] | None = None, method: Method
) -> Workers:
    """Processes for `load_by`, for whoever keeps them longer than `load` does."""
    return Workers(_make_batches, (dataset, collate_fn), count=workers, method=method)


def load_by(pool: Workers, keys: Iterable[Sequence[Any]], time_limit: float, *, in_order: bool = True) -> Iterator[Any]:
    """The batches of these keys, made by `loaders`; see `load`."""
    jobs = (_Batch(tuple(batch)) for batch in keys)
    for _, batch in pool.results(jobs, time_limit, in_order=in_order, again=_without):
        if isinstance(batch, JobError):
            raise batch.__cause__ or batch
        yield batch


@dataclass(frozen=True)
class _Batch:
    """Keys of a batch, and by their places those to be left out, with the reason."""

    keys: tuple[Any, ...]
    lost: dict[int, str] = field(default_factory=dict)


def _make_batches(
    dataset: Videos[Any, S], collate_fn: Callable[[Sequence[S]], Any] | None, threads: int | None = 1
) -> Any:
    if threads:
        torch.set_num_threads(threads)
        limit_memory()

    def make(batch: _Batch) -> Any:
        samples = []
        for place, key in enumerate(batch.keys):
            at_step(place)
            samples.append(dataset.failed(key, batch.lost[place]) if place in batch.lost else _sample(dataset, key))
        at_step(len(batch.keys))  # what goes wrong from here on is no video's fault
        try:
            return collate_fn(samples) if collate_fn else samples[0]
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise RuntimeError(f"a batch of {len(samples)} videos: {OUT_OF_MEMORY}") from error
            raise

    return make


def _sample(dataset: Videos[K, S], key: K) -> S:
    """The sample of a video, or what stands for one that needs too much memory."""
    try:
        return dataset[key]
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return dataset.failed(key, OUT_OF_MEMORY)
        raise


def _without(batch: _Batch, lost: WorkerLost) -> _Batch:
    """The batch to be done again, less the video that its worker was lost at."""
    if lost.step == len(batch.keys):
        raise RuntimeError(
            f"a batch of {len(batch.keys)} videos {lost}, all of which were decoded: "
            "is there enough memory, and shared memory (/dev/shm)?"
        )
    return replace(batch, lost={**batch.lost, lost.step: str(lost)})


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
    lines = [f"{_in_a_line(video.path)}\t{_in_a_line(video.reason)}\n" for video in bad]
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
    return [BadVideo(path, reason) for path, _, reason in (line.partition("\t") for line in lines)]


def _in_a_line(text: str) -> str:
    """A text without what ends a line or a column, of which a file's name may have any."""
    return re.sub(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]", lambda match: ascii(match[0])[1:-1], text)
