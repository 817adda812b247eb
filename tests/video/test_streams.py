"""Files with several video streams: which of them is the film."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from av.stream import Disposition

from timesformer.video.decode import VideoError, VideoReader


class Stream(NamedTuple):
    codec: str
    frames: int
    width: int
    height: int
    disposition: Disposition | None = None


FILM, PREVIEW = Stream("libx264", 30, 160, 120), Stream("libx264", 30, 64, 48)
THUMBNAIL = Stream("mjpeg", 1, 320, 240)
DEFAULT, NOTHING = Disposition.default, Disposition(0)


def write_streams(path: Path, *streams: Stream) -> Path:
    with av.open(str(path), "w") as container:
        written = []
        for each in streams:
            stream = container.add_stream(each.codec, rate=25)
            stream.width, stream.height = each.width, each.height
            stream.pix_fmt = "yuvj420p" if each.codec == "mjpeg" else "yuv420p"
            stream.codec_context.thread_count = 1
            if each.disposition is not None:
                stream.disposition = each.disposition
            written.append(stream)
        for each, stream in zip(streams, written, strict=True):
            for number in range(each.frames):
                picture = np.full((each.height, each.width, 3), 8 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return path


def assert_reads(path: Path, film: Stream) -> None:
    with VideoReader(path) as reader:
        assert (reader.width, reader.height, len(reader)) == (film.width, film.height, film.frames)
        shown = reader.frames([film.frames - 1, 0]).float().mean((1, 2, 3)).tolist()
    assert shown == pytest.approx([min(8 * (film.frames - 1), 255), 0], abs=3)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("streams", "film"),
    [
        ((THUMBNAIL, FILM), 1),
        ((FILM, THUMBNAIL), 0),
        ((THUMBNAIL._replace(disposition=DEFAULT), FILM._replace(disposition=NOTHING)), 1),
        ((PREVIEW._replace(disposition=NOTHING), FILM._replace(disposition=DEFAULT)), 1),
        ((FILM._replace(disposition=NOTHING), PREVIEW._replace(disposition=DEFAULT)), 1),
        ((FILM, PREVIEW), 0),
        ((FILM._replace(disposition=DEFAULT), FILM._replace(width=128, disposition=NOTHING)), 0),
    ],
)
def test_film_of_several_streams(streams: tuple[Stream, ...], film: int, suffix: str, tmp_path: Path) -> None:
    assert_reads(write_streams(tmp_path / f"film.{suffix}", *streams), streams[film])


@pytest.mark.parametrize(
    ("streams", "film"),
    [
        ((PREVIEW, FILM), 1),
        ((PREVIEW._replace(frames=31), FILM), 1),  # a frame more than its film
        ((FILM._replace(frames=3), PREVIEW), 1),  # a few large pictures
        ((FILM, FILM._replace(width=96, height=200)), 0),
        ((FILM._replace(width=120, height=160), FILM), 0),  # two cameras: the first
    ],
)
@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts"])
def test_film_where_no_stream_is_the_default(
    streams: tuple[Stream, ...], film: int, suffix: str, tmp_path: Path
) -> None:
    none = [stream._replace(disposition=NOTHING, codec="mpeg4") for stream in streams]
    assert_reads(write_streams(tmp_path / f"film.{suffix}", *none), none[film])


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    cover = THUMBNAIL._replace(disposition=Disposition.attached_pic)
    assert_reads(write_streams(tmp_path / "film.mp4", cover, FILM), FILM)
    write_streams(tmp_path / "song.mp4", cover)
    with pytest.raises(VideoError, match="holds no video"):
        VideoReader(tmp_path / "song.mp4")
    assert_reads(write_streams(tmp_path / "picture.mp4", THUMBNAIL), THUMBNAIL)


def test_a_file_with_one_video_stream_is_opened_as_often_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    av_open = av.open

    def counting(file: str, *args: object, **options: object) -> object:
        opened.append(file)
        return av_open(file, *args, **options)  # type: ignore[call-overload]

    write_streams(tmp_path / "film.mp4", FILM)
    monkeypatch.setattr(av, "open", counting)
    VideoReader(tmp_path / "film.mp4").close()
    assert len(opened) == 2


def test_data_beside_the_film(tmp_path: Path) -> None:
    """As cameras write positions and times of day: never taken for pictures."""
    path = tmp_path / "film.ts"
    with av.open(str(path), "w") as container:
        data = container.add_data_stream("klv")
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(30):
            packet = av.Packet(bytes(16))
            packet.stream, packet.pts, packet.dts, packet.time_base = data, number, number, Fraction(1, 25)
            container.mux(packet)
            picture = np.full((48, 64, 3), 8 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert_reads(path, PREVIEW)
