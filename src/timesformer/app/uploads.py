"""Space for uploads: a folder of this server's own, bounded in size, and removed at the end whatever the end was."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO

from timesformer.documents import parse_json

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # where there are no such locks, leftovers stay
    fcntl = None

_PREFIX = "timesformer-serve-"
_OWNER = "owner.json"
_SPARE = 16 * 2**20  # bytes of the disk that are left to others
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class NoSpace(Exception):
    """The uploads in hand take all the space there is, and why."""


@dataclass
class Claim:
    """Space for one upload, and its folder.

    Attributes:
        folder: for the upload and what is made of it.
        size: bytes that it may take, so far.
        written: bytes that it takes.
    """

    folder: Path
    size: int = 0
    written: int = 0


class Uploads:
    """All uploads of a server.

    Args:
        most: bytes that they may take together.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.folder: Path | None = None
        self._owner: IO[str] | None = None
        self._claims: dict[int, Claim] = {}
        self._numbers = itertools.count()

    def open(self) -> None:
        """Make the folder, and remove those of servers that were killed."""
        remove_leftovers()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._owner = (self.folder / _OWNER).open("w", encoding="ascii")
        if fcntl is not None:
            # Held as long as this process lives, and by no other: no number of a process that may be given again.
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}, self._owner)
        self._owner.flush()

    def close(self) -> None:
        """Remove the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._owner is not None:
            self._owner.close()
        self.folder = self._owner = None

    @contextmanager
    def claim(self, size: int = 0) -> Iterator[Claim]:
        """A folder for one upload, which is gone afterwards. Raises NoSpace as `grow` does."""
        assert self.folder is not None, "not open"
        number = next(self._numbers)
        claim = Claim(self.folder / str(number))
        self.grow(claim, size)
        self._claims[number] = claim
        try:
            with full_disk_is_no_space():
                claim.folder.mkdir()
            yield claim
        finally:
            del self._claims[number]
            shutil.rmtree(claim.folder, ignore_errors=True)

    def grow(self, claim: Claim, size: int) -> None:
        """Let an upload take `size` bytes in all. Raises NoSpace if all together would take too many."""
        assert self.folder is not None, "not open"
        more = size - claim.size
        if more <= 0:
            return
        if sum(each.size for each in self._claims.values()) + more > self.most:
            raise NoSpace(f"the uploads in hand would take more than {self.most / 2**20:g} MB together")
        unwritten = sum(max(0, each.size - each.written) for each in self._claims.values())
        if unwritten + more > shutil.disk_usage(self.folder).free - _SPARE:
            raise NoSpace("the server's disk is full")
        claim.size = size


@contextmanager
def full_disk_is_no_space() -> Iterator[None]:
    """Raise NoSpace in place of the OSError of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise NoSpace("the server's disk is full") from None
        raise


def remove_leftovers() -> None:
    """Remove the folders of this user's servers on this machine that no longer run."""
    if fcntl is None:
        return
    with suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with suppress(OSError, ValueError):
                status = folder.lstat()
                if folder.is_symlink() or not folder.is_dir() or status.st_uid != os.getuid():
                    continue
                descriptor = os.open(folder / _OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(descriptor, encoding="ascii") as owner:
                    fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or the server runs
                    written = parse_json(owner.read(1000), str(folder))
                    if isinstance(written, dict) and written.get("host") == socket.gethostname():
                        shutil.rmtree(folder, ignore_errors=True)
