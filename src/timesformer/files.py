"""Writing files so that what was there stays until the new one is complete, and so that it is the user's as before."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timesformer.fonts import fitting_fonts
from timesformer.lock import is_running
from timesformer.text import json_text, shown, text_of

PICTURES = (".png", ".svg", ".pdf")  # suffixes of what `save_figure` writes
_UNFINISHED = re.compile(r"\.(\d+)(-[0-9a-f]{8})?\..+", re.DOTALL)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST = 200  # bytes of a name that stay in the name of the file that is being written; a name has 255 at most
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")


class OutputError(OSError):
    """A file can't be written; what was of its name stays."""


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same suffix to write to; it becomes `path` when the block ends without error.

    A symbolic link stays, and the file that it names is replaced. The file keeps its permissions and, as far as this
    process may, its owner and group; other hard links to it keep the old content. What is no regular file, such as
    /dev/null, /dev/stdout or a named pipe, is not replaced: the new content is written into it.

    Raises:
        OutputError: it can't be written, as on a full disk.
    """
    path = Path(path)
    target = _target(path)
    new: Path | None = None
    try:
        if target is None:
            with tempfile.TemporaryDirectory() as folder:
                new = Path(folder) / f"new{path.suffix}"
                new.touch()
                yield new
                _write_into(path, new)
            return
        new, before = _create(target)
        yield new
        with new.open("r+b") as file:  # on disk before it takes the name: a power cut leaves the old file or the new
            os.fsync(file.fileno())
        _keep_rights(new, before)
        os.replace(new, target)
    except OutputError:
        raise
    except Exception as error:
        reason = _why_not_written(error, new)
        if reason is None:
            raise
        raise OutputError(f"{path} can't be written ({reason})") from error
    finally:
        if new is not None:
            new.unlink(missing_ok=True)


def _target(path: Path) -> Path | None:
    """The file that is to be replaced, behind symbolic links; None for what is written into."""
    target = path
    for _ in range(40):
        if str(target.absolute()).startswith(_STREAMS):  # redirected to a file, it is still what the shell has open
            return None
        if not target.is_symlink():
            break
        target = Path(os.path.realpath(target.parent)) / os.readlink(target)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISREG(target.stat().st_mode) and not target.is_dir():
            return None
    return target


def _create(target: Path) -> tuple[Path, os.stat_result]:
    """An empty file beside the target, and what the target is, or if there is none what a new file is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # On a disk that several machines share, processes of the same number may write the same file.
    name = os.fsdecode(os.fsencode(target.name)[-_LONGEST:])
    new = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{name}")
    if not os.path.exists(target):
        new.touch(exist_ok=False)
        return new, new.stat()
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # what is private is so from its first byte
    return new, target.stat()


def _keep_rights(new: Path, before: os.stat_result) -> None:
    """Give a file the permissions, owner and group that another had: libraries may have made it again as they like."""
    now = new.stat()
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(OSError):  # only the superuser may give a file away
            os.chown(new, before.st_uid, before.st_gid)
    new.chmod(stat.S_IMODE(before.st_mode))


def _write_into(path: Path, new: Path) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as out, new.open("rb") as content:
        shutil.copyfileobj(content, out)


def _why_not_written(error: BaseException, new: Path | None) -> str | None:
    """Why the file can't be written, if that is what an error is about; libraries wrap it in errors of their own."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, OSError):
            ours = new is None or str(each.filename) == str(new)
            if ours or each.errno in _FULL:
                return each.strerror or str(each)
        elif match := re.search(r"\(os error (\d+)\)", str(each)):  # of a library in Rust
            return os.strerror(int(match[1]))
        each = each.__cause__ or each.__context__
    return None


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove what killed writers left of files whose names match, in a folder whose lock this process holds."""
    for file in folder.glob(f".*.{pattern}"):
        match = _UNFINISHED.fullmatch(file.name)
        if match and not is_running(int(match[1])):
            file.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, in place of what was there."""
    write_text(path, json_text(value) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, in place of what was there; what is no valid Unicode in it is escaped."""
    with replace_file(path) as new:
        new.write_text(text_of(text), encoding="utf-8")


def check_same_job(file: Path, identity: str, what: str) -> None:
    """Write what a job is that may be cut off and go on; ValueError where the file is of another one.

    Args:
        file: of the job.
        identity: what must be the same to go on.
        what: the folder holds, if it is of another job.
    """
    identity = text_of(identity)
    if file.exists():
        if file.read_bytes() == identity.encode():
            return
        raise ValueError(f"{file.parent} holds {what}: remove it to start again")
    write_text(file, identity)


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as CSV, in place of what was there."""
    with replace_file(path) as new, new.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([text_of(cell) for cell in row] for row in rows)


def save_figure(path: Path, figure: Any) -> None:
    """Write a matplotlib figure in the format that the path's suffix names, in place of what was there."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # "$" in the name of a file or class is no formula
        text.set_text(shown(text.get_text(), lines=True))
    with (
        replace_file(path) as new,
        new.open("wb") as out,
        rc_context({"text.parse_math": False}),
        fitting_fonts(figure),
    ):
        try:
            FigureCanvasAgg(figure).print_figure(out, format=path.suffix[1:].lower() or "png", dpi=150)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
