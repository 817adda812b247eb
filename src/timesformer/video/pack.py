"""Many videos packed into few large files, as they are or smaller; see `timesformer.video.shards`."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av

from timesformer.documents import read_json
from timesformer.files import check_same_job, remove_unfinished, replace_file, write_json
from timesformer.lock import output_lock
from timesformer.memory import limit_memory
from timesformer.outputs import check_output, check_own_folder, has_keys
from timesformer.video.clips import TIME_LIMIT, BadVideo, write_bad_videos
from timesformer.video.datasets import read_unlabelled, splits
from timesformer.video.decode import VideoReader
from timesformer.video.items import VideoList
from timesformer.video.shards import INDEX, PackedVideo, VideoPath, is_address
from timesformer.workers import QUICKEST, JobError, WorkerLost, Workers

_TICKS = 60_000  # time base 1/60000 s, in which the usual frame rates, 30000/1001 too, are whole numbers
_KEYFRAME_EVERY = 32  # frames: what a clip's first frame costs, at most
_BLOCK = tarfile.BLOCKSIZE
_SHARD = re.compile(r"shard-\d{6}\.(tar|json)")


@dataclass(frozen=True)
class Packing:
    """What `pack` did.

    Attributes:
        videos: how many videos are packed.
        shards: into how many files.
        bad: those that could not be, and why.
        missing: names of videos that a benchmark lists and that are not on disk.
        notes: how the data was read where it could have been meant otherwise.
    """

    videos: int
    shards: int
    bad: tuple[BadVideo, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Video:
    """A video that is to be packed, and what its member `.json` says of it."""

    path: VideoPath
    about: dict[str, Any]


def pack(
    data: str | Path,
    out: Path,
    *,
    short_side: int | None = None,
    shard_megabytes: float = 512,
    workers: int = 2,
    time_limit: float = TIME_LIMIT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Packing:
    """Pack all videos of a dataset, of all its splits, with their labels.

    Each video is decoded to its end first; one that can't be is left out and listed in `bad_videos.txt`. A job that is
    cut off goes on when it is started again: shards that are complete, which a `.json` beside them tells, stay.

    Args:
        data: as `read_unlabelled` takes it, labelled or not.
        out: folder for the shards and their index.
        short_side: scale frames down to this short side in pixels, never up, and encode them again (H.264, or MPEG-4
            where there is no encoder for it), without sound; None copies the bytes.
        shard_megabytes: a shard is closed as soon as it has as much (2**20 bytes).
        workers: processes that decode and encode.
        time_limit: seconds for a video.
        progress: called as (done, total).

    Raises:
        DataError: the data can't be read.
        ValueError: `out` holds shards of other data or something else, or lies in the data; a number is out of range;
            or no video could be packed.
        OutputInUse: another process packs into `out`.
    """
    if (short_side is not None and short_side < 2) or shard_megabytes <= 0 or workers < 1:
        raise ValueError(
            f"short_side={short_side}, shard_megabytes={shard_megabytes}, workers={workers}: "
            f"at least 2 (or None), more than 0, at least 1"
        )
    check_output(out, "out", folder=True, inputs=[data], apart=True)
    parts = {split: read_unlabelled(data, split) for split in splits(data) or (None,)}
    videos = [video for split, part in parts.items() for video in _describe(part, split or "")]
    with output_lock(out, folder=True):
        bad, entries, digests = _pack(data, out, videos, short_side, shard_megabytes, workers, time_limit, progress)
        write_bad_videos(out / "bad_videos.txt", bad)
        if not entries:
            raise ValueError(f"{data}: none of its {len(videos)} videos could be packed: see {out / 'bad_videos.txt'}")
        first = next(iter(parts.values()))
        multi_label = any(part.multi_label for part in parts.values())
        index = {"classes": first.classes, "multi_label": multi_label, "sha256": digests, "videos": entries}
        write_json(out / INDEX, index)
    missing = tuple(name for part in parts.values() for name in part.missing)
    notes = tuple(dict.fromkeys(note for part in parts.values() for note in part.notes))
    return Packing(len(entries), len({entry["shard"] for entry in entries}), bad, missing, notes)


def _pack(
    data: str | Path,
    out: Path,
    videos: list[_Video],
    short_side: int | None,
    shard_megabytes: float,
    workers: int,
    time_limit: float,
    progress: Callable[[int, int], None],
) -> tuple[tuple[BadVideo, ...], list[dict[str, Any]], dict[str, str]]:
    """Write the shards that are missing; the bad videos, all entries of the index, and the digests of the shards."""
    there = _begin(data, out, videos, short_side)
    done = list(there.values())
    settled = {entry["number"] for part in done for entry in part["videos"]}
    settled |= {number for part in done for number, _, _ in part["bad"]}
    left = [number for number in range(len(videos)) if number not in settled]
    count = itertools.count(len(settled) + 1)
    with Workers(_make_reader, (short_side,), count=workers, method=QUICKEST) as pool:

        def results() -> Iterator[tuple[int, bytes | None] | tuple[int, BadVideo]]:
            jobs = ((number, videos[number].path) for number in left)
            for (number, path), result in pool.results(jobs, time_limit):
                progress(next(count), len(videos))
                if isinstance(result, WorkerLost):
                    yield number, BadVideo.lost(path, str(result))
                elif isinstance(result, JobError):
                    yield number, BadVideo(str(path), str(result))
                else:
                    yield number, result

        limit = int(shard_megabytes * 2**20)
        done += _write_shards(out, max(there, default=-1) + 1, videos, results() if left else iter(()), limit)
    bad = {number: BadVideo(path, reason) for part in done for number, path, reason in part["bad"]}
    entries = sorted((entry for part in done for entry in part["videos"]), key=lambda entry: int(entry["number"]))
    digests = {name: part["sha256"] for part in done for name in {entry["shard"] for entry in part["videos"]}}
    return tuple(bad[number] for number in sorted(bad)), entries, digests


def _begin(data: str | Path, out: Path, videos: list[_Video], short_side: int | None) -> dict[int, dict[str, Any]]:
    """What is there of the job: by number what each complete shard's `.json` says. ValueError for other jobs, files."""
    names = [file.name for file in out.glob("shard-*") if _SHARD.fullmatch(file.name)]
    check_own_folder(out, "job.json", {INDEX, "bad_videos.txt", *names}, "pack")
    if (out / "job.json").exists() and not has_keys(out / "job.json", {"data", "videos", "short_side"}):
        raise ValueError(f"{out / 'job.json'}: pack did not write it; name a new folder")
    digest = hashlib.sha256(json.dumps([video.about for video in videos]).encode()).hexdigest()
    job = {"data": str(data) if is_address(data) else os.path.abspath(data), "videos": digest, "short_side": short_side}
    check_same_job(out / "job.json", json.dumps(job), "shards of other videos or another size")
    remove_unfinished(out, "shard-*")
    for name in names:
        if name.endswith(".json") and name.replace(".json", ".tar") not in names:
            raise ValueError(
                f"{out / name}: its shard is missing: put it back, or remove this to pack its videos again"
            )
    return {int(file.stem[-6:]): _complete(file) for file in sorted(out.glob("shard-*")) if file.suffix == ".tar"}


def _complete(shard: Path) -> dict[str, Any]:
    """What the `.json` of a shard says. ValueError where pack did not write the shard, or it is not whole."""
    about, written = shard.with_suffix(".json"), _before(shard)
    if written.exists():  # the job was cut off between a shard and its `.json`
        os.replace(written, about)
    if not has_keys(about, {"bytes", "sha256", "videos", "bad"}):
        raise ValueError(f"{shard}: pack did not write it, or its {about.name} is damaged; name a new folder")
    part: dict[str, Any] = read_json(about)
    if part["bytes"] != shard.stat().st_size:
        raise ValueError(f"{shard}: has {shard.stat().st_size} bytes, not {part['bytes']} as it was written")
    return part


def _before(shard: Path) -> Path:
    """Where the `.json` of a shard is until the shard has its name."""
    return shard.with_name(f".{shard.stem}.json")


def _describe(videos: VideoList, split: str) -> Iterator[_Video]:
    source = Path(videos.source)
    root = source if source.is_dir() else source.parent
    for item in videos.items:
        if isinstance(item.path, PackedVideo):
            name = item.path.path
        else:
            path = Path(os.path.abspath(item.path))
            inside = path.is_relative_to(os.path.abspath(root))
            name = path.relative_to(os.path.abspath(root)).as_posix() if inside else path.as_posix()
        labels = [videos.classes[label] for label in item.labels]
        yield _Video(item.path, {"path": name, "split": split, "labels": labels})


class _Digested(io.RawIOBase):
    """A file that is written from its start to its end, with the SHA-256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha, self.bytes = file, hashlib.sha256(), 0

    def write(self, content: Any) -> int:
        self.sha.update(content)
        self.bytes += len(content)
        return int(self.file.write(content))

    def tell(self) -> int:
        return self.bytes


def _write_shards(
    out: Path, number: int, videos: list[_Video], results: Iterator[tuple[int, Any]], limit: int
) -> Iterator[dict[str, Any]]:
    """Write results into shards from `number` on; each yields what is in it, which is also kept as its `.json`."""
    bad: list[tuple[int, str, str]] = []
    for result in results:
        if isinstance(result[1], BadVideo):
            bad.append((result[0], result[1].path, result[1].reason))
            continue
        entries = []
        name = f"shard-{number:06}.tar"
        with replace_file(out / name) as new:
            with new.open("wb") as file:
                digested = _Digested(file)
                with tarfile.open(fileobj=digested, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    for index, content in itertools.chain([result], results):
                        if isinstance(content, BadVideo):
                            bad.append((index, content.path, content.reason))
                            continue
                        entries.append({"number": index, "shard": name, **_add(tar, index, videos[index], content)})
                        if tar.offset >= limit:
                            break
            part = {"videos": entries, "bad": bad, "bytes": digested.bytes, "sha256": digested.sha.hexdigest()}
            write_json(_before(out / name), part)
        os.replace(_before(out / name), out / f"shard-{number:06}.json")  # from now on the shard counts
        yield part
        number, bad = number + 1, []
    if bad:
        yield {"videos": [], "bad": bad}


def _add(tar: tarfile.TarFile, index: int, video: _Video, content: bytes | None) -> dict[str, Any]:
    """Add a video to a shard, and say where it lies."""
    suffix = ".mp4" if content is not None else _suffix(video.path)
    file = _open(video.path) if content is None else io.BytesIO(content)
    with file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        _add_member(tar, f"{index:08}{suffix}", file, size)
    offset = tar.offset - -(-size // _BLOCK) * _BLOCK
    about = json.dumps(video.about).encode()
    _add_member(tar, f"{index:08}.json", io.BytesIO(about), len(about))
    return {"offset": offset, "size": size, "suffix": suffix, **video.about}


def _add_member(tar: tarfile.TarFile, name: str, file: Any, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, file)


def _open(path: VideoPath) -> Any:
    return path.open() if isinstance(path, PackedVideo) else path.open("rb")


def _suffix(path: VideoPath) -> str:
    suffix = path.suffix.lower()
    return ".video" if suffix in ("", ".json") else suffix


def _make_reader(short_side: int | None) -> Callable[[tuple[int, VideoPath]], bytes | None]:
    limit_memory()

    def read(job: tuple[int, VideoPath]) -> bytes | None:
        _, path = job
        if short_side is None and isinstance(path, Path) and path.is_dir():
            raise ValueError(f"{path}: is a folder of images, which can only be packed with a short side")
        with VideoReader(path, short_side=short_side, num_threads=1) as video:
            if short_side is not None:
                return encode(video)
            for _ in video:  # to its end
                pass
        return None

    return read


def encode(video: VideoReader) -> bytes:
    """A video as MP4, each frame at its time; an odd side loses a pixel."""
    codec = next(name for name in ("libx264", "libopenh264", "mpeg4") if name in av.codecs_available)
    options = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qmax": "5"}}.get(codec, {})
    height, width = (max(2, side - side % 2) for side in (video.height, video.width))
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(video.fps).limit_denominator(1001), options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.gop_size = _KEYFRAME_EVERY
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, _TICKS)
        ends = [*video.times[1:], video.duration]
        for picture, start, end in zip(video, video.times, ends, strict=True):
            frame = av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24")
            frame = frame.reformat(width, height, "yuv420p")
            frame.pts, frame.time_base = round(start * _TICKS), Fraction(1, _TICKS)
            frame.duration = round(end * _TICKS) - frame.pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return content.getvalue()
