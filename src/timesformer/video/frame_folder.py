"""A folder of images read as a video: one image a frame, in natural order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order (2.jpg before 10.jpg), hidden files left out."""
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    images = [path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)  # text and number by turns
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


class FrameFolder:
    """The frames of a folder; a folder states no rate, so 30 frames a second are assumed.

    Raises:
        OSError: the folder cannot be read or holds no images; from ``frames``, an image cannot be read.
    """

    fps = 30.0

    def __init__(self, path: Path) -> None:
        self._paths = list_images(path)
        if not self._paths:
            raise OSError(f"the folder holds no images ({', '.join(IMAGE_SUFFIXES)})")
        self.times = np.arange(len(self._paths)) / self.fps

    def frames(self, indices: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Frames, one after the other; from each, OSError if it cannot be read."""
        return (self._frame(index) for index in indices)

    def _frame(self, index: int) -> av.VideoFrame:
        path = self._paths[index]
        try:  # from an open file, as FFmpeg would read a name with "%d" as a pattern
            with path.open("rb") as file, av.open(file, "r") as container:
                frame: av.VideoFrame = next(container.decode(video=0))
                return frame
        except (av.FFmpegError, OSError, IndexError, StopIteration):
            raise OSError(f"{path.name} cannot be read as an image") from None

    def close(self) -> None:
        """Nothing stays open."""
