"""Labelled videos of a split: read from lists, folders, shards or a benchmark's annotation, and parted at random."""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from timesformer.class_names import some
from timesformer.files import replace_file
from timesformer.video.folders import find_split_folders, is_plain_video, read_folders, why_nothing
from timesformer.video.items import SPLITS, DataError, Listing, VideoItem, VideoList, fault_of, split_of
from timesformer.video.lists import by_split, find_lists, read_list, repeated
from timesformer.video.shards import PackedVideo, Shards, read_shards
from timesformer.video.vocabulary import Vocabulary

T = TypeVar("T")


def read_videos(data: str | Path, split: str | None = None, classes: Sequence[str] | None = None) -> VideoList:
    """Reads the videos of a split with their labels. No video is opened; only a benchmark's are looked for.

    Args:
        data: one of
            - the annotation files that the makers of a benchmark publish, see `benchmarks.read_benchmark`;
            - a list: a text file (UTF-8) with a line `path label [label ...]` for each video, or with columns that a
              header line names. Separators are spaces, tabs, commas, semicolons or `|`; paths are relative to the
              list. Paths may hold spaces; one that ends neither in a video suffix nor at an existing folder is best
              quoted, as in CSV files. A column `split` says which split a video belongs to.
            - a folder with lists named train, val, test (.csv, .txt or .tsv), which then count alone;
            - a folder with folders train, val, test, each a folder of class folders;
            - a folder of class folders: CLASS/video, or deeper. Hidden and other files are passed over; a
              folder of images (and no video) is one video;
            - a folder of shards that `pack` wrote, or an address of one for fsspec (s3://..., memory://...).
            Splits may be spelled training, valid, validation, validate, dev, testing, eval, in any case.
        split: "train", "val" or "test"; None is everything. "test" is "val" where there is no test split; any
            other split that is lacking is an error (see `splits`, `hold_out`). A single list without a column for
            splits and a folder of class folders have no splits: all of it is read.
        classes: names that the labels must be mapped to, such as a trained model's.

    Labels are all integers or all names. Integers index `classes.txt` beside the list (a name a line; or
    `index name` lines, which may count from 0 or 1); without it, `classes`; where these are numbers themselves and all
    labels are among them, the labels are names. Without either they are their own names, "1" to the largest one where
    all of these occur, else "0" to the largest one. Names are those of classes.txt, or else the sorted ones that
    occur, in all splits together, so that the splits agree. Where commas or the like follow the path, they separate
    labels, and a blank belongs to a name; elsewhere a name with spaces must be quoted or in classes.txt. `|`, and
    what other fields show to separate labels, does so within a field too. Several labels anywhere make the task a
    multi-label one. What could have been meant otherwise is said in `VideoList.notes`.

    Raises:
        DataError: nothing is there, a line has no label, or one that is not allowed, or columns are not understood.
        OSError: nothing is at the address.
        ValueError: the split is unknown.
    """
    from timesformer.video.benchmarks import read_benchmark  # which imports this module

    if shards := read_shards(data):
        videos = _packed(shards, split, classes)
        if bare := next((item for item in videos.items if not (item.labels or fault_of(item.path))), None):
            raise DataError(f"{bare.path}: has no label; it was packed without")
        return videos
    source = Path(data)
    if benchmark := read_benchmark(source, split, classes):
        return replace(benchmark.videos, missing=benchmark.missing)
    found = find_entries(source)
    chosen = _choose(found.parts, split, source)
    vocabulary = Vocabulary.of(found.parts, source, classes)
    items = tuple(VideoItem(entry.path, vocabulary.labels(entry)) for entry in chosen)
    notes = (*found.notes, *repeated(chosen), *vocabulary.notes)
    return VideoList(items, vocabulary.classes, vocabulary.multi_label, source, notes=notes)


def read_unlabelled(data: str | Path, split: str | None = None) -> VideoList:
    """Reads videos that need no labels: a folder that holds videos itself, or as `read_videos`, labels and all."""
    if shards := read_shards(data):
        return _packed(shards, split)
    source = Path(data)
    if not source.is_dir() or splits(source):
        return read_videos(source, split)
    if paths := [path for path in sorted(source.iterdir()) if is_plain_video(path)]:
        return VideoList(tuple(VideoItem(path, ()) for path in paths), (), False, source)
    return read_videos(source, split)


def _packed(shards: Shards, split: str | None, classes: Sequence[str] | None = None) -> VideoList:
    """The videos of shards, with the indices of their labels among the classes."""
    parts: dict[str, list[tuple[PackedVideo, tuple[str, ...]]]] = defaultdict(list)
    for video, part, labels in shards.videos:
        parts[part].append((video, labels))
    own = shards.classes if classes is None else tuple(classes)
    index = {name: place for place, name in enumerate(own)}
    items = []
    for video, labels in _choose(parts, split, shards.source):
        if unknown := next((label for label in labels if label not in index), None):
            raise DataError(f"{video}: {unknown!r} is no class; allowed: {some(own)}")
        items.append(VideoItem(video, tuple(index[label] for label in labels)))
    return VideoList(tuple(items), own, shards.multi_label, shards.source)


def splits(data: str | Path) -> tuple[str, ...]:
    """Which of "train", "val", "test" `data` has; none for a single list or a folder of class folders."""
    from timesformer.video.benchmarks import benchmark_splits

    if shards := read_shards(data):
        return shards.splits
    source = Path(data)
    if (own := benchmark_splits(source)) is not None:
        return own
    if source.is_file():
        return tuple(split for split in by_split(read_list(source).entries) if split)
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    if lists := find_lists(source):
        return tuple(_parts_of_lists(lists).parts)
    return tuple(find_split_folders(source))


def hold_out(videos: VideoList, fraction: float, seed: int) -> tuple[VideoList, VideoList]:
    """Parts videos at random into (rest, held), both in their old order.

    Of each class, `fraction` of its videos is held, rounded, but one at least (if the fraction is not 0), and
    one at least stays. With several labels a video, a class may get fewer. Raises ValueError unless
    0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction: {fraction} is outside 0 <= fraction < 1")
    left = Counter(label for item in videos.items for label in item.labels)
    room = {label: max(1, round(count * fraction)) if fraction else 0 for label, count in left.items()}
    held = set()
    for at in np.random.default_rng(seed).permutation(len(videos.items)).tolist():
        labels = videos.items[at].labels
        if all(left[label] > 1 and room[label] > 0 for label in labels):
            held.add(at)
            for label in labels:
                left[label] -= 1
                room[label] -= 1
    rest = tuple(item for at, item in enumerate(videos.items) if at not in held)
    return replace(videos, items=rest), replace(videos, items=tuple(videos.items[at] for at in sorted(held)))


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


def write_list(file: Path, videos: VideoList) -> None:
    """Write a list that `read_videos`, given the same classes, reads: absolute paths and the names of the labels."""
    with (
        replace_file(file) as new,
        new.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out,
    ):
        rows = csv.writer(out, quoting=csv.QUOTE_ALL)
        for item in videos.items:
            labels = [videos.classes[label] for label in item.labels]
            path = os.path.abspath(item.path) if isinstance(item.path, Path) else item.path.absolute()
            rows.writerow([path, *labels])


def find_entries(source: Path) -> Listing:
    """The videos that `source` names, by split ("" where it has none), labels unread and perhaps lacking."""
    if source.is_file():
        return _parts_of_list(source)
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    if lists := find_lists(source):
        return _parts_of_lists(lists)
    return read_folders(source)


def _parts_of_list(file: Path) -> Listing:
    """A list by itself. If it is called like a split, others beside it count too, as they must agree on the classes."""
    own = read_list(file)
    parts = by_split(own.entries) or {"": []}
    if len(parts) > 1 and "" in parts:
        parts = {"": own.entries}
    split = split_of(file.stem)
    if "" not in parts or not split:
        return Listing(parts, own.notes)
    others = {other: read_list(path).entries for other, path in find_lists(file.parent).items() if other != split}
    return Listing(parts | others, own.notes)


def _parts_of_lists(lists: Mapping[str, Path]) -> Listing:
    """Lists that are called like splits. A column for splits counts where there is one list; of several, all agree."""
    read = {split: read_list(path) for split, path in lists.items()}
    notes = tuple(note for each in read.values() for note in each.notes)
    if len(read) == 1:
        ((split, only),) = read.items()
        parts = by_split(only.entries)
        return Listing(parts if parts and "" not in parts else {split: only.entries}, notes)
    for split, each in read.items():
        if other := next((entry for entry in each.entries if entry.split not in ("", split)), None):
            raise DataError(
                f"{other.where}: its column says the split {other.split}, the name of the list {split}; allowed: one "
                "list for all splits, or lists that agree"
            )
    return Listing({split: each.entries for split, each in read.items()}, notes)


def _choose(parts: Mapping[str, list[T]], split: str | None, source: Path | str) -> list[T]:
    if split not in (None, *SPLITS):
        raise ValueError(f"split: {split!r} is unknown; allowed: {', '.join(SPLITS)} or None")
    if "" in parts:
        chosen = parts[""]
    elif split is None:
        chosen = [entry for part in parts.values() for entry in part]
    elif split in parts or (split == "test" and "val" in parts):
        chosen = parts[split if split in parts else "val"]
    else:
        raise DataError(f"{source}: has no {split} split; it has {', '.join(parts)}")
    if not chosen:
        raise DataError(
            f"{source}: names no videos{f' for {split}' if split else ''}; allowed: a list of `path label` "
            f"lines, a folder with such lists (train.csv, ...), or one of class folders (CLASS/video.mp4)"
            f"{why_nothing(Path(source))}"
        )
    return chosen
