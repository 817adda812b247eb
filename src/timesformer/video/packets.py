"""What the packets of a video stream say about its frames, and which packets a decoder can do without.

Nothing is decoded here. Where packets cannot be trusted, the table is empty or says so, and the caller decodes.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import av
import numpy as np
from numpy.typing import NDArray

from timesformer.limits import limit
from timesformer.video.container import check_count

UNKNOWN = -1  # the place of a frame that is not in the table
_SMALLEST_PICTURE = 16  # bytes; a smaller MPEG-4 packet may only stand for a dropped picture
_ALL = range(2**62)
_SLICES = range(1, 6)  # types of H.264 units that are parts of a picture


@dataclass(frozen=True)
class FrameTable:
    """What packets say about their frames without being decoded, in order of presentation; arrays, for long videos.

    Attributes:
        pts: when each is shown, in units of the stream's time base; sorted.
        dts: when it is decoded.
        is_key: whether it needs no frame before it.
        is_alone: whether no other frame is predicted from it.
        is_spliced: whether an edit list joins pieces of the recording, so that frames which are decoded but not
            shown lie between those that are shown. Only decoding tells which frames come out at such a joint.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    is_alone: NDArray[np.bool_]
    is_spliced: bool = False

    @classmethod
    def of(cls, rows: Sequence[int] | array[int] = (), *, is_spliced: bool = False) -> FrameTable:
        """A table of the four values of each frame, one frame after the other, in any order."""
        pts, dts, is_key, is_alone = np.array(rows, np.int64).reshape(-1, 4).T
        order = np.argsort(pts, kind="stable")
        return cls(pts[order], dts[order], is_key[order].astype(bool), is_alone[order].astype(bool), is_spliced)

    def __len__(self) -> int:
        return len(self.pts)

    def since(self, first: int) -> FrameTable:
        """Without the frames before one."""
        return self._take(slice(first, None))

    def only(self, times: Sequence[int | None]) -> FrameTable:
        """Only the frames of these times, which decoding gave one after the other; empty if they do not fit.

        None of them is then skipped when others are decoded: at a joint, frames that nothing is predicted from still
        decide which ones the decoder gives out.
        """
        places = [self.place(time) for time in times]
        if UNKNOWN in places or (np.diff(places) <= 0).any() or (np.diff(self.pts) == 0).any():
            return FrameTable.of()
        kept = self._take(np.array(places, np.int64))
        return replace(kept, is_alone=np.zeros(len(kept), bool))

    def _take(self, places: slice | NDArray[np.int64]) -> FrameTable:
        pts, dts, is_key, is_alone = self.pts[places], self.dts[places], self.is_key[places], self.is_alone[places]
        return FrameTable(pts, dts, is_key, is_alone, self.is_spliced)

    def place(self, pts: int | None) -> int:
        """The index of the frame that is shown at a time."""
        place = len(self) if pts is None else int(self.pts.searchsorted(pts))
        return place if place < len(self) and self.pts[place] == pts else UNKNOWN


def read_table(container: av.container.InputContainer, stream: av.VideoStream) -> FrameTable:
    """The table of all frames of a stream, from its packets; empty where they cannot tell.

    Raises:
        OSError: a packet is larger, or there are more of them, than the limits allow.
    """
    codec, rows, hidden = stream.codec_context.name, array("q"), array("q")
    most_frames, most_bytes = limit("MAX_VIDEO_FRAMES"), limit("MAX_PACKET_BYTES")
    extradata = stream.codec_context.extradata if codec == "h264" else None
    try:
        for packet in container.demux(stream):
            if not packet.size:  # the stream's end
                continue
            if packet.is_discard:  # decoded, but not shown: an edit list cuts it away
                if packet.pts is not None:
                    hidden.append(packet.pts)
                continue
            if codec == "vp8" and not memoryview(packet)[0] & 0x10:  # a reference that is never shown
                continue
            if packet.size > most_bytes:
                raise OSError(
                    f"has a frame of {packet.size} bytes, more than {most_bytes} (TIMESFORMER_MAX_PACKET_BYTES)"
                )
            dropped = codec == "mpeg4" and packet.size < _SMALLEST_PICTURE
            if packet.pts is None or packet.is_corrupt or dropped:
                return FrameTable.of()
            dts = packet.pts if packet.dts is None else packet.dts
            alone = not packet.is_keyframe and _is_alone(packet, extradata)
            rows.extend((packet.pts, dts, packet.is_keyframe, alone))
            check_count(max(len(rows) // 4, len(hidden)), most_frames)
    except MemoryError:
        raise
    except av.FFmpegError:  # the file is cut off
        return FrameTable.of()
    table = FrameTable.of(rows)
    times = np.array(hidden, np.int64)
    # One cut at the beginning or at the end hides only what is before the first or after the last frame shown.
    is_spliced = len(table) > 0 and bool(((times >= table.pts[0]) & (times <= table.pts[-1])).any())
    return replace(table, is_spliced=is_spliced)


def _is_alone(packet: av.Packet[av.VideoStream], extradata: bytes | None) -> bool:
    """Whether an H.264 packet says that no frame is predicted from it; False where it does not tell.

    Its units are each preceded by their length, in as many bytes as the extradata of such files (avcC) say.
    """
    if not extradata or len(extradata) < 7 or extradata[0] != 1:
        return False
    data, place, width = memoryview(packet), 0, (extradata[4] & 3) + 1
    while place + width < len(data):
        start = place + width
        length = int.from_bytes(data[place:start], "big")
        if not 1 <= length <= len(data) - start:  # it is laid out in another way
            return False
        if data[start] & 31 in _SLICES:
            return not data[start] >> 5 & 3
        place = start + length
    return False


class Sieve:
    """Keeps from a decoder the packets of frames that are not wanted and that nothing depends on.

    Attributes:
        wanted: the indices of frames that are.
        skipped: whether each frame is one that the decoder was not given.
    """

    def __init__(self, table: FrameTable) -> None:
        self.wanted: Collection[int] = _ALL
        self.use(table)

    def use(self, table: FrameTable) -> None:
        """Go by another table from here on."""
        self._table, self.skipped = table, np.zeros(len(table), bool)

    def has_skipped(self, first: int, end: int) -> bool:
        """Whether the decoder was given none of one or more frames."""
        return first < end <= len(self.skipped) and bool(self.skipped[first:end].all())

    def __call__(self, packets: Iterator[av.Packet[av.VideoStream]]) -> Iterator[av.Packet[av.VideoStream]]:
        for packet in packets:
            place = self._table.place(packet.pts)
            if packet.is_discard or place == UNKNOWN or not self._table.is_alone[place] or place in self.wanted:
                yield packet
            else:
                self.skipped[place] = True
