"""Which of a file's video streams is the film: not its thumbnail, its cover or a preview."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import av
from av.stream import Disposition

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails  # of a song or of chapters
_LESSER = Disposition.still_image | Disposition.dependent  # a photograph; layers on top of another stream
_SHARE = 0.9  # of the most frames; previews have a few more or fewer than their films


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video streams of a file without attached pictures, such as a song's cover."""
    return [stream for stream in container.streams.video if not stream.disposition & _PICTURES]


def find_film(container: av.container.InputContainer) -> int | None:
    """The index of the stream that is the film; None if the file holds no video.

    Of several video streams it is one that can be decoded and has more than one frame, if there is such a one; then
    one with the default flag; then the one with the most frames, a tenth more or fewer counting as equal; then the
    one with the largest pictures; then the first. Unless the file states all numbers of frames, it is read to its
    end, and the container cannot be used for anything else.
    """
    streams = video_streams(container)
    if len(streams) < 2:
        return streams[0].index if streams else None
    decodable = [stream for stream in streams if stream.codec_context is not None] or streams
    frames = _count_frames(container, decodable)
    films = [s for s in decodable if frames[s.index] > 1 and not s.disposition & _LESSER] or decodable
    films = [stream for stream in films if stream.disposition & Disposition.default] or films
    most = max(frames[stream.index] for stream in films)
    films = [stream for stream in films if frames[stream.index] >= _SHARE * most]
    return max(films, key=_pixels).index


def _count_frames(container: av.container.InputContainer, streams: Sequence[av.VideoStream]) -> Counter[int]:
    """Frames by the index of the stream: as the file states them, or else its packets."""
    stated = Counter({stream.index: stream.frames for stream in streams})
    if all(stated.values()):
        return stated
    counted: Counter[int] = Counter()
    try:
        for packet in container.demux(streams):
            counted[packet.stream.index] += packet.size > 0
    except av.FFmpegError:  # cut off: what is there decides
        pass
    return counted


def _pixels(stream: av.VideoStream) -> int:
    codec = stream.codec_context
    return codec.width * codec.height if codec is not None else 0
