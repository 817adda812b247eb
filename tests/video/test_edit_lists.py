"""MP4 files that show pieces of what they hold, as editors and phones write them, against a decode in order."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from timesformer.video import packets
from timesformer.video.decode import VideoReader

Edit = tuple[int, int | None]  # how many frames, and from which one on; None shows nothing for so long
LENGTH, FPS, SIZE = 60, 25, (96, 64)
X265 = "bframes=3:keyint=12:min-keyint=12:scenecut=0:log-level=none"
FORMS = {
    "no B-frames": ("libx264", {"bf": "0", "g": "60", "sc_threshold": "0"}),
    "closed groups": ("libx264", {"bf": "2", "g": "12", "sc_threshold": "0"}),
    "open groups": ("libx265", {"x265-params": f"{X265}:open-gop=1"}),
    "pyramid": ("libx264", {"bf": "3", "g": "24", "sc_threshold": "0", "x264-params": "b-pyramid=normal:b-adapt=0"}),
}
MORE_FORMS = {
    "open groups of H.264": ("libx264", {"bf": "3", "g": "12", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}),
    "closed groups of HEVC": ("libx265", {"x265-params": f"{X265}:open-gop=0"}),
    "MPEG-4": ("mpeg4", {"bf": "2", "g": "12"}),
}


def picture(number: int) -> np.ndarray:
    """A picture with its number in eight bright or dark columns."""
    width, height = SIZE
    bits = [230 if number >> bit & 1 else 20 for bit in range(8)]
    return np.tile(np.repeat(np.array(bits, np.uint8), width // 8)[None, :, None], (height, 1, 3))


def number_in(shown: np.ndarray) -> int:
    columns = shown.reshape(SIZE[1], 8, -1).mean((0, 2))
    return sum(int(column > 125) << bit for bit, column in enumerate(columns))


def write_media(path: Path, codec: str, coding: dict[str, str], muxing: dict[str, str] | None = None) -> Path:
    with av.open(str(path), "w", options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(FPS), options=coding)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(LENGTH):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    return path


def find_boxes(content: bytes, names: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Start and size of the first box of each name, each inside the one before."""
    start, end = 0, len(content)
    for name in names:
        size, kind = struct.unpack_from(">I4s", content, start)
        while kind != name:
            start += size
            assert start < end, f"no {name!r}"
            size, kind = struct.unpack_from(">I4s", content, start)
        yield start, size
        start, end = start + 8, start + size


def write_edits(source: Path, target: Path, edits: Sequence[Edit], rate: int = 0x10000) -> Path:
    """A copy of a file with another edit list; its index is the last of its boxes, so that no offset changes."""
    content = bytearray(source.read_bytes())
    (header, _), (clock, _) = list(find_boxes(content, [b"moov", b"mvhd"]))
    *_, (media_clock, _) = find_boxes(content, [b"moov", b"trak", b"mdia", b"mdhd"])
    scale, media_scale = (struct.unpack_from(">I", content, at + 20)[0] for at in (clock, media_clock))
    *parents, (at, size) = find_boxes(content, [b"moov", b"trak", b"edts", b"elst"])
    assert parents[0] == (header, len(content) - header)
    delay = struct.unpack_from(">i", content, at + 20)[0]  # the time of frame 0, behind that of B-frames
    entries = [
        (n * scale // FPS, -1 if first is None else delay + first * media_scale // FPS, rate) for n, first in edits
    ]
    body = b"".join(struct.pack(">IiI", *entry) for entry in entries)
    content[at : at + size] = struct.pack(">I4sII", 16 + len(body), b"elst", 0, len(edits)) + body
    for start, old in parents:
        struct.pack_into(">I", content, start, old + 16 + len(body) - size)
    target.write_bytes(content)
    return target


def random_edits(rng: random.Random) -> list[Edit]:
    """One to four pieces in any order, and now and then a pause."""
    edits: list[Edit] = []
    for _ in range(rng.randint(1, 4)):
        first = rng.randint(0, LENGTH - 2)
        edits.append((rng.randint(1, min(30, LENGTH - first)), None if rng.random() < 0.12 else first))
    return edits if any(first is not None for _, first in edits) else [(10, 5)]


def decode_in_order(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def assert_equals_decode_in_order(path: Path, rng: random.Random, tries: int = 6) -> list[int]:
    """Frames by index, in any order and from a fresh reader, are those of a decode in order: their numbers."""
    expected = decode_in_order(path)
    order = rng.sample(range(len(expected)), min(tries, len(expected)))
    with VideoReader(path, num_threads=1) as reader:
        assert len(reader) == len(expected)
        for index in order:
            assert np.array_equal(reader.frames([index])[0], expected[index]), f"frame {index}"
    few = sorted(rng.sample(range(len(expected)), min(3, len(expected))))
    with VideoReader(path, num_threads=1) as reader:
        for index, shown in zip(few, reader.frames(few), strict=True):
            assert np.array_equal(shown, expected[index]), f"frame {index}"
        assert all(np.array_equal(shown, frame) for shown, frame in zip(reader, expected, strict=True))
    return [number_in(frame) for frame in expected]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for form, (codec, coding) in {**FORMS, **MORE_FORMS}.items():
        write_media(folder / f"{form}.mp4", codec, coding)
    return folder


def assert_random_edits(form: str, media: Path, tmp_path: Path, count: int, tries: int) -> None:
    rng = random.Random(zlib.crc32(form.encode()))
    for _ in range(count):
        edits = random_edits(rng)
        path = write_edits(media / f"{form}.mp4", tmp_path / "edited.mp4", edits)
        try:
            assert_equals_decode_in_order(path, rng, tries)
        except AssertionError as error:
            raise AssertionError(f"{form}, edits {edits}") from error


@pytest.mark.parametrize("form", FORMS)
def test_random_edits(form: str, media: Path, tmp_path: Path) -> None:
    assert_random_edits(form, media, tmp_path, count=3, tries=20)


@pytest.mark.slow
@pytest.mark.parametrize("form", [*FORMS, *MORE_FORMS])
def test_five_hundred_random_edits_and_more(form: str, media: Path, tmp_path: Path) -> None:
    assert_random_edits(form, media, tmp_path, count=125, tries=LENGTH)


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(55, 5)], [*range(5, 60)]),
        ([(27, 13)], [*range(13, 40)]),
        ([(25, None), (60, 0)], [*range(60)]),
        ([(10, 0), (10, 30)], [*range(10), *range(30, 40)]),
        ([(20, 10), (20, 10)], 2 * [*range(10, 30)]),
        ([(10, 40), (10, 5)], [*range(40, 50), *range(5, 15)]),
        ([(5, 3), (5, 20), (5, 50)], [*range(3, 8), *range(20, 25), *range(50, 55)]),
    ],
)
def test_frames_are_those_that_the_edits_name(edits: list[Edit], shown: list[int], media: Path, tmp_path: Path) -> None:
    for form in ("no B-frames", "closed groups"):
        path = write_edits(media / f"{form}.mp4", tmp_path / "edited.mp4", edits)
        assert assert_equals_decode_in_order(path, random.Random(0)) == shown


@pytest.mark.parametrize("rate", [0, 0x8000, 0x20000])
def test_edits_of_another_speed(rate: int, media: Path, tmp_path: Path) -> None:
    path = write_edits(media / "closed groups.mp4", tmp_path / "edited.mp4", [(10, 33), (20, 7)], rate)
    assert_equals_decode_in_order(path, random.Random(0))


@pytest.mark.parametrize(
    ("suffix", "muxing"),
    [
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("mp4", {"movflags": "frag_keyframe+delay_moov"}),
        ("mp4", {"movflags": "negative_cts_offsets"}),
        ("mp4", {"movflags": "negative_cts_offsets+frag_keyframe+delay_moov"}),
        ("mp4", {"use_editlist": "0"}),
        ("mov", {}),
        ("mkv", {}),
        ("ts", {}),
        ("flv", {}),
    ],
)
@pytest.mark.parametrize("form", ["closed groups", "open groups", "open groups of H.264"])
def test_ways_to_delay_b_frames(form: str, suffix: str, muxing: dict[str, str], tmp_path: Path) -> None:
    codec, coding = {**FORMS, **MORE_FORMS}[form]
    path = write_media(tmp_path / f"media.{suffix}", codec, coding, muxing)
    assert assert_equals_decode_in_order(path, random.Random(0)) == [*range(LENGTH)]


def test_only_files_with_joints_are_decoded_to_be_opened(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = media / "closed groups.mp4"

    def is_spliced(edits: list[Edit]) -> bool:
        path = write_edits(source, tmp_path / "edited.mp4", edits)
        with av.open(str(path)) as container:
            return packets.read_table(container, container.streams.video[0]).is_spliced

    assert [is_spliced(edits) for edits in ([(60, 0)], [(55, 5)], [(27, 13)], [(25, None), (30, 20)])] == 4 * [False]
    assert [is_spliced(edits) for edits in ([(10, 0), (10, 30)], [(20, 10), (20, 10)])] == 2 * [True]
