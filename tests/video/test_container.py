"""What a video file may make its reader open, contact and hold: nothing but itself, and no more than the limits."""

from __future__ import annotations

import io
import os
import socket
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.test_decode import write_video
from timesformer.video import orientation, pictures, synthetic
from timesformer.video.check import check_videos
from timesformer.video.decode import VideoError, VideoReader
from timesformer.video.shards import PackedVideo


class Listener:
    """A web server's port on this machine, and whether anybody has come."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def was_contacted(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def packed(path: Path, suffix: str) -> PackedVideo:
    """The video of a shard that has this content."""
    shard = path.with_name(f"{path.name}.tar")
    with tarfile.open(shard, "w") as tar:
        member = tarfile.TarInfo(f"00000000{suffix}")
        member.size = path.stat().st_size
        tar.addfile(member, io.BytesIO(path.read_bytes()))
    return PackedVideo(str(shard), tarfile.BLOCKSIZE, path.stat().st_size, f"00000000{suffix}", suffix)


LISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "SDP": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
    "concat": "ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.ts\n",
    "DASH": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT9S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="a" bandwidth="9">'
    "<BaseURL>http://127.0.0.1:{port}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "RTSP": "RTSPtext\nrtsp://127.0.0.1:{port}/a\n",
    "subtitles": "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,a\n",
}


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".sdp", ".mpd"])
@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("in_a_shard", [False, True])
def test_a_list_of_other_videos_is_refused_by_name(
    kind: str, suffix: str, in_a_shard: bool, listener: Listener, tmp_path: Path
) -> None:
    path = tmp_path / f"video{suffix}"
    path.write_text(LISTS[kind].format(port=listener.port))
    video = packed(path, suffix) if in_a_shard else path
    with pytest.raises(VideoError) as caught:
        VideoReader(video)
    assert str(caught.value).startswith(f"{video}: is not a video but ")
    assert kind in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not listener.was_contacted()


def box(name: bytes, *content: bytes) -> bytes:
    """A part of an MP4 file."""
    inside = b"".join(content)
    return struct.pack(">I4s", 8 + len(inside), name) + inside


def test_an_mp4_file_that_points_to_another_opens_only_itself(tmp_path: Path) -> None:
    """Its data reference says that the samples are in another file, which has them at the same places."""
    frames = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    synthetic.write_video(tmp_path / "other.mp4", frames, fps=8)
    content = (tmp_path / "other.mp4").read_bytes()
    own = box(b"dref", bytes(4), b"\0\0\0\1", box(b"url ", b"\0\0\0\1"))
    assert content.count(own) == 1
    length, lies_first = len(own), content.index(b"mdat") < content.index(b"moov")
    assert lies_first, "so that the places of samples stay"
    for kind, text in {b"url ": bytes(4) + b"file:other.mp4\0", b"alis": alias("other.mp4")}.items():
        reference = box(b"dref", bytes(4), b"\0\0\0\1", box(kind, text))
        grown = content.replace(own, reference)
        for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            at = content.index(parent) - 4
            size = struct.unpack_from(">I", content, at)[0] + len(reference) - length
            grown = grown[:at] + struct.pack(">I", size) + grown[at + 4 :]
        start = content.index(b"mdat") + 4
        end = content.index(b"moov") - 4
        (tmp_path / "pointing.mp4").write_bytes(grown[:start] + bytes(end - start) + grown[end:])
        with pytest.raises(VideoError, match=r"pointing\.mp4: "):
            VideoReader(tmp_path / "pointing.mp4")


def alias(name: str) -> bytes:
    """A Macintosh alias record of a file in the same folder."""
    head = struct.pack(">I4sHH", 0, bytes(4), 150, 2) + bytes(2) + b"\4disk" + bytes(27 - 4)
    record = head + bytes(4 + 2 + 2 + 4) + bytes([len(name)]) + name.encode().ljust(63, b"\0") + bytes(16)
    levels = struct.pack(">hh", 1, 1)  # one up from here, one down to it
    path = f"disk:d:{name}".encode()
    return record + levels + bytes(16) + struct.pack(">hH", 2, len(path)) + path + struct.pack(">hH", -1, 0)


@pytest.mark.parametrize(
    "special", ["/dev/zero", "/dev/stdin", "/proc/self/environ", "/proc/kcore", "/sys/kernel/notes"]
)
def test_what_is_no_regular_file_is_not_opened(special: str, tmp_path: Path) -> None:
    if not os.path.exists(special):
        pytest.skip(f"there is no {special} here")
    (tmp_path / "link.mp4").symlink_to(special)
    for path in (Path(special), tmp_path / "link.mp4"):
        with pytest.raises(VideoError, match=f"^{path}: is not a regular file$"):
            VideoReader(path)


def test_a_pipe_or_a_socket_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "1.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # as the path of a socket must be short
        try:
            server.bind("socket.mp4")
        finally:
            os.chdir(here)
        for name in ("pipe.mp4", "socket.mp4"):
            with pytest.raises(VideoError, match=rf"{name}: is not a regular file$"):
                VideoReader(tmp_path / name)
    with pytest.raises(VideoError, match=r"1\.png cannot be read as an image: is not a regular file"):
        VideoReader(tmp_path)


def gif(width: int, height: int, *, screen: tuple[int, int] | None = None) -> bytes:
    """A GIF of one colour. Its picture is as small as one can be: decoders fill in what is not there."""
    head = b"GIF89a" + struct.pack("<HHBBB", *(screen or (width, height)), 0x80, 0, 0) + bytes(6)
    picture = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"
    return head + picture * 2 + b";"


def png(width: int, height: int) -> bytes:
    """A black PNG image, compressed as well as can be."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compressobj(9)
    rows = b"".join([*(pixels.compress(bytes(width + 1)) for _ in range(height)), pixels.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_pixels_of_a_frame_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big.gif").write_bytes(gif(12000, 12000))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(png(30000, 5000))
    reason = r".* more than 100000000 pixels \(TIMESFORMER_MAX_PIXELS\)"
    with pytest.raises(VideoError, match=r"big\.gif: " + reason):
        VideoReader(tmp_path / "big.gif")
    with pytest.raises(VideoError, match=r"1\.png cannot be read as an image: " + reason):
        VideoReader(tmp_path / "images")
    (tmp_path / "small.gif").write_bytes(gif(100, 80))
    monkeypatch.setenv("TIMESFORMER_MAX_PIXELS", "8000")
    with VideoReader(tmp_path / "small.gif") as video:
        assert (video.height, video.width) == (80, 100)
    monkeypatch.setenv("TIMESFORMER_MAX_PIXELS", "7999")
    with pytest.raises(VideoError, match="is 100x80 pixels: more than the 7999"):
        VideoReader(tmp_path / "small.gif")


def test_frames_that_grow_are_limited_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header says nothing of them: each is a picture of its own."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, side in enumerate([40, 80]):
        (folder / f"{number}.png").write_bytes(png(side, side))
    monkeypatch.setenv("TIMESFORMER_MAX_PIXELS", "2000")
    with VideoReader(folder) as video, pytest.raises(VideoError, match=r"1\.png.* is 80x80 pixels: more than the 2000"):
        video.frames([0, 1])


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_a_thin_strip_is_not_enlarged_beyond_the_limit(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(*size))
    assert VideoReader(tmp_path).frames([0]).shape == (1, size[1], size[0], 3)
    scaled = 224 * 224 * 100_000
    with pytest.raises(
        VideoError, match=f"at a short side of 224 it would have {scaled} pixels: more than the 100000000"
    ):
        VideoReader(tmp_path, short_side=224)


def test_a_clip_of_too_many_bytes_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.write_video(tmp_path / "a.mp4", np.zeros((10, 32, 48, 3), np.uint8), fps=8)
    monkeypatch.setenv("TIMESFORMER_MAX_CLIP_BYTES", str(5 * 32 * 48 * 3))
    with VideoReader(tmp_path / "a.mp4") as video:
        assert len(video.frames(range(5))) == 5
        with pytest.raises(VideoError, match=r"a\.mp4: 6 frames of 48x32 pixels .*TIMESFORMER_MAX_CLIP_BYTES"):
            video.frames(range(6))


def test_frames_and_packets_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write_video(tmp_path / "a.mp4", np.zeros((10, 32, 48, 3), np.uint8), fps=8)
    monkeypatch.setenv("TIMESFORMER_MAX_VIDEO_FRAMES", "10")
    assert len(VideoReader(tmp_path / "a.mp4")) == 10
    monkeypatch.setenv("TIMESFORMER_MAX_VIDEO_FRAMES", "9")
    with pytest.raises(VideoError, match=r"a\.mp4: has more than 9 frames.*TIMESFORMER_MAX_VIDEO_FRAMES"):
        VideoReader(tmp_path / "a.mp4")
    monkeypatch.setenv("TIMESFORMER_MAX_VIDEO_FRAMES", "10")
    monkeypatch.setenv("TIMESFORMER_MAX_PACKET_BYTES", "20")
    with pytest.raises(VideoError, match=r"a\.mp4: has a frame of \d+ bytes.*TIMESFORMER_MAX_PACKET_BYTES"):
        VideoReader(tmp_path / "a.mp4")


def test_a_folder_of_too_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(8, 8))
    monkeypatch.setenv("TIMESFORMER_MAX_VIDEO_FRAMES", "3")
    with pytest.raises(VideoError, match=r"has more than 3 frames.*TIMESFORMER_MAX_VIDEO_FRAMES"):
        VideoReader(tmp_path)


def test_check_does_not_read_what_lies_beside_images(tmp_path: Path) -> None:
    """A folder of images that holds other things too: an endless device, a pipe."""
    folder = tmp_path / "a" / "video"
    folder.mkdir(parents=True)
    for number in range(8):
        (folder / f"{number}.png").write_bytes(png(8, 8))
    (folder / "endless").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    report = check_videos(tmp_path, workers=1, time_limit=30)
    assert (report.readable, report.problems) == (1, ())


# Times and turns


@pytest.mark.parametrize("last", [6, 10**7, 10**12])
def test_frame_rates_that_no_video_has_are_refused(last: int, tmp_path: Path) -> None:
    """Three frames, the last of them after so many milliseconds: three hours are a time lapse, thirty years are not."""
    path = write_video(tmp_path / "a.mkv", "ffv1", {}, times=iter([0, 3, last]), n=3)
    if last == 10**12:
        with pytest.raises(VideoError, match=r"a\.mkv: has 2e-09 frames a second by its times; 1e-05 to 1e\+06 are"):
            VideoReader(path)
    else:
        with VideoReader(path) as video:
            assert video.fps == pytest.approx(2 / (last / 1000))


def test_frames_that_are_turned_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is upright, the next is to be turned by a quarter: both have the size of the first."""
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, :4] = 200  # its left half is bright
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    matrix: list[np.ndarray | None] = [None]
    monkeypatch.setattr(orientation, "_display_matrix", lambda _: matrix[0])
    converter = pictures.Converter(frame, None)
    assert np.array_equal(converter(frame), picture)
    matrix[0] = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], np.int32)  # (x, y) -> (-y, x): a quarter clockwise
    turned = converter(frame)
    assert turned.shape == (4, 8, 3)
    assert (turned[0] == 200).all(), "the left is above"
    assert (turned[-1] == 0).all()
    matrix[0] = np.zeros(9, np.int32)  # means nothing
    assert np.array_equal(converter(frame), picture)


def test_transparent_pictures_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    expected = (picture[..., :3].astype(int) * picture[..., 3:].astype(int) // 255).astype(np.uint8)
    monkeypatch.setattr(pictures, "_ROWS_AT_ONCE", 10)
    assert np.array_equal(pictures._over_black(picture), expected)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".ts", ".mpg", ".flv"])
def test_damaged_files_fail_in_one_line(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESFORMER_MAX_PIXELS", "1000000")
    codec = {".mp4": "libx264", ".ts": "libx264", ".mpg": "mpeg2video", ".flv": "flv"}.get(suffix, "mpeg4")
    content = write_video(tmp_path / f"whole{suffix}", codec, {}, n=10).read_bytes()
    rng = np.random.default_rng(0)
    extremes = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\x7f"]
    start = content.index(b"moov") if suffix == ".mp4" else 0
    messages = []
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(start, min(len(content) - 4, start + 600)))
            damaged[at : at + 4] = extremes[rng.integers(len(extremes))] if rng.random() < 0.6 else rng.bytes(4)
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(damaged)
        try:
            with VideoReader(path, num_threads=1) as video:
                video.frames([0, len(video) - 1])
                assert np.isfinite(video.times).all()
                assert (np.diff(video.times) >= 0).all()
                assert 0 < video.duration < 1e13
        except VideoError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)
