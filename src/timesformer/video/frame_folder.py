"""A folder of images read as a video: one image a frame, in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from timesformer.limits import limit
from timesformer.video.container import check_count, check_regular, check_size, decoder_options, opened
from timesformer.video.shards import FilePart
from timesformer.video.streams import video_streams

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order (2.jpg before 10.jpg), hidden files left out."""
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    images = [path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=_natural)


def holds_images(folder: Path) -> bool:
    """Whether a folder has an image that `list_images` would list; it may hold many."""
    with os.scandir(folder) as entries:
        return any(not entry.name.startswith(".") and entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries)


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
        check_count(len(self._paths))
        self.times = np.arange(len(self._paths)) / self.fps

    def frames(self, indices: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Frames, one after the other; from each, OSError if it cannot be read."""
        return (self._frame(index) for index in indices)

    def _frame(self, index: int) -> av.VideoFrame:
        path = self._paths[index]
        try:  # by another name, as FFmpeg would read one with "%d" as a pattern
            check_regular(path)
            with (
                FilePart(path.open("rb"), 0, path.stat().st_size, f"image{path.suffix}") as file,
                opened(file) as container,
            ):
                codec = video_streams(container)[0].codec_context
                check_size(codec.width, codec.height)
                codec.options = decoder_options()
                frame: av.VideoFrame = next(container.decode(video=0))
                check_size(frame.width, frame.height)
                return frame
        except (av.FFmpegError, IndexError, StopIteration, AttributeError):
            most = f"{limit('MAX_PIXELS')} pixels (TIMESFORMER_MAX_PIXELS)"
            raise OSError(f"{path.name} cannot be read as an image: it is damaged, or has more than {most}") from None
        except OSError as error:
            raise OSError(f"{path.name} cannot be read as an image: {error.strerror or error}") from None

    def close(self) -> None:
        """Nothing stays open."""
