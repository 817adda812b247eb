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

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timesformer.class_names import some
from timesformer.video.benchmarks.annotation import Found, Row, as_file_name, read_header
from timesformer.video.benchmarks.diving import find_diving
from timesformer.video.benchmarks.howto import find_howto
from timesformer.video.benchmarks.kinetics import KINETICS_COLUMNS, find_kinetics
from timesformer.video.benchmarks.something import find_something
from timesformer.video.decode import VIDEO_SUFFIXES
from timesformer.video.frame_folder import IMAGE_SUFFIXES
from timesformer.video.items import LIST_SUFFIXES, SPLITS, DataError, Entry, VideoItem, VideoList, split_of

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


def _find(source: Path) -> Found | None:
    folder = source if source.is_dir() else source.parent
    if source.is_dir():
        files = _annotation_files(source, *(source / name for name in _ASIDE))
        if _has_path_lists(source, files):
            return None
    elif source.is_file():
        files = _annotation_files(folder) if source.suffix.lower() in (".json", *LIST_SUFFIXES) else []
    else:
        return None
    for find in (find_kinetics, find_something, find_diving, find_howto):
        found = find(files, source)
        if found and (source.is_dir() or source in (*found.lists.values(), *found.others)):
            if found.labels and not found.labels.is_file():
                raise DataError(f"{found.labels}: is not there, and tells what the labels of {found.name} mean")
            here = Path(os.path.abspath(folder))
            root = here.parent if here.name.lower() in _ASIDE else folder
            return replace(found, root=root, only=_only(found, source))
    return None


def _only(found: Found, source: Path) -> str | None:
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
    lists = {file: read_header(file) for file in files if file.parent == folder and _is_named_like_list(file)}
    kinetics = [file for file, header in lists.items() if KINETICS_COLUMNS.issubset(header)]
    frames = [file for file, header in lists.items() if "original_vido_id" in header[0]]  # sic: PySlowFast's lists
    own = [file for file in lists if file not in kinetics and file not in frames]
    if own and kinetics:
        raise DataError(
            f"{folder}: {kinetics[0].name} is an annotation of Kinetics, {own[0].name} a list of `path label` lines; "
            f"keep one kind"
        )
    return bool(own)


def _is_named_like_list(file: Path) -> bool:
    return split_of(file.stem) is not None and file.suffix.lower() in LIST_SUFFIXES


def _choose(found: Found, split: str | None, source: Path) -> tuple[str, ...]:
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


def _unlisted(found: Found, split: str, row: Row, names: Mapping[str, str], classes: Sequence[str] | None) -> str:
    where = f"{found.lists[split]}: {row.names[0]}"
    if row.label in names:
        return f"{where}: {names[row.label]!r} is no class; allowed: {some(classes or ())}"
    listed = found.labels or found.lists.get("train", found.lists[split])
    return f"{where}: {row.label!r} is not in {listed}; allowed: {some(list(names))}"


# Videos on disk


def _locate(root: Path, rows: Iterable[Row]) -> dict[str, str]:
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


def _path(row: Row, videos: Mapping[str, str]) -> Path | None:
    return next((Path(videos[name]) for name in row.names if name in videos), None)


def _place(found: Found, split: str, row: Row, names: Mapping[str, str]) -> Path:
    """Where a video would usually be."""
    label, name = as_file_name(names.get(row.label, row.label)), as_file_name(row.names[0])
    return found.root / found.layout.format(split=split, label=label, name=name)


def _nothing_there(
    found: Found,
    chosen: Sequence[str],
    names: Mapping[str, str],
    parts: Mapping[str, Sequence[Row]],
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
