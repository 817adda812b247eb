"""The videos that the page offers: regular files of one folder, and nothing outside it."""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fastapi.responses import StreamingResponse

from timesformer.app.answers import Refusal
from timesformer.video.decode import is_video_path

_AT_ONCE = 2**18


class Samples:
    """The videos of a folder that are not hidden, as they are when this is made.

    Args:
        folder: or None, for no samples.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder and folder.resolve()
        names = sorted(path.name for path in self._folder.iterdir()) if self._folder else []
        self.names = [name for name in names if self._is_offered(name)]

    def _is_offered(self, name: str) -> bool:
        return not name.startswith(".") and name.isprintable() and is_video_path(name) and self._path(name) is not None

    def _path(self, name: str) -> Path | None:
        """The file of this name, links followed; None if it is none of this folder's."""
        assert self._folder is not None
        try:
            path = (self._folder / name).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return path if path.is_relative_to(self._folder) and path.is_file() else None

    def answer(self, name: str) -> StreamingResponse:
        """The video of this name. Raises Refusal if there is none."""
        missing = Refusal(404, "there is no such sample")
        path = self._path(name) if name in self.names else None
        if path is None:
            raise missing
        try:
            # It may have been replaced meanwhile, by a link or by a pipe, which is not to be waited for.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            raise missing from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise missing
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        size = status.st_size
        return StreamingResponse(_chunks(descriptor, size), headers={"Content-Length": str(size)}, media_type=kind)


def _chunks(descriptor: int, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file, as it may grow meanwhile."""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while size > 0 and (chunk := file.read(min(size, _AT_ONCE))):
            size -= len(chunk)
            yield chunk
