"""Decoded frames as RGB pictures of one size, upright, and none larger than the limits allow."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from timesformer.limits import limit
from timesformer.video.container import check_size
from timesformer.video.orientation import Orientation

_ROWS_AT_ONCE = 2**22  # pixels of a transparent picture that are laid over black at a time


class Converter:
    """Turns decoded frames into RGB arrays of the size of the first one, upright.

    Attributes:
        height, width: of the arrays.
        largest: pixels of a frame for whoever asked for `short_side` and enlarges smaller ones to it.

    Raises:
        OSError: a frame is larger than allowed, or would be at the short side.
    """

    def __init__(self, first: av.VideoFrame, short_side: int | None) -> None:
        self._reformatter = VideoReformatter()  # shared: setting one up costs more than using it
        check_size(first.width, first.height)
        shorter = min(first.width, first.height)
        target = min(shorter, short_side or shorter)
        self.largest = _scaled_pixels(first.width, first.height, short_side or shorter)
        width, height = round(first.width * target / shorter), round(first.height * target / shorter)
        self.width, self.height = (height, width) if Orientation.of(first).swaps_axes else (width, height)

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """(H, W, 3) uint8."""
        check_size(frame.width, frame.height)
        has_alpha = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
        layout = "rgba" if has_alpha else "rgb24"
        orientation = Orientation.of(frame)  # which may be another for each frame
        size = (self.height, self.width) if orientation.swaps_axes else (self.width, self.height)
        scaled = self._reformatter.reformat(frame, *size, layout, interpolation=Interpolation.BILINEAR, threads=1)
        picture = np.asarray(scaled.to_ndarray(), dtype=np.uint8)
        return np.ascontiguousarray(orientation.upright(_over_black(picture) if has_alpha else picture))


def _scaled_pixels(width: int, height: int, short_side: int) -> int:
    """Pixels of a frame at a short side. Raises OSError if they are too many, as of a strip a pixel wide."""
    shorter = min(width, height)
    pixels = short_side * short_side * max(width, height) // shorter
    if short_side > shorter and pixels > (most := limit("MAX_PIXELS")):
        raise OSError(
            f"is {width}x{height} pixels: at a short side of {short_side} it would have {pixels} pixels: "
            f"more than the {most} of a frame that are allowed (TIMESFORMER_MAX_PIXELS)"
        )
    return min(pixels, width * height) if short_side < shorter else pixels


def _over_black(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) with transparency as (H, W, 3) over black, a few rows at a time, as the products need more memory."""
    height, width, _ = picture.shape
    result = np.empty((height, width, 3), np.uint8)
    rows = max(1, _ROWS_AT_ONCE // width)
    for top in range(0, height, rows):
        part = picture[top : top + rows]
        result[top : top + rows] = part[..., :3].astype(np.uint16) * part[..., 3:] // 255
    return result
