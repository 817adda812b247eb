"""The paper's benchmarks, read from the annotation files that their makers publish.

Kinetics (400 and 600), Something-Something-V2, Diving-48 (V2) and HowTo100M. Annotation files are looked for in a
folder, or in its folder `annotations`, `labels` or `metadata`; videos anywhere below, by name alone, in any video
format or as folders of frames. So class folders, split folders and flat folders all do, under whatever names. No
video is opened. One that is not there is left out and named in `Benchmark.missing`: of videos that are downloaded
one by one, many are gone.

`path label` lists (train.csv, ...) in the same folder come first: whoever wrote them wants them. The lists of frames
that PySlowFast has beside the files of Something-Something are no such lists.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from timesformer.video.datasets import LIST_SUFFIXES, SPLITS, DataError, Entry, VideoItem, VideoList
from timesformer.video.decode import VIDEO_SUFFIXES
from timesformer.video.frame_folder import IMAGE_SUFFIXES

HOWTO_MIN_VIDEOS = 100  # of a task that counts as a class
HOWTO_TRAIN_SHARE = 85 / 120  # the paper's 85K of 120K videos
HOWTO_SEED = 0

_ASIDE = ("annotations", "annotation", "labels", "metadata")  # folders for annotation files beside the videos


@dataclass(frozen=True)
class Benchmark:
    """The videos of a benchmark that are on disk.

    Attributes:
        name: "Kinetics", "Something-Something-V2", "Diving-48" or "HowTo100M".
        videos: those that were found, in the order of the annotation.
        missing: the names, without suffix, of those that the annotation lists and that were not.
    """

    name: str
    videos: VideoList
    missing: tuple[str, ...]


def benchmark_name(data: str | Path) -> str | None:
    """Which benchmark's annotation `data`, a file or a folder, is; see `Benchmark.name`. None: no benchmark's."""
    found = _find(Path(data))
    return found.name if found else None


def benchmark_splits(data: str | Path) -> tuple[str, ...] | None:
    """Which of "train", "val", "test" have labels; none for the annotation of one split; None: no benchmark's."""
    found = _find(Path(data))
    return found.splits if found else None


def read_benchmark(
    data: str | Path, split: str | None = None, classes: Sequence[str] | None = None
) -> Benchmark | None:
    """Reads the videos of a split with their labels, or returns None if `data` is no benchmark's annotation.

    Args:
        data: a folder of annotation files and videos, or one annotation file, of which all is read.
            - Kinetics: CSV files with the columns label, youtube_id, time_start, time_end, named after their
              split: train.csv, validate.csv, kinetics-400_val.csv, ...; videos ID_000010_000020.mp4 or ID.mp4.
              Classes are the sorted labels of the training videos (of all, where their list is not there).
            - Something-Something-V2: something-something-v2-labels.json, -train.json, -validation.json, or
              the newer labels.json, train.json, ...; videos ID.webm. Test videos count where test-answers.csv is
              there.
            - Diving-48: Diving48_V2_train.json, Diving48_V2_test.json, Diving48_vocab.json; videos NAME.mp4,
              which are cut already: their start_frame and end_frame are not needed.
            - HowTo100M: HowTo100M_v1.csv and task_ids.csv; videos ID.mp4. Classes are the tasks of at least 100
              videos, in the order of their ids. A video of several tasks belongs to the one that it ranks best
              in, of equals to the one with the smaller id. The authors drew 85K of 120K videos at random to train
              on and did not publish which; here they are drawn by a hash of the video's id, so that the split is
              always the same, whatever is on disk.
        split: as in `read_videos`: "test" is "val" where the test labels were not published; None is everything.
        classes: names that the labels must be mapped to, such as a trained model's. Case, and underscores for
            spaces, do not matter. Where they are mere numbers, one a class, the order of the classes counts.

    Raises:
        DataError: an annotation file cannot be read, lacks its companion, or names a label that is none; the split
            is lacking; or none of its videos is there, and then the message says what to put where.
        ValueError: the split is unknown.
    """
    source = Path(data)
    found = _find(source)
    if found is None:
        return None
    chosen = _choose(found, split, source)
    names, parts = found.read(found)
    videos = _locate(found.root, (row for part in parts.values() for row in part))
    index = _indices(names, classes)
    items = []
    missing = []
    for part in chosen:
        for row in parts[part]:
            if row.label not in index:
                raise DataError(_unlisted(found, part, row, names, classes))
            if path := _path(row, videos):
                items.append(VideoItem(path, (index[row.label],)))
            else:
                missing.append(row.names[0])
    if not items:
        raise DataError(_nothing_there(found, chosen, names, parts, videos))
    own = tuple(names.values()) if classes is None else tuple(classes)
    return Benchmark(found.name, VideoList(tuple(items), own, False, source), tuple(missing))


def benchmark_entries(data: str | Path) -> dict[str, list[Entry]] | None:
    """All that a benchmark's annotation lists, by split, labels unchecked; a missing video is where it belongs.

    None, and the errors raised, as in `read_benchmark`, but for labels and videos that are not there.
    """
    found = _find(Path(data))
    if found is None:
        return None
    names, parts = found.read(found)
    videos = _locate(found.root, (row for part in parts.values() for row in part))
    return {
        split: [
            Entry(_path(row, videos) or _place(found, split, row, names), names.get(row.label, row.label))
            for row in parts[split]
        ]
        for split in _choose(found, None, Path(data))
    }


def take_fraction(videos: VideoList, fraction: float, seed: int) -> VideoList:
    """A random part of the videos in their old order, as for Figure 4; a larger fraction holds the smaller ones.

    Of each class `fraction` of its videos is kept, rounded, but one at least. Of videos with several labels, those
    that have the same rarest class are such a group, and each class still keeps one. Raises ValueError unless
    0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: {fraction} is outside 0 < fraction <= 1")
    sizes = Counter(label for item in videos.items for label in item.labels)
    groups: dict[int, list[int]] = defaultdict(list)
    covered: set[int] = set()
    kept: set[int] = set()
    for at in np.random.default_rng(seed).permutation(len(videos.items)).tolist():
        labels = videos.items[at].labels
        if not covered.issuperset(labels):
            kept.add(at)
            covered.update(labels)
        groups[min(labels, key=lambda label: (sizes[label], label), default=-1)].append(at)
    for group in groups.values():
        kept.update(group[: round(len(group) * fraction)])
    return replace(videos, items=tuple(videos.items[at] for at in sorted(kept)))


# What an annotation says


class _Row(NamedTuple):
    """A listed video: what its file may be called, best first, and what the annotation calls its label."""

    names: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class _Found:
    """The files of a benchmark.

    Attributes:
        lists: the file of each split whose labels are published.
        labels: the file that says what the labels mean, if the benchmark has one.
        others: files that are the benchmark's, but list no labelled videos.
        layout: where a video is usually put.
        read: the name of each class by what the annotation calls it, in order; and the rows of each split.
        root: the folder that the videos are in, at whatever depth.
        only: the split that alone was asked for, by its file.
    """

    name: str
    lists: Mapping[str, Path]
    labels: Path | None
    others: tuple[Path, ...]
    layout: str
    read: Callable[[_Found], tuple[dict[str, str], dict[str, list[_Row]]]]
    root: Path = Path()
    only: str | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return () if self.only else tuple(split for split in SPLITS if split in self.lists)


def _find(source: Path) -> _Found | None:
    folder = source if source.is_dir() else source.parent
    if source.is_dir():
        files = _annotation_files(source, *(source / name for name in _ASIDE))
        if _has_path_lists(source, files):
            return None
    elif source.is_file():
        files = _annotation_files(folder) if source.suffix.lower() in (".json", *LIST_SUFFIXES) else []
    else:
        return None
    for find in (_find_kinetics, _find_something, _find_diving, _find_howto):
        found = find(files, source)
        if found and (source.is_dir() or source in (*found.lists.values(), *found.others)):
            if found.labels and not found.labels.is_file():
                raise DataError(f"{found.labels}: is not there, and tells what the labels of {found.name} mean")
            here = Path(os.path.abspath(folder))
            root = here.parent if here.name.lower() in _ASIDE else folder
            return replace(found, root=root, only=_only(found, source))
    return None


def _only(found: _Found, source: Path) -> str | None:
    """The split whose file `source` is. Raises DataError where nothing that was found has labels."""
    mine = [split for split, file in found.lists.items() if file == source]
    if not found.lists or (not mine and not source.is_dir()):
        file = source if source.is_file() else found.others[0]
        allowed = ", ".join(path.name for path in dict.fromkeys(found.lists.values())) or "a list with labels"
        raise DataError(f"{file}: of {found.name}: lists no videos with labels; allowed: {allowed}")
    return mine[0] if len(mine) == 1 else None


def _annotation_files(*folders: Path) -> list[Path]:
    """Files of these folders, where they exist, that may be annotation by their suffix; sorted in each."""
    files = []
    for folder in filter(Path.is_dir, folders):
        with os.scandir(folder) as entries:
            maybe = (entry for entry in entries if entry.name.lower().endswith((".json", *LIST_SUFFIXES)))
            names = [entry.name for entry in maybe if entry.is_file() and not entry.name.startswith(".")]
        files += [folder / name for name in sorted(names)]
    return files


def _has_path_lists(folder: Path, files: list[Path]) -> bool:
    """Whether `read_videos` finds lists in a folder, and rightly; DataError where one is Kinetics' annotation."""
    lists = {file: _header(file) for file in files if file.parent == folder and _is_named_like_list(file)}
    kinetics = [file for file, header in lists.items() if _KINETICS_COLUMNS.issubset(header)]
    frames = [file for file, header in lists.items() if "original_vido_id" in header[0]]  # sic: PySlowFast's lists
    own = [file for file in lists if file not in kinetics and file not in frames]
    if own and kinetics:
        raise DataError(
            f"{folder}: {kinetics[0].name} is an annotation of Kinetics, {own[0].name} a list of `path label` lines; "
            f"keep one kind"
        )
    return bool(own)


def _is_named_like_list(file: Path) -> bool:
    return file.stem in SPLITS and file.suffix in LIST_SUFFIXES


def _choose(found: _Found, split: str | None, source: Path) -> tuple[str, ...]:
    """The splits to read."""
    if split not in (None, *SPLITS):
        raise ValueError(f"split: {split!r} is unknown; allowed: {', '.join(SPLITS)} or None")
    if found.only:
        return (found.only,)
    if split is None:
        return found.splits
    if split in found.lists:
        return (split,)
    if split == "test" and "val" in found.lists:
        return ("val",)
    raise DataError(f"{source}: has no {split} split; it has {', '.join(found.splits)}")


# Classes


def _indices(names: Mapping[str, str], classes: Sequence[str] | None) -> dict[str, int]:
    """From what the annotation calls a label to its class's index; without the labels that are none of `classes`."""
    if classes is None or list(classes) == [str(i) for i in range(len(names))]:
        return {label: index for index, label in enumerate(names)}
    exact = {name: index for index, name in enumerate(classes)}
    loose = {_plain(name): index for index, name in enumerate(classes)}
    found = {label: exact.get(name, loose.get(_plain(name))) for label, name in names.items()}
    return {label: index for label, index in found.items() if index is not None}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _unlisted(found: _Found, split: str, row: _Row, names: Mapping[str, str], classes: Sequence[str] | None) -> str:
    where = f"{found.lists[split]}: {row.names[0]}"
    if row.label in names:
        return f"{where}: {names[row.label]!r} is no class; allowed: {_some(classes or ())}"
    listed = found.labels or found.lists.get("train", found.lists[split])
    return f"{where}: {row.label!r} is not in {listed}; allowed: {_some(names)}"


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:6]) + (f", ... ({len(shown)} in all)" if len(shown) > 6 else "")


# Videos on disk


def _locate(root: Path, rows: Iterable[_Row]) -> dict[str, str]:
    """Paths of the videos below a folder by the names that rows give them; of several the first by sorted folders.

    The folder is walked once, as there can be a million rows. What is inside a folder of frames is not listed.
    """
    wanted = {name for row in rows for name in row.names}
    videos: dict[str, str] = {}
    seen = set()
    for parent, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        for file in sorted(files):
            name, suffix = os.path.splitext(file)
            if name in wanted and suffix.lower() in VIDEO_SUFFIXES:
                videos.setdefault(name, os.path.join(parent, file))
        visible = sorted(name for name in folders if not name.startswith("."))
        frames = {name for name in visible if name in wanted and _starts_with_image(os.path.join(parent, name))}
        for name in frames:
            videos.setdefault(name, os.path.join(parent, name))
        folders[:] = [name for name in visible if name not in frames]
    return videos


def _starts_with_image(folder: str) -> bool:
    """Whether the first visible thing in a folder, in no order, is an image: it may hold thousands."""
    try:
        with os.scandir(folder) as entries:
            first = next((entry.name for entry in entries if not entry.name.startswith(".")), "")
    except OSError:
        return False
    return first.lower().endswith(IMAGE_SUFFIXES)


def _path(row: _Row, videos: Mapping[str, str]) -> Path | None:
    return next((Path(videos[name]) for name in row.names if name in videos), None)


def _place(found: _Found, split: str, row: _Row, names: Mapping[str, str]) -> Path:
    """Where a video would usually be."""
    label = names.get(row.label, row.label)
    return found.root / found.layout.format(split=split, label=label, name=row.names[0])


def _nothing_there(
    found: _Found,
    chosen: Sequence[str],
    names: Mapping[str, str],
    parts: Mapping[str, Sequence[_Row]],
    videos: Mapping[str, str],
) -> str:
    files = ", ".join(dict.fromkeys(found.lists[split].name for split in chosen))
    what = f"{sum(len(parts[split]) for split in chosen)} {' and '.join(chosen)} videos"
    message = f"{found.root}: holds none of the {what} that {files} lists"
    if example := next(((split, row) for split in chosen for row in parts[split]), None):
        place = _place(found, *example, names)
        message += (
            f"; put them below it, in folders of any name, such as {place} (or of another video format, or a "
            f"folder of frames: {place.with_suffix('')}/000001.jpg)"
        )
    others = [split for split in found.splits if any(_path(row, videos) for row in parts[split])]
    return message + (f"; there are videos of {', '.join(others)}" if others else "")


# Kinetics

_KINETICS_COLUMNS = frozenset(["youtube_id", "time_start", "time_end"])
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|validation|validate|val|test)(?![a-z])", re.I)


def _find_kinetics(files: list[Path], source: Path) -> _Found | None:
    # Lists of the same name but for the split belong together: kinetics-400_train.csv and kinetics-400_val.csv.
    families: dict[str, dict[str, Path]] = {}
    unlabelled = []
    for file in files:
        word = _SPLIT_WORD.search(file.stem)
        if file.suffix.lower() not in LIST_SUFFIXES or not (word or file == source):
            continue
        if not _KINETICS_COLUMNS.issubset(header := _header(file)):
            continue
        if "label" not in header:
            unlabelled.append(file)
            continue
        split = _split(word[0]) if word else "train"
        family = families.setdefault(_SPLIT_WORD.sub("*", file.stem, count=1), {})
        if (other := family.setdefault(split, file)) != file and source.is_dir():
            raise DataError(f"{source}: holds both {other.name} and {file.name}; keep one")
        if file == source:
            family[split] = file
    mine = [family for family in families.values() if source.is_dir() or source in family.values()]
    if len(mine) > 1:
        names = ", ".join(next(iter(family.values())).name for family in mine)
        raise DataError(f"{source}: holds annotations of several releases: {names}; keep one, or name one of the files")
    if not mine and not unlabelled:
        return None
    lists = mine[0] if mine else {}
    return _Found("Kinetics", lists, None, tuple(unlabelled), "{split}/{label}/{name}.mp4", _read_kinetics)


def _split(word: str) -> str:
    return "val" if word.lower().startswith("val") else word.lower()


def _read_kinetics(found: _Found) -> tuple[dict[str, str], dict[str, list[_Row]]]:
    parts = {split: list(_kinetics_rows(file)) for split, file in found.lists.items()}
    rows = parts["train"] if "train" in parts else [row for part in parts.values() for row in part]
    return {label: label for label in sorted({row.label for row in rows if row.label})}, parts


def _kinetics_rows(file: Path) -> Iterator[_Row]:
    for line, (label, video, start, end) in _records(file, "label", "youtube_id", "time_start", "time_end"):
        first, last = _integer(start, file, line), _integer(end, file, line)
        yield _Row((f"{video}_{first:06d}_{last:06d}", video), label)


# Something-Something-V2


def _find_something(files: list[Path], source: Path) -> _Found | None:
    there = {file.name.lower(): file for file in reversed(files)}
    for prefix in ("something-something-v2-", ""):
        names = {"train": "train.json", "val": "validation.json", "test": "test-answers.csv"}
        lists = {split: there[prefix + name] for split, name in names.items() if prefix + name in there}
        if "val" not in lists and f"{prefix}val.json" in there:
            lists["val"] = there[f"{prefix}val.json"]
        if not lists.keys() & {"train", "val"}:
            continue
        labels = _beside(lists, f"{prefix}labels.json", there)
        if not prefix and _label_indices(labels) is None:
            continue  # without the prefix the names say little, so that the content must
        others = (labels, *(there[name] for name in [f"{prefix}test.json"] if name in there))
        layout = "20bn-something-something-v2/{name}.webm"
        return _Found("Something-Something-V2", lists, labels, others, layout, _read_something)
    return None


def _label_indices(file: Path) -> dict[str, int] | None:
    """The labels of a file and their numbers; None if it holds anything else."""
    try:
        content = _json(file)
    except DataError:
        return None
    if not isinstance(content, dict) or not all(str(number).isdecimal() for number in content.values()):
        return None
    return {label: int(number) for label, number in content.items()}


def _read_something(found: _Found) -> tuple[dict[str, str], dict[str, list[_Row]]]:
    assert found.labels is not None
    indices = _label_indices(found.labels)
    if indices is None or sorted(indices.values()) != list(range(len(indices))):
        raise DataError(
            f"{found.labels}: is no object of labels and their numbers, from 0 up, each once, as in "
            f'{{"Closing something": "0"}}'
        )
    parts = {}
    for split, file in found.lists.items():
        rows = _answers(file) if file.suffix.lower() == ".csv" else _objects(file, "id", "template")
        parts[split] = [_Row((video,), label.replace("[", "").replace("]", "")) for video, label in rows]
    return {name: name for name in sorted(indices, key=indices.__getitem__)}, parts


def _answers(file: Path) -> Iterator[tuple[str, str]]:
    """The lines `id;label` of a file; labels hold commas."""
    for line in _text(file).splitlines():
        video, _, label = line.partition(";")
        if video.strip():
            yield video.strip(), label.strip().strip('"')


# Diving-48


def _find_diving(files: list[Path], source: Path) -> _Found | None:
    there = {file.name.lower(): file for file in reversed(files)}
    names = {split: f"diving48_v2_{split}.json" for split in ("train", "test")}
    lists = {split: there[name] for split, name in names.items() if name in there}
    if not lists:
        return None
    vocabulary = _beside(lists, "Diving48_vocab.json", there)
    return _Found("Diving-48", lists, vocabulary, (vocabulary,), "rgb/{name}.mp4", _read_diving)


def _read_diving(found: _Found) -> tuple[dict[str, str], dict[str, list[_Row]]]:
    assert found.labels is not None
    dives = _json(found.labels)
    if not isinstance(dives, list) or not all(isinstance(dive, list | str) for dive in dives):
        raise DataError(f"{found.labels}: is no list of classes, each a list of four words")
    names = {str(i): dive if isinstance(dive, str) else " ".join(map(str, dive)) for i, dive in enumerate(dives)}
    parts = {
        split: [_Row((video,), label) for video, label in _objects(file, "vid_name", "label")]
        for split, file in found.lists.items()
    }
    return names, parts


# HowTo100M


def _find_howto(files: list[Path], source: Path) -> _Found | None:
    there = {file.name.lower(): file for file in reversed(files)}
    if "howto100m_v1.csv" not in there:
        return None
    lists = dict.fromkeys(("train", "test"), there["howto100m_v1.csv"])
    tasks = _beside(lists, "task_ids.csv", there)
    return _Found("HowTo100M", lists, tasks, (tasks,), "videos/{name}.mp4", _read_howto)


def _read_howto(found: _Found) -> tuple[dict[str, str], dict[str, list[_Row]]]:
    assert found.labels is not None
    tasks = _best_tasks(found.lists["train"])
    counts = Counter(tasks.values())
    classes = sorted(task for task, count in counts.items() if count >= HOWTO_MIN_VIDEOS)
    if not classes:
        raise DataError(f"{found.lists['train']}: none of its {len(counts)} tasks has {HOWTO_MIN_VIDEOS} videos")
    large = set(classes)
    videos = [video for video, task in tasks.items() if task in large]
    shuffled = sorted(videos, key=lambda video: hashlib.sha256(f"{HOWTO_SEED} {video}".encode()).digest())
    train = set(shuffled[: round(len(videos) * HOWTO_TRAIN_SHARE)])
    parts: dict[str, list[_Row]] = {"train": [], "test": []}
    for video in videos:
        parts["train" if video in train else "test"].append(_Row((video,), str(tasks[video])))
    return _titles(found.labels, classes), parts


def _best_tasks(file: Path) -> dict[str, int]:
    """The task of each video: the one whose search it came up in first."""
    best: dict[str, tuple[int, int]] = {}
    for line, (video, rank, task) in _records(file, "video_id", "rank", "task_id"):
        candidate = (_integer(rank, file, line), _integer(task, file, line))
        best[video] = min(best.get(video, candidate), candidate)
    return {video: task for video, (_, task) in best.items()}


def _titles(file: Path, tasks: list[int]) -> dict[str, str]:
    """The titles of tasks by their id, each once: equal ones have the id added."""
    # Tabs or commas separate, and titles hold commas themselves.
    lines = re.findall(r'^"?(\d+)"?[ ]*[\t,][ ]*"?(.+?)"?[ ]*$', _text(file), re.M)
    titles = {int(task): title for task, title in lines}
    known = {task: titles[task] for task in tasks if task in titles}
    counts = Counter(known.values())
    return {str(task): title if counts[title] == 1 else f"{title} ({task})" for task, title in known.items()}


# Files


def _beside(lists: Mapping[str, Path], name: str, there: Mapping[str, Path]) -> Path:
    """The file of this name, or where it would be: beside the lists. `there` is by names in lower case."""
    return there.get(name.lower()) or next(iter(lists.values())).with_name(name)


def _header(file: Path) -> list[str]:
    """The column names of a CSV file; [""] at least."""
    try:
        with file.open("rb") as content:
            line = content.readline(4096).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    return [name.strip().strip('"').lower() for name in line.split(",")]


def _records(file: Path, *columns: str) -> Iterator[tuple[int, list[str]]]:
    """The line number and these columns of each line of a CSV file."""
    header = _header(file)
    if lacking := [name for name in columns if name not in header]:
        raise DataError(f"{file}: has no column {lacking[0]}; it has {', '.join(header)}")
    at = [header.index(name) for name in columns]
    try:
        with file.open(encoding="utf-8-sig", newline="") as content:
            reader = csv.reader(content)
            next(reader)
            for row in filter(None, reader):
                if len(row) <= max(at):
                    raise DataError(f"{file}:{reader.line_num}: has {len(row)} of {len(header)} columns")
                yield reader.line_num, [row[i].strip() for i in at]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: is no CSV file in UTF-8: {error}") from None


def _integer(text: str, file: Path, line: int) -> int:
    try:
        return int(text) if text.isdecimal() else int(float(text))
    except (ValueError, OverflowError):
        raise DataError(f"{file}:{line}: {text!r} is no number") from None


def _objects(file: Path, *keys: str) -> Iterator[tuple[str, ...]]:
    """These values of each object in a JSON list."""
    entries = _json(file)
    if not isinstance(entries, list):
        raise DataError(f"{file}: is no list of objects with {' and '.join(keys)}")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise DataError(f"{file}: entry {number} is no object with {' and '.join(keys)}")
        yield tuple(str(entry[key]) for key in keys)


def _json(file: Path) -> object:
    try:
        content: object = json.loads(_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file}: is no JSON: {error}") from None
    return content


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file}: is no text in UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
