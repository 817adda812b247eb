"""Writing files so that what was there stays until the new one is complete."""

from __future__ import annotations

import csv
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same suffix to write to; it becomes `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # On a disk that several machines share, processes of the same number may write the same file.
    new = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{path.name}")
    try:
        new.touch()
        mode = new.stat().st_mode
        yield new
        new.chmod(mode)  # as the user's files are: safetensors writes files that nobody else may read
        with new.open("r+b") as file:  # on disk before it takes the name: a power cut leaves the old file or the new
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove what is left of files whose writers were killed, where nothing writes any more."""
    for file in folder.glob(f".*.{pattern}"):
        file.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, in place of what was there."""
    with replace_file(path) as new:
        new.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def check_same_job(file: Path, told: str, what: str) -> None:
    """Write what a job is that may be cut off and go on; ValueError where it is another that `file` tells of."""
    if file.exists() and file.read_text(encoding="utf-8", errors="surrogateescape") != told:
        raise ValueError(f"{file.parent} holds {what}: remove it to start anew")
    with replace_file(file) as new:
        new.write_text(told, encoding="utf-8", errors="surrogateescape")


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as CSV, in place of what was there; file names that are no text stay as they are."""
    with replace_file(path) as new, new.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out:
        csv.writer(out).writerows(rows)


def save_figure(path: Path, figure: Any) -> None:
    """Write a matplotlib figure in the format that the path's suffix names, in place of what was there."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # "$" in the name of a file or class is no formula
    with replace_file(path) as new, rc_context({"text.parse_math": False}):
        try:
            FigureCanvasAgg(figure).print_figure(new, format=path.suffix[1:].lower() or "png", dpi=150)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
