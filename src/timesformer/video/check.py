"""Every video of a dataset decoded to its last frame, to find the faulty ones before training does."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import av

from timesformer.class_names import some
from timesformer.memory import limit_memory
from timesformer.video.benchmarks import benchmark_entries
from timesformer.video.container import check_regular, opened
from timesformer.video.datasets import find_entries
from timesformer.video.decode import VideoError, VideoReader
from timesformer.video.digests import index_digests, shard_names, shard_problems
from timesformer.video.folders import find_videos
from timesformer.video.frame_folder import list_images
from timesformer.video.items import DataError, Entry, Listing, NoLabel
from timesformer.video.lists import find_lists
from timesformer.video.shards import PackedVideo, Shards, VideoPath, read_shards
from timesformer.video.streams import find_film
from timesformer.video.truncation import shortfall
from timesformer.video.vocabulary import Vocabulary
from timesformer.workers import QUICKEST, JobError, WorkerLost, Workers

Kind = Literal[
    "unreadable",  # no frame, or not every frame of the file's own index, can be decoded
    "audio_only",  # sound, or a cover picture, without video
    "truncated",  # notably fewer frames or seconds can be decoded than the file promises
    "short",  # fewer frames than asked for
    "missing",  # a list names it, but it is not there
    "unlabelled",  # no list or class folder labels it
    "bad_label",  # its label is no class
    "duplicate",  # the same content as another video of the data, or named twice
    "damaged",  # a shard whose bytes are not those that were packed
]
_UNEVEN = 5  # times as many videos as another class has
_QUANTITIES = ("frames", "height", "width", "fps")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a video, or with the line that names it; `reason` is one line."""

    kind: Kind
    path: VideoPath
    reason: str


@dataclass(frozen=True)
class Range:
    """The least and the greatest of a quantity over the videos that could be decoded."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.least:g}" if self.least == self.most else f"{self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class CheckReport:
    """What `check_videos` found.

    Attributes:
        source: the list or folder.
        videos, readable: how many were looked at, and how many of them decode.
        problems: in the order of the files.
        classes: videos per class, by split ("all" where the data has no splits).
        ranges: of "frames", "height", "width" (px) and "fps"; empty if no video decodes.
        stray_files: visible files of the folder that are neither videos nor lists.
        notes: how the data was read where it could have been meant otherwise, what could not be checked and why, and
            what is no fault but spoils a model: classes of one video, or of far fewer than others.
    """

    source: Path | str
    videos: int
    readable: int
    problems: tuple[Problem, ...]
    classes: dict[str, dict[str, int]]
    ranges: dict[str, Range]
    stray_files: int
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are videos and no problems. Stray files are none."""
        return self.videos > 0 and not self.problems

    def to_json(self) -> dict[str, object]:
        """The report as plain values; the keys are always the same, and `problems` has one for each kind."""
        return {
            "source": str(self.source),
            "ok": self.ok,
            "videos": self.videos,
            "readable": self.readable,
            "problems": {
                kind: [{"path": str(p.path), "reason": p.reason} for p in self.problems if p.kind == kind]
                for kind in get_args(Kind)
            },
            "classes": self.classes,
            "ranges": {
                name: [self.ranges[name].least, self.ranges[name].most] if self.ranges else None for name in _QUANTITIES
            },
            "stray_files": self.stray_files,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The report as text."""
        if not self.videos:
            return [f"{self.source}: there are no videos", *self._notes()]
        truncated = sum(problem.kind == "truncated" for problem in self.problems)
        of_them = f", of them {truncated} truncated" if truncated else ""
        lines = [f"{self.source}: {self.videos} videos, {self.readable} readable{of_them}"]
        for split, counts in self.classes.items():
            sizes = Range(min(counts.values()), max(counts.values()))
            lines.append(f"{split}: {sum(counts.values())} labels, {len(counts)} classes of {sizes} videos")
        lines += [f"{name}: {range_}" for name, range_ in self.ranges.items()]
        if self.stray_files:
            lines.append(f"files that are no videos: {self.stray_files}")
        for kind in get_args(Kind):
            found = [problem for problem in self.problems if problem.kind == kind]
            if found:
                lines.append(f"{kind.replace('_', ' ')}: {len(found)}")
                lines += [f"  {problem.path}: {problem.reason}" for problem in found]
        return [*lines, *self._notes(), "no problems" if self.ok else f"problems: {len(self.problems)}"]

    def _notes(self) -> list[str]:
        return [f"note: {note}" for note in self.notes]


def check_videos(
    data: str | Path,
    *,
    workers: int | None = None,
    min_frames: int = 8,
    time_limit: float = 300,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decodes every frame of every video of a dataset, or of any folder of videos, and reports what is wrong.

    Args:
        data: what `read_videos` takes; videos that are in the folder but in no list are decoded as well. Of shards,
            the bytes are compared with the digests of their index too.
        workers: processes that decode; as many as there are processors by default.
        min_frames: videos with fewer frames are reported as short.
        time_limit: seconds for one video, after which its decoder is stopped. A decoder that crashes or hangs
            costs its own video only.
        progress: called with (done, total) after each video.

    Raises DataError where `data` is no list or folder, or a list cannot be read at all.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers: {workers}; allowed: 1 or more, or None")
    if shards := read_shards(data):
        return _check_shards(shards, workers or os.cpu_count() or 1, min_frames, time_limit, progress)
    source = Path(data)
    benchmark = benchmark_entries(source)
    listing = Listing(benchmark) if benchmark else find_entries(source)
    parts = listing.parts
    named: dict[VideoPath, Entry] = {}
    repeated = []
    for entry in (entry for part in parts.values() for entry in part):
        earlier = named.setdefault(entry.path, entry)
        if earlier is not entry:
            repeated.append(Problem("duplicate", entry.path, f"{entry.where}: {earlier.where} names it already"))
    known = {_place(path) for path in named}
    extra = [path for path in _walk(source) if os.path.abspath(path) not in known]
    missing = {path for path in named if isinstance(path, Path) and not os.path.exists(path)}
    videos = [path for path in (*named, *extra) if path not in missing]
    facts = _inspect_all(videos, workers or os.cpu_count() or 1, time_limit, progress)

    classes, problems, notes = _labels(parts, source)
    problems += repeated
    problems += [Problem("missing", path, f"{named[path].where}: no such file or folder") for path in missing]
    problems += [Problem("unlabelled", path, "no list or class folder names it") for path in extra]
    problems += _problems_of_content(facts, videos, min_frames)
    order = {path: at for at, path in enumerate((*named, *extra))}
    readable = [fact for fact in facts.values() if fact.digest]
    return CheckReport(
        source=source,
        videos=len(order),
        readable=len(readable),
        problems=tuple(sorted(problems, key=lambda problem: order[problem.path])),
        classes=classes,
        ranges={name: _range(readable, name) for name in _QUANTITIES if readable},
        stray_files=_count_stray(source, known.union(map(os.path.abspath, extra))),
        notes=(*listing.notes, *notes, *_notes_on_counts(classes)),
    )


def _check_shards(
    shards: Shards, workers: int, min_frames: int, time_limit: float, progress: Callable[[int, int], None] | None
) -> CheckReport:
    """Shards against their digests, and every video in them decoded."""
    digests = index_digests(shards.source)
    problems = [Problem(kind, Path(shard), reason) for kind, shard, reason in shard_problems(shards, digests)]
    names = {shard.rpartition("/")[2] for shard in shard_names(shards)}
    without = sorted(names - digests.keys())
    note = f"not compared with digests, as the index has none for them: {len(without)} of {len(names)} shards"
    videos: list[VideoPath] = [video for video, _, _ in shards.videos]
    facts = _inspect_all(videos, workers, time_limit, progress)
    classes: dict[str, Counter[str]] = {}
    for _, split, labels in shards.videos:
        classes.setdefault(split or "all", Counter(dict.fromkeys(shards.classes, 0))).update(labels)
    readable = [fact for fact in facts.values() if fact.digest]
    return CheckReport(
        source=shards.source,
        videos=len(videos),
        readable=len(readable),
        problems=(*problems, *_problems_of_content(facts, videos, min_frames)),
        classes={split: dict(counts) for split, counts in classes.items() if counts},
        ranges={name: _range(readable, name) for name in _QUANTITIES if readable},
        stray_files=0,
        notes=(note,) if without else (),
    )


def _problems_of_content(facts: dict[VideoPath, _Facts], videos: list[VideoPath], min_frames: int) -> list[Problem]:
    """What decoding the videos showed, in their order."""
    problems = []
    first: dict[str, VideoPath] = {}
    for path in videos:
        fact = facts[path]
        if fact.problem:
            problems.append(Problem(fact.problem, path, fact.reason))
        if fact.digest and fact.frames < min_frames:
            problems.append(Problem("short", path, f"has {fact.frames} of at least {min_frames} frames"))
        if fact.digest and (same := first.setdefault(fact.digest, path)) != path:
            problems.append(Problem("duplicate", path, f"has the same content as {same}"))
    return problems


def _place(path: VideoPath) -> str:
    return os.path.abspath(path) if isinstance(path, Path) else str(path.absolute())


def _walk(source: Path) -> list[Path]:
    return list(find_videos(source)) if source.is_dir() else []


def _labels(
    parts: Mapping[str, list[Entry]], source: Path
) -> tuple[dict[str, dict[str, int]], list[Problem], tuple[str, ...]]:
    """Videos per class by split, the lines whose labels cannot be used, and notes on how labels were read."""
    problems = []
    try:
        vocabulary = Vocabulary.of(parts, source)
    except DataError as error:  # in classes.txt, or in the labels as a whole
        first = [entry for part in parts.values() for entry in part][:1]
        return {}, [Problem("bad_label", entry.path, str(error)) for entry in first], ()
    counts = {split or "all": Counter(dict.fromkeys(vocabulary.classes, 0)) for split in parts}
    for split, part in parts.items():
        for entry in part:
            try:
                labels = vocabulary.labels(entry)
            except NoLabel as error:
                problems.append(Problem("unlabelled", entry.path, str(error)))
            except DataError as error:
                problems.append(Problem("bad_label", entry.path, str(error)))
            else:
                counts[split or "all"].update(vocabulary.classes[label] for label in labels)
    return {split: dict(count) for split, count in counts.items() if count}, problems, vocabulary.notes


def _notes_on_counts(classes: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """What the numbers of videos of the classes to learn from say: those of one video, or of far fewer than others."""
    split = next((name for name in ("train", "all") if name in classes), None)
    counts = {name: count for name, count in classes[split].items() if count} if split else {}
    if not counts:
        return ()
    notes = []
    if single := [name for name, count in counts.items() if count == 1]:
        notes.append(f"{split}: {len(single)} of {len(counts)} classes have one video alone: {some(single)}")
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[most] >= _UNEVEN * counts[least]:
        sizes = f"{counts[least]} videos of {least!r}, {counts[most]} of {most!r}"
        notes.append(f"{split}: classes are of very different sizes: {sizes}")
    return tuple(notes)


def _count_stray(source: Path, known: set[str]) -> int:
    """Visible files below a folder that are not known (as absolute paths), nor part of a known one."""
    if not source.is_dir():
        return 0
    lists = {source / "classes.txt", *find_lists(source).values()}
    known = known.union(map(os.path.abspath, lists))
    stray = 0
    for parent, folders, files in os.walk(os.path.abspath(source)):
        folders[:] = [name for name in folders if name[0] != "." and os.path.join(parent, name) not in known]
        stray += sum(name[0] != "." and os.path.join(parent, name) not in known for name in files)
    return stray


def _range(facts: list[_Facts], name: str) -> Range:
    values = [getattr(fact, name) for fact in facts]
    return Range(min(values), max(values))


# One video


@dataclass(frozen=True)
class _Facts:
    """What decoding a video told; `digest` is that of its content, and "" if it does not decode."""

    problem: Kind | None = None
    reason: str = ""
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0
    digest: str = ""


def _inspect(path: VideoPath) -> _Facts:
    frames = 0
    try:
        with VideoReader(path, num_threads=1) as video:
            for _ in video:
                frames += 1
    except VideoError as error:
        if frames and (shortfall := _shortfall(path, frames, float(video.times[frames - 1]))):
            return _Facts("truncated", shortfall)
        reason = str(error).removeprefix(f"{path}: ")
        return _Facts("audio_only" if _has_only_sound(path) else "unreadable", reason)
    shortfall = _shortfall(path, frames, video.duration)
    kind: Kind | None = "truncated" if shortfall else None
    return _Facts(kind, shortfall, frames, video.height, video.width, video.fps, _digest(path))


def _has_only_sound(path: VideoPath) -> bool:
    try:
        with opened(path) as container:
            return bool(container.streams.audio) and find_film(container) is None
    except (av.FFmpegError, OSError, ValueError):
        return False


def _shortfall(path: VideoPath, frames: int, seconds: float) -> str:
    """How the frames that were decoded fall short of what the file promises; "" if they do not."""
    if isinstance(path, Path) and path.is_dir():
        return ""
    return shortfall(partial(opened, path), frames, seconds)


def _digest(path: VideoPath) -> str:
    digest = hashlib.sha256()
    for file in list_images(path) if isinstance(path, Path) and path.is_dir() else [path]:
        if isinstance(file, Path):
            check_regular(file)
        with file.open() if isinstance(file, PackedVideo) else file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# Many videos, in processes that may crash or hang


def _inspect_all(
    videos: list[VideoPath], workers: int, time_limit: float, progress: Callable[[int, int], None] | None
) -> dict[VideoPath, _Facts]:
    facts: dict[VideoPath, _Facts] = {}
    with Workers(_make_inspect, count=min(workers, len(videos)), method=QUICKEST) as pool:
        for path, found in pool.results(videos, time_limit) if videos else ():
            if isinstance(found, WorkerLost):
                found = _Facts("unreadable", str(found))
            elif isinstance(found, JobError):  # whatever it is, it is this video's, and must not end the job
                found = _Facts("unreadable", f"{type(found.__cause__).__name__}: {found}")
            facts[path] = found
            if progress is not None:
                progress(len(facts), len(videos))
    return facts


def _make_inspect() -> Callable[[VideoPath], _Facts]:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where decoders write their complaints
    limit_memory()
    return _inspect
