"""How a decoded frame is to be turned and mirrored to stand upright.

FFmpeg gives one display matrix a frame, wherever the file keeps it: the track of an MP4, QuickTime or Matroska
file, the stream itself, or the EXIF of a JPEG or PNG picture, which it then takes out of the EXIF.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from numpy.typing import NDArray


class Orientation(NamedTuple):
    """Turning and mirroring by quarter turns: rows and columns change places first, then each may be reversed."""

    swaps_axes: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """That of a frame: its display matrix, (x, y) -> (a x + c y, b x + d y), rounded to quarter turns.

        Raises:
            ValueError: the frame has a matrix, but it cannot be read.
        """
        matrix = _display_matrix(frame)
        if matrix is None:
            return cls()
        a, b, _, c, d, *_ = matrix.tolist()
        swaps_axes = abs(a) < abs(b)
        if swaps_axes:
            a, d = c, b
        return cls(swaps_axes, d < 0, a < 0)

    def upright(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view of a picture (H, W, 3) that stands upright."""
        if self.swaps_axes:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1]


def _display_matrix(frame: av.VideoFrame) -> NDArray[np.int32] | None:
    # Not frame.side_data: that would be in a cycle with the frame and keep its pixels until the garbage is collected.
    items = SideDataContainer.__new__(SideDataContainer)
    has_all = True
    try:
        SideDataContainer.__init__(items, frame)  # type: ignore[call-arg]
    except ValueError:  # PyAV has no name for a type of data, such as EXIF; what comes before it is there
        has_all = False
    for place in range(len(items) - (not has_all)):
        item: Any = items[place]
        if item.type is Type.DISPLAYMATRIX:  # the first of several, as FFmpeg does
            return np.frombuffer(item, dtype=np.int32)
    if not has_all and frame.rotation:
        raise ValueError("the orientation of its frames cannot be read")
    return None
