"""Folders of videos: a folder for each class, perhaps below a folder for each split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from timesformer.video.decode import VIDEO_SUFFIXES, is_video_path
from timesformer.video.items import LIST_SUFFIXES, SPLITS, DataError, Entry, Listing, split_of

_NOT_DATA = frozenset({  # folders that systems and programs make
    "__macosx", "@eadir", "lost+found", "#recycle", "#snapshot", "$recycle.bin", "system volume information",
    "__pycache__",
})  # fmt: skip


def find_videos(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Videos in a folder and all below it, sorted within each: files by suffix, and folders of images.

    Images directly in `folder` are no video. Hidden files and folders, and those that systems make for themselves, are
    passed over; links are followed. `on_error` is called for a folder that cannot be read.
    """
    seen = set()
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if is_data(name))
        if (real := os.path.realpath(here)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        visible = (here / name for name in sorted(files) if not name.startswith("."))
        videos = [path for path in visible if path.suffix.lower() in VIDEO_SUFFIXES]
        yield from videos
        if not videos and here != folder and is_video_path(here):
            yield here


def is_data(name: str) -> bool:
    """Whether a folder of this name may be one of the user's: neither hidden nor made by a system for itself."""
    return not name.startswith(".") and name.lower() not in _NOT_DATA


def is_plain_video(path: Path) -> bool:
    """Whether it is a visible file with a suffix of videos."""
    return path.is_file() and not path.name.startswith(".") and is_video_path(path)


def find_split_folders(folder: Path) -> dict[str, Path]:
    """The folder of each split, see `read_folders`; none where the data has no splits."""
    return _split_folders(_data_folder(folder)[0])[0]


def read_folders(folder: Path) -> Listing:
    """The videos of class folders, or of split folders of class folders, and notes on how they were read.

    A folder that holds nothing but one folder of class folders is read as that one.

    Raises:
        DataError: splits are mixed with other folders of videos, or a folder cannot be read.
    """
    own, notes = _data_folder(folder)
    parts, of_splits = _split_folders(own)
    notes += of_splits
    listing = {}
    for split, part in (parts or {"": own}).items():
        listing[split], of_classes = _class_folders(part)
        notes += of_classes
        if parts and not listing[split] and any(map(is_plain_video, part.iterdir())):
            raise DataError(f"{part}: holds videos, but no class folders; allowed: {part.name}/CLASS/video.mp4")
    lists = [path.name for path in sorted(own.iterdir()) if path.suffix.lower() == ".csv"]
    if lists and any(listing.values()):
        notes += (f"{own}: class folders were read; lists that are not: {', '.join(lists[:6])}",)
    return Listing(listing, notes)


def why_nothing(folder: Path) -> str:
    """What a folder without class folders has instead, for a message; "" if nothing to speak of."""
    if not folder.is_dir():
        return ""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    hints = []
    if count := sum(map(is_plain_video, paths)):
        hints.append(f"it holds {count} videos that are in no class folder")
    if lists := [path.name for path in paths if path.suffix.lower() in LIST_SUFFIXES and path.name != "classes.txt"]:
        hints.append(
            f"it holds lists of other names than those of splits, which --data may name: {', '.join(lists[:6])}"
        )
    return "".join(f"; {hint}" for hint in hints)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if is_data(path.name) and path.is_dir())
    except OSError as error:
        raise _unreadable(error) from None


def _data_folder(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that has the class folders: the given one, or the only one in it, as in many archives; and notes."""
    folders = _subfolders(folder)
    if len(folders) != 1 or split_of(folders[0].name) or (folder / "classes.txt").exists():
        return folder, ()
    only = folders[0]
    inner = _subfolders(only)
    if any(map(is_plain_video, only.iterdir())) or sum(_has_videos(each) for each in inner) < 2:
        return folder, ()
    return only, (f"{folder}: holds {only.name} alone, whose folders were taken for the classes (or splits)",)


def _has_videos(folder: Path) -> bool:
    return next(find_videos(folder), None) is not None


def _split_folders(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folder of each split, and notes; none where folders are classes. `train` beside `bus` may be a class."""
    splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
    others: list[Path] = []
    for path in _subfolders(folder):
        splits.get(split_of(path.name) or "", others).append(path)
    named = [path for paths in splits.values() for path in paths]
    for split, paths in splits.items():
        if len(paths) > 1:
            raise DataError(f"{folder}: holds {paths[0].name} and {paths[1].name}, both of the split {split}; keep one")
    if not named:
        return {}, ()
    classes = [path for path in others if _has_videos(path)]
    if classes and len(named) == 1 and any(map(is_plain_video, named[0].iterdir())):
        return {}, (f"{folder}: {named[0].name!r} was taken for a class, as {classes[0].name!r} is beside it",)
    if classes:
        raise DataError(
            f"{folder}: holds {', '.join(path.name for path in named)}, which are splits by their names, beside other "
            f"folders of videos: {', '.join(path.name for path in classes[:6])}; move the others elsewhere, or rename "
            "the former if they are classes"
        )
    notes: tuple[str, ...] = ()
    if others:
        notes = (f"{folder}: folders beside the splits hold no videos: {', '.join(path.name for path in others[:6])}",)
    return {split: paths[0] for split, paths in splits.items() if paths}, notes


def _class_folders(folder: Path) -> tuple[list[Entry], tuple[str, ...]]:
    """The videos of class folders, and a note on each folder that has none."""
    entries: list[Entry] = []
    notes = []

    def refuse(error: OSError) -> None:
        raise _unreadable(error)

    for path in _subfolders(folder):
        own = [Entry(video, path.name) for video in find_videos(path, refuse)]
        entries += own
        if not own:
            notes.append(_note_on_empty(path))
    return entries, tuple(notes) if entries else ()


def _note_on_empty(folder: Path) -> str:
    """What a folder without videos holds instead."""
    files = (name for _, _, names in os.walk(folder) for name in names if not name.startswith("."))
    suffixes = Counter(os.path.splitext(name)[1].lower() or "without a suffix" for name in files)
    if not suffixes:
        return f"{folder}: is empty, and no class"
    what = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(4))
    return f"{folder}: holds no file with a suffix of videos ({what}), and is no class"


def _unreadable(error: OSError) -> DataError:
    return DataError(f"{error.filename}: cannot be read: {error.strerror}")
