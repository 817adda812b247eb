"""Where a command may write, seen before it does any work: nothing that is its input, or that another program made."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from timesformer.text import shown

_LARGEST = 2**26  # bytes of a JSON file that is looked into


def check_output(
    path: str | Path,
    what: str,
    *,
    folder: bool = False,
    suffixes: Sequence[str] = (),
    inputs: Iterable[object] = (),
    apart: bool = False,
) -> None:
    """See that an output can be written, and that this takes nothing from the user.

    Args:
        path: what is to be written: one of its names if it has several.
        what: names it in errors, such as `--out`.
        folder: whether it is a folder, or a file.
        suffixes: that a file may have.
        inputs: files and folders that are read; what is no path of a file is passed over. A file that lies in a folder
            among them is not replaced.
        apart: a folder may not lie in one of the inputs either.

    Raises:
        ValueError: one of these things is not so.
    """
    path = Path(path)
    where = f"{what} {shown(path)}"
    if folder and path.exists() and not path.is_dir():
        raise ValueError(f"{where}: is a file; name a folder")
    if not folder and path.is_dir():
        raise ValueError(f"{where}: is a folder; name a file")
    if suffixes and path.suffix.lower() not in suffixes:
        *others, last = suffixes
        raise ValueError(f"{where}: the name must end in {' or '.join(filter(None, [', '.join(others), last]))}")
    for each in inputs:
        _check_input(path, where, each, apart)
    _check_writable(path, where, folder)


def _check_input(path: Path, where: str, source: object, apart: bool) -> None:
    if not isinstance(source, str | Path) or "://" in str(source) or not os.path.exists(source):
        return
    if path.exists() and path.samefile(source):
        if stat.S_ISCHR(path.stat().st_mode):
            return
        raise ValueError(f"{where}: is an input of the command; name another")
    if os.path.isdir(source) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(source)):
        if apart:
            raise ValueError(f"{where}: lies in {shown(source)}, which is an input; name a place outside")
        if path.is_file():
            raise ValueError(f"{where}: is a file of {shown(source)}, which is an input; name another")


def _check_writable(path: Path, where: str, folder: bool) -> None:
    if path.exists() and not folder and not path.is_file():
        return  # written into, as /dev/null
    place = Path(os.path.realpath(path))
    place = place if folder else place.parent
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"{where}: {shown(place)} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{where}: the folder {shown(place)} can't be written to")


def check_replaceable(files: Sequence[Path], keys: Collection[str], what: str) -> None:
    """See that files of which some exist are of this program, so that they may be replaced together.

    Args:
        files: the first is JSON, and is written first.
        keys: that it has.
        what: writes them.

    Raises:
        ValueError: one exists, and the first is not such a file.
    """
    there = [file for file in files if os.path.lexists(file)]
    if there and not has_keys(files[0], keys):
        raise ValueError(f"{shown(there[0])}: exists, and {what} did not write it: move it, or name another place")


def has_keys(file: Path, keys: Collection[str]) -> bool:
    """Whether a file is JSON with these keys."""
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return False
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and set(keys) <= value.keys()


def check_own_folder(folder: Path, marker: str, names: Collection[str], what: str) -> None:
    """See that a folder is empty, or one of a job that was begun: that the file that says which is in it.

    Hidden files are passed over, as none of a job's has such a name.

    Args:
        folder: it need not exist.
        marker: name of the file that says which job it is.
        names: of other files that are a job's only if the marker is there; all, if there are none.
        what: the job.

    Raises:
        ValueError: the folder holds something else.
    """
    there = sorted(name for name in os.listdir(folder) if name[0] != ".") if folder.is_dir() else []
    if marker not in there and there:
        raise ValueError(f"{shown(folder)}: holds {shown(there[0])}, which {what} did not write; name a new folder")
    if foreign := [name for name in there if names and name not in names and name != marker]:
        raise ValueError(f"{shown(folder)}: holds {shown(foreign[0])}, which {what} did not write; name a new folder")
