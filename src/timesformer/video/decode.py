"""Frames of videos by index: exactly those that decoding the whole file in order would give, only faster.

A video file is demuxed once, without decoding, into a table of presentation times. A wanted frame is reached
by seeking to the keyframe before it and decoding until its time appears, all but the frames that are not wanted and
that no other is predicted from. What is decoded is checked against the table; a file that does not keep to it is read
in order instead: slower, never wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from timesformer.limits import OUT_OF_MEMORY, limit
from timesformer.video.container import check_count, check_size, decoder_options, opened
from timesformer.video.frame_folder import FrameFolder, holds_images
from timesformer.video.packets import UNKNOWN, FrameTable, Sieve, read_table
from timesformer.video.pictures import Converter
from timesformer.video.shards import PackedVideo, VideoPath, find_packed, without_credentials
from timesformer.video.streams import find_film, video_streams

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on

_READ_ERRORS = (av.FFmpegError, OSError, ValueError, MemoryError)
_PROBED_FRAMES = 4  # decoded when a file is opened, to see whether its table of times holds
_WORTH_PROBING = 2**24  # pixels; of larger frames, which are kept in memory meanwhile, only one is
_WORTH_THREADS = 320 * 480  # pixels; a frame of fewer is decoded sooner than handed to another thread
_WORTH_SEEKING = 8  # fewer frames than this are decoded sooner than skipped
_SLOWEST, _FASTEST = 1e-5, 1e6  # frames a second: of time lapses, one a day; of high-speed cameras


class VideoError(Exception):
    """A video cannot be read; the message is one line that names the file and the reason."""


def is_video_path(path: str | Path) -> bool:
    """Whether ``path`` looks like a video: a name with one of ``VIDEO_SUFFIXES``, or a folder of images.

    No file is opened.
    """
    path = Path(path)
    try:
        return holds_images(path) if path.is_dir() else path.suffix.lower() in VIDEO_SUFFIXES
    except OSError:
        return False


class VideoReader:
    """The frames of one video file, GIF, or folder of images (jpg or png, in natural order, taken at 30 fps).

    Of several video streams the film is read, not its thumbnail or preview: see `streams.find_film`. Pixels are 8-bit
    RGB and taken as square; rotation and mirroring that the file asks for are applied; what is transparent is black.
    Pictures whose size differs from the first one's are scaled to it. A file that is cut off ends with its last
    decodable frame. A reader serves one thread.

    Args:
        path: the video file or folder, or a video in a shard.
        short_side: scale frames down until their shorter side is this many pixels; never up.
        num_threads: decoder threads; 0 is one for small frames and the decoder's choice for others, 1 suits
            data-loader workers.

    Attributes:
        fps: mean frame rate, 1/s.
        duration: in seconds, the last frame's own display time included.
        height, width: of the frames as returned, in pixels.
        times: (n,) float64, presentation time of each frame in seconds, the first at 0.

    Raises:
        VideoError: the file cannot be read; also later, from any method, when a damaged file lacks a frame.
    """

    path: VideoPath
    fps: float
    duration: float
    height: int
    width: int
    times: NDArray[np.float64]

    def __init__(self, path: str | VideoPath, *, short_side: int | None = None, num_threads: int = 0) -> None:
        if short_side is not None and short_side < 1:
            raise ValueError(f"short_side is {short_side}, it must be at least 1")
        try:
            self.path = path if isinstance(path, PackedVideo) else Path(path)  # to be named if it can't be looked up
            self.path = path if isinstance(path, PackedVideo) else find_packed(path) or self.path
            if isinstance(self.path, Path) and self.path.is_dir():
                source: FrameFolder | _File = FrameFolder(self.path)
            else:
                source = _File(self.path, num_threads)
            self._to_rgb = Converter(next(source.frames([0])), short_side)
        except _READ_ERRORS as error:
            raise self._failure(error) from None
        self._source = source
        self.height, self.width = self._to_rgb.height, self._to_rgb.width
        self.fps, self.times = source.fps, source.times
        self.duration = float(self.times[-1]) + 1 / self.fps

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.times)

    def frames(self, indices: Sequence[int] | NDArray[np.integer]) -> torch.Tensor:
        """The frames at ``indices``, in the order asked; repeated ones are decoded once.

        Returns:
            (F, H, W, 3) uint8 RGB.

        Raises:
            ValueError: an index lies outside 0 .. len - 1.
            VideoError: the file is damaged and lacks a frame.
        """
        wanted = np.asarray(indices)
        for index in wanted:
            if not 0 <= index < len(self):
                raise ValueError(f"{self.path}: there is no frame {index}, only 0 to {len(self) - 1}")
        self._check_clip(len(wanted))
        clip = torch.empty(len(wanted), self.height, self.width, 3, dtype=torch.uint8)
        once = np.unique(wanted)
        for index, picture in zip(once, self.one_by_one(once.tolist()), strict=True):
            # By NumPy: PyTorch's assignment by a mask is ten times slower, and its threads wait for each other.
            clip.numpy()[wanted == index] = picture.numpy()
        return clip

    def one_by_one(self, indices: Sequence[int]) -> Iterator[torch.Tensor]:
        """The frames at increasing indices, each (H, W, 3) uint8 RGB and decoded once; memory stays constant.

        Raises:
            VideoError: the file is damaged and lacks a frame.
        """
        try:
            for frame in self._source.frames(indices):
                yield torch.from_numpy(self._to_rgb(frame))
        except _READ_ERRORS as error:
            raise self._failure(error) from None

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Every frame in order of presentation, each (H, W, 3) uint8 RGB; memory stays constant."""
        return self.one_by_one(range(len(self)))

    def _check_clip(self, frames: int) -> None:
        if frames * self._to_rgb.largest * 3 > (most := limit("MAX_CLIP_BYTES")):
            raise VideoError(
                f"{self.path}: {frames} frames of {self.width}x{self.height} pixels are more than the {most} bytes "
                "that are allowed at a time (TIMESFORMER_MAX_CLIP_BYTES)"
            )

    def _failure(self, error: Exception) -> VideoError:
        reason = OUT_OF_MEMORY if isinstance(error, MemoryError) else getattr(error, "strerror", None) or error
        return VideoError(without_credentials(f"{self.path}: {reason}"))

    def close(self) -> None:
        """Release the file and its decoder."""
        self._source.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _File:
    """The video stream of a file. Every failure is an OSError that gives the reason, not the file."""

    fps: float
    times: NDArray[np.float64]
    _decoder: Iterator[av.VideoFrame]
    _stream: Any

    def __init__(self, path: VideoPath, num_threads: int) -> None:
        self._path, self._num_threads = path, num_threads
        self._opened = ExitStack()
        self._film: int | None = None
        self._table = FrameTable.of()
        self._rewind()
        table = read_table(self._container, self._stream)
        self._rewind()
        self._head = self._probe()
        self._table = FrameTable.of() if table.is_spliced else self._proven(table)
        times: list[int | None] = self._table.pts.tolist()
        if not times:  # find out the hard way
            self._rewind()
            times = [frame.pts for _, frame in zip(range(limit("MAX_VIDEO_FRAMES") + 1), self._decoder, strict=False)]
            check_count(len(times))
            self._table = table.only(times) if table.is_spliced else FrameTable.of()
            self._rewind()
            self._head = self._probe()
        self._sieve.use(self._table)
        if not times:
            raise OSError(
                "not one frame of it can be decoded; the file is damaged or cut off, or a frame has more than "
                f"{limit('MAX_PIXELS')} pixels (TIMESFORMER_MAX_PIXELS)"
            )
        self.fps, self.times = self._clock(times)
        self._position = len(self._head)
        self._keys = np.flatnonzero(self._table.is_key)
        # Most formats are sought by presentation time, MPEG streams by decode time; what fails is dropped.
        self._seek_times = [self._table.pts, self._table.dts]

    def _probe(self) -> list[av.VideoFrame]:
        """The first frames, which show whether the table of times holds."""
        first = list(islice(self._decoder, 1))
        is_large = bool(first) and first[0].width * first[0].height > _WORTH_PROBING
        return first if is_large else first + list(islice(self._decoder, _PROBED_FRAMES - 1))

    def _rewind(self) -> None:
        """Start over with a fresh demuxer and decoder, which unlike a seek is exact in every format."""
        self._reopen()
        if self._film is None:
            self._film = find_film(self._container)
            if self._film is None:
                raise OSError("holds no video")
            if len(video_streams(self._container)) > 1:  # it may have been read to its end to find the film
                self._reopen()
        self._stream = self._container.streams[self._film]
        if self._stream.codec_context is None:
            raise OSError("its video codec is not one that can be decoded here")
        codec = self._stream.codec_context
        check_size(codec.width, codec.height)
        codec.options = decoder_options()
        codec.thread_count = self._num_threads or (1 if codec.width * codec.height < _WORTH_THREADS else 0)
        codec.thread_type = "NONE" if codec.thread_count == 1 else "AUTO"
        self._position, self._sought = 0, False
        self._start()

    def _reopen(self) -> None:
        self.close()
        self._container = self._opened.enter_context(opened(self._path))

    def _start(self) -> None:
        """Decode from where the demuxer is."""
        self._sieve = Sieve(self._table)
        self._decoder = _decode(self._sieve(self._container.demux(self._stream)))

    def close(self) -> None:
        # The decoder must go now, not when its container, which is part of a cycle, is collected as garbage: if that
        # happened in a process forked meanwhile, which lacks the decoder's threads, it would wait for them for ever.
        self._decoder = iter(())
        self._stream = None
        self._opened.close()

    __del__ = close  # also of a reader that nobody closed

    def _proven(self, table: FrameTable) -> FrameTable:
        """The table from the first frame that decodes on; empty if it proves wrong."""
        head = [frame.pts for frame in self._head]
        # AVI stores no presentation times; the demuxer's guesses fail where frames are reordered.
        guessed = self._container.format.name == "avi" and self._stream.codec_context.has_b_frames
        first = table.place(head[0]) if head else UNKNOWN  # a recording may begin between keyframes
        if guessed or first == UNKNOWN or (np.diff(table.pts) == 0).any():
            return FrameTable.of()
        is_large = self._head[0].width * self._head[0].height > _WORTH_PROBING
        expected = table.pts[first : first + (1 if is_large else _PROBED_FRAMES)].tolist()
        return table.since(first) if head == expected else FrameTable.of()

    def _clock(self, pts: list[int | None]) -> tuple[float, NDArray[np.float64]]:
        """Frame rate and times; a stream without times is taken to be regular."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        stated = float(rate) if rate and rate > 0 else FrameFolder.fps
        known = sorted(time for time in pts if time is not None)
        span = known[-1] - known[0] if len(known) == len(pts) else 0
        if span >= 2**62:
            raise OSError("its frames lie further apart than times can be; the file is damaged")
        seconds = float(span * (self._stream.time_base or 0))
        if seconds <= 0:
            return _plausible(stated), np.arange(len(pts)) / stated
        # Containers round times: prefer the stated rate where the two agree.
        measured = _plausible((len(known) - 1) / seconds)
        times = (np.array(known) - known[0]) * float(self._stream.time_base or 0)
        return (stated if abs(stated / measured - 1) < 0.01 else measured), times

    def frames(self, indices: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Frames at increasing indices."""
        wanted = indices if isinstance(indices, range) else frozenset(indices)
        return (self._frame(index, wanted) for index in indices)

    def _frame(self, index: int, wanted: Collection[int]) -> av.VideoFrame:
        if index < len(self._head):
            return self._head[index]
        if self._sieve.has_skipped(index, index + 1):  # it was not wanted when the decoder came by
            self._position = len(self.times)
        self._sieve.wanted = wanted
        for _ in self._approaches(index, wanted):
            if (frame := self._decode_to(index)) is not None:
                return frame
        raise OSError(f"frame {index} cannot be decoded; the file is damaged")

    def _approaches(self, index: int, wanted: Collection[int]) -> Iterator[None]:
        """Bring the decoder somewhere before ``index``: the best place first, another each time one fails."""
        before = np.searchsorted(self._keys, index, side="right")
        key = int(self._keys[before - 1]) if before and self._seek_times else 0
        if self._position <= index and key <= self._position + _WORTH_SEEKING:
            yield  # it is in a good place already
            if not self._sought and not self._sieve.skipped.any():
                return  # all was read in order: there is no such frame
        while key and self._seek_times:
            self._seek(int(self._seek_times[0][key]))
            self._sieve.wanted = wanted
            yield
            self._seek_times.pop(0)
        self._rewind()  # and decode all
        yield

    def _seek(self, time: int) -> None:
        self._position, self._sought, self._decoder = UNKNOWN, True, iter(())
        try:
            self._container.seek(time, stream=self._stream)
        except av.FFmpegError:
            return
        self._start()

    def _decode_to(self, index: int) -> av.VideoFrame | None:
        """Decode until the frame at ``index``; None if it is missing or if a seek went wrong."""
        for frame in self._decoder:
            if self._position == UNKNOWN and not frame.key_frame:
                continue  # shown before the keyframe, and predicted from what the seek skipped
            place = self._table.place(frame.pts) if len(self._table) else self._position
            if self._sought and not self._may_follow(place):
                return None
            if place == UNKNOWN:
                continue
            self._position = place + 1
            if place >= index:
                return frame if place == index else None
        return None

    def _may_follow(self, place: int) -> bool:
        """Whether the frame there may be the next one: none is lacking but those that were skipped."""
        if place == UNKNOWN or self._position == UNKNOWN:
            return place != UNKNOWN
        return place == self._position or self._sieve.has_skipped(self._position, place)


def _plausible(fps: float) -> float:
    """A rate that a video may have; OSError for others, which come from times that are damaged."""
    if not _SLOWEST <= fps <= _FASTEST:
        raise OSError(f"has {fps:g} frames a second by its times; {_SLOWEST:g} to {_FASTEST:g} are allowed")
    return fps


def _decode(packets: Iterator[av.Packet[av.VideoStream]]) -> Iterator[av.VideoFrame]:
    """The frames of packets in order of presentation; damaged packets are passed over."""
    while True:
        try:
            frames = next(packets).decode()
        except (StopIteration, av.EOFError):
            return
        except MemoryError:
            raise
        except av.FFmpegError:
            continue
        yield from frames
