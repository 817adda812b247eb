"""Whether a video gives fewer pictures than its file promises.

A header is no proof: it may count frames that an edit list cuts away, or give the length of the sound. So where
decoding falls short of the header, the packets of the file are read, and it is they that have to be missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import av

from timesformer.video.streams import find_film

Opener = Callable[[], AbstractContextManager[av.container.InputContainer]]
_SHARE = 0.9  # of the promised frames or seconds; headers are often wrong by a little
_SECONDS = 0.5  # and by so many
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")  # a tag that Matroska files have for each stream


@dataclass(frozen=True)
class _Promise:
    """What a file says of its film, in seconds on the file's clock; 0 where it says nothing.

    Attributes:
        film: the index of its stream.
        frames: their number, those that an edit list cuts away included.
        listed: how many are shown, in files that list them all (MP4 and QuickTime).
        seconds: how long the film lasts, or all streams of the file together if it says no more.
        end: when the film ends.
        end_of_all: when the last of all streams ends.
    """

    film: int
    frames: int
    listed: int
    seconds: float
    end: float
    end_of_all: float

    @classmethod
    def of(cls, container: av.container.InputContainer) -> _Promise | None:
        index = find_film(container)
        if index is None:
            return None
        film = container.streams[index]
        assert isinstance(film, av.VideoStream)
        frames, base, names = film.frames, float(film.time_base or 0), container.format.name.split(",")
        listed = sum(not entry.is_discard for entry in film.index_entries) if frames and "mov" in names else 0
        if film.duration:
            seconds = film.duration * base
            if "avi" in names and film.average_rate:  # FFmpeg shortens it if the file is cut off
                seconds = max(seconds, frames / float(film.average_rate))
            return cls(index, frames, listed, seconds, (film.start_time or 0) * base + seconds, 0)
        whole = (container.duration or 0) / av.time_base
        tag = _DURATION.match(film.metadata.get("DURATION", ""))
        end = sum(float(part) * unit for part, unit in zip(tag.groups(), (3600, 60, 1), strict=True)) if tag else 0
        return cls(index, frames, listed, whole, end, whole)


@dataclass(frozen=True)
class _Contents:
    """What the packets of a file hold, on the file's clock in seconds.

    Attributes:
        frames: packets of the film that are shown.
        first, end: when the film begins and ends.
        end_of_all: when the last of all streams ends.
        has_joints: whether an edit list hides frames between those that are shown, at which a decoder may lose some.
    """

    frames: int
    first: float
    end: float
    end_of_all: float
    has_joints: bool

    @classmethod
    def of(cls, container: av.container.InputContainer, film: int) -> _Contents:
        shown: list[float] = []
        hidden: list[float] = []
        end = end_of_all = 0.0
        try:
            for packet in container.demux():
                time = packet.dts if packet.pts is None else packet.pts
                if not packet.size or time is None or packet.time_base is None:
                    continue
                start = float(time * packet.time_base)
                stop = start + float((packet.duration or 0) * packet.time_base)
                if packet.is_discard:
                    if packet.stream.index == film:
                        hidden.append(start)
                    continue
                end_of_all = max(end_of_all, stop)
                if packet.stream.index == film:
                    shown.append(start)
                    end = max(end, stop)
        except av.FFmpegError:  # cut off
            pass
        first, last = min(shown, default=0.0), max(shown, default=0.0)
        return cls(len(shown), first, end, end_of_all, any(first <= time <= last for time in hidden))


def shortfall(opened: Opener, frames: int, seconds: float) -> str:
    """How what was decoded falls short of what the file promises, in a line; "" if it does not.

    Args:
        opened: opens the file; used once or twice.
        frames: how many were decoded.
        seconds: how long they last.
    """
    with opened() as container:
        promise = _Promise.of(container)
    if promise is None:
        return ""
    if frames >= _SHARE * promise.frames - 1 and seconds >= _SHARE * promise.seconds - _SECONDS:
        return ""
    with opened() as container:
        there = _Contents.of(container, promise.film)
    slack = promise.seconds / promise.frames if promise.frames else _SECONDS  # one frame, where all are counted
    if promise.listed:  # better than times, which edit lists shift
        is_short = there.frames < _SHARE * promise.listed - 1
    else:
        is_short = _ends_early(there.end, promise.end, there.first, slack)
    if is_short:
        if promise.frames:
            return f"only {frames} of {promise.listed or promise.frames} frames decode"
        return f"only {seconds:.1f} s of {promise.end - there.first:.1f} s decode"
    if _ends_early(there.end_of_all, promise.end_of_all, there.first, _SECONDS):
        return f"only {there.end_of_all:.1f} s of {promise.end_of_all:.1f} s are in the file"
    is_whole = not _ends_early(there.first + seconds, there.end, there.first, _SECONDS)
    if frames < _SHARE * there.frames - 1 and not (there.has_joints and is_whole):
        return f"only {frames} of {there.frames} frames decode"
    return ""


def _ends_early(end: float, promised: float, first: float, slack: float) -> bool:
    """Whether what begins at `first` lacks notably much of its end."""
    return promised - end > (1 - _SHARE) * (promised - first) + slack
