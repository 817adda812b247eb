"""Pictures and films that are stored turned or mirrored, against Pillow's reading of EXIF and against arithmetic."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from timesformer.video import orientation
from timesformer.video.decode import VideoReader
from timesformer.video.orientation import Orientation

ORIENTATION, MAKER = 0x0112, 0x010F  # tags of EXIF
ORIENTATIONS = range(1, 9)
# What shows a stored picture upright, by its display matrix (a, b, c, d).
Turn = Callable[[np.ndarray], np.ndarray]
TURNS: dict[tuple[int, int, int, int], Turn] = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (0, 1, 1, 0): lambda p: p.swapaxes(0, 1),
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, -1, 0): lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
}


def corners(number: int = 0) -> np.ndarray:
    """A picture that no turning and no mirror leaves as it is: corners of four brightnesses."""
    picture = np.full((48, 64, 3), 60 + number, np.uint8)
    picture[:16, :16], picture[:16, -16:], picture[-16:, :16] = 250, 190, 10
    return picture


def write_image(path: Path, picture: np.ndarray, orientation: int | None) -> None:
    """With EXIF as cameras write it; without the orientation if it is None."""
    exif = Image.Exif()
    exif[MAKER] = "Camera"
    if orientation is not None:
        exif[ORIENTATION] = orientation
    Image.fromarray(picture).save(path, exif=exif, quality=95)


def upright(path: Path) -> np.ndarray:
    """As Pillow shows it."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def assert_alike(shown: np.ndarray, expected: np.ndarray) -> None:
    """But for the rounding of colours, in which JPEG decoders differ."""
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("value", [None, 0, *ORIENTATIONS, 9])
def test_images_with_exif(value: int | None, suffix: str, tmp_path: Path) -> None:
    for number in range(2):
        write_image(tmp_path / f"{number}.{suffix}", corners(number), value)
    with VideoReader(tmp_path) as reader:
        expected = upright(tmp_path / f"1.{suffix}")
        assert (reader.height, reader.width) == expected.shape[:2]
        assert_alike(reader.frames([1])[0].numpy(), expected)


def test_images_of_one_folder_may_be_turned_differently(tmp_path: Path) -> None:
    """A picture whose size differs from the first one's is scaled to it; how it lies in its file is irrelevant."""
    for place, value in enumerate((6, 1, 8, 3)):
        write_image(tmp_path / f"{place}.png", corners(), value)
    with VideoReader(tmp_path, short_side=24) as reader:
        clip = reader.frames(range(4)).numpy()
    assert clip.shape == (4, 32, 24, 3)
    for place, picture in enumerate(clip):
        with Image.fromarray(upright(tmp_path / f"{place}.png")) as image:
            small = np.asarray(image.resize((24, 32), Image.Resampling.BOX))
        assert np.abs(picture.astype(int) - small).mean() < 8


@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
@pytest.mark.parametrize("value", [None, *ORIENTATIONS])
def test_films_of_images_with_exif(value: int | None, suffix: str, tmp_path: Path) -> None:
    image, path = tmp_path / "image.jpg", tmp_path / f"film.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(9):
            write_image(image, corners(number), value)
            packet = av.Packet(image.read_bytes())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)
    with VideoReader(path) as reader:
        assert len(reader) == 9
        assert_alike(reader.frames([0, 8])[1].numpy(), upright(image))


def write_film(path: Path, matrix: tuple[int, ...], coding: str) -> None:
    """One whose track has a display matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(coding, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if coding == "mjpeg" else "yuv420p"
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(corners(number), format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    at = content.index(b"tkhd") + 4 + 40  # in the track header, version 0
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("matrix", TURNS)
def test_matrix_of_a_track(matrix: tuple[int, int, int, int], suffix: str, tmp_path: Path) -> None:
    write_film(tmp_path / f"film.{suffix}", matrix, "libx264")
    with VideoReader(tmp_path / f"film.{suffix}") as reader:
        assert_alike(reader.frames([2])[0].numpy(), TURNS[matrix](corners(2)))


@pytest.mark.parametrize("matrix", [matrix for matrix in TURNS if matrix[0] + matrix[1] + matrix[2] + matrix[3] != 2])
def test_matrix_of_a_matroska_file(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    """Matroska states an angle; what it cannot state is not written, so only what is written is compared."""
    write_film(tmp_path / "film.mp4", matrix, "libx264")
    with av.open(str(tmp_path / "film.mp4")) as source, av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    with av.open(str(tmp_path / "film.mkv")) as container:
        stored = next(container.decode(video=0)).side_data.get("DISPLAYMATRIX")
    if stored is None:
        pytest.skip("not written by this muxer")
    a, b, _, c, d, *_ = (round(value / 65536) for value in np.frombuffer(stored, np.int32).tolist())
    with VideoReader(tmp_path / "film.mkv") as reader:
        assert_alike(reader.frames([2])[0].numpy(), TURNS[a, b, c, d](corners(2)))


def test_exif_stands_in_for_a_matrix_of_the_track(tmp_path: Path) -> None:
    """One of the two is applied, never both: that of the picture, which is nearer to it."""
    path, image = tmp_path / "film.mov", tmp_path / "image.jpg"
    write_image(image, corners(), 6)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(3):
            packet = av.Packet(image.read_bytes())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    content[at : at + 36] = struct.pack(">9i", -1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    with VideoReader(path) as reader:
        assert_alike(reader.frames([2])[0].numpy(), upright(image))


def test_a_matrix_behind_what_pyav_cannot_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_image(tmp_path / "0.jpg", corners(), 6)
    with av.open(str(tmp_path / "0.jpg")) as container:
        frame = next(container.decode(video=0))
    assert Orientation.of(frame) == (True, False, True)

    class Hidden(orientation.SideDataContainer):
        def __len__(self) -> int:
            return 1

    monkeypatch.setattr(orientation, "SideDataContainer", Hidden)
    with pytest.raises(ValueError, match="orientation of its frames cannot be read"):
        Orientation.of(frame)
