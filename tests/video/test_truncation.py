"""Whole films whose headers promise other things, and cut ones, which are found all the same."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from tests.video import test_edit_lists as edit_lists
from timesformer.video import check

RATE, SAMPLES = 48_000, 1024  # of sound, a second and a packet


class Film(NamedTuple):
    """Codecs and how they are muxed; 25 pictures a second."""

    video: str
    sound: str
    muxing: dict[str, str] = {}  # noqa: RUF012
    frames: int = 100
    start: float = 0  # seconds before the first picture
    sound_seconds: float = 4


KINDS = {
    "faststart.mp4": Film("libx264", "aac", {"movflags": "faststart"}),
    "faststart.mov": Film("libx264", "aac", {"movflags": "faststart"}),
    "film.mkv": Film("libx264", "aac"),
    "film.webm": Film("libvpx", "libopus"),
    "film.avi": Film("mpeg4", "libmp3lame"),
    "film.flv": Film("libx264", "aac"),
}
UNBOUND = {  # these promise nothing that a cut would break
    "film.ts": Film("libx264", "aac"),
    "film.mpg": Film("mpeg2video", "mp2"),
    "fragments.mp4": Film("libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "fragments_late.mp4": Film("libx264", "aac", {"movflags": "frag_keyframe+delay_moov"}),
}


def write_film(path: Path, film: Film) -> Path:
    """Pictures and sound interleaved, as they are recorded."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=dict(film.muxing)) as container:
        video = container.add_stream(film.video, rate=25, options={"g": "12", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.thread_count = 1
        sound = container.add_stream(film.sound, rate=RATE)
        position, end = 0, max(film.frames / 25 + film.start, film.sound_seconds)
        for tick in range(int(end * 25)):
            number = tick - int(film.start * 25)
            if 0 <= number < film.frames:
                picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = tick * 40, Fraction(1, 1000)
                container.mux(video.encode(frame))
            while position < min(film.sound_seconds, (tick + 1) / 25) * RATE:
                noise = rng.normal(0, 0.3, (1, SAMPLES)).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
                samples.sample_rate, samples.pts = RATE, position
                container.mux(sound.encode(samples))
                position += SAMPLES
        container.mux(video.encode())
        container.mux(sound.encode())
    return path


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize("name", [*KINDS, *UNBOUND])
@pytest.mark.parametrize(
    "how",
    [
        {"sound_seconds": 1},
        {"frames": 40, "sound_seconds": 5},
        {"frames": 50, "start": 2},
    ],
)
def test_whole_films(name: str, how: dict[str, float], tmp_path: Path) -> None:
    film = {**KINDS, **UNBOUND}[name]._replace(**how)
    facts = check._inspect(write_film(tmp_path / name, film))
    assert (facts.problem, facts.reason, facts.frames) == (None, "", film.frames)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "how", [{}, {"frames": 60, "start": 3, "sound_seconds": 6}, {"frames": 75, "sound_seconds": 5}]
)
def test_half_of_a_film_is_truncated(name: str, how: dict[str, float], tmp_path: Path) -> None:
    film = KINDS[name]._replace(**how)
    facts = check._inspect(cut(write_film(tmp_path / name, film), 0.5))
    assert facts.frames < film.frames
    assert facts.problem == "truncated"
    assert facts.reason.startswith("only ")


@pytest.mark.parametrize("name", ["faststart.mp4", "faststart.mov", "film.avi"])
def test_a_fifth_of_counted_frames_is_missed(name: str, tmp_path: Path) -> None:
    assert check._inspect(cut(write_film(tmp_path / name, KINDS[name]), 0.8)).problem == "truncated"


def test_pictures_that_are_there_but_do_not_decode(tmp_path: Path) -> None:
    """A download that was never finished may have its full size, and nothing at its end."""
    path = write_film(tmp_path / "faststart.mp4", KINDS["faststart.mp4"])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    facts = check._inspect(path)
    assert facts.problem == "truncated"
    assert "of 100 frames decode" in facts.reason


@pytest.mark.parametrize("form", edit_lists.FORMS)
def test_edit_lists(form: str, tmp_path: Path) -> None:
    source = edit_lists.write_media(tmp_path / "media.mp4", *edit_lists.FORMS[form])
    for edits in (
        [(27, 13)],
        [(10, 0), (10, 30)],
        [(20, 10), (20, 10)],
        [(10, 40), (10, 5)],
        [(5, 3), (5, 20), (5, 50)],
        [(25, None), (20, 7)],
        [(4, 47), (9, None), (2, 57)],
    ):
        facts = check._inspect(edit_lists.write_edits(source, tmp_path / "edited.mp4", edits))
        assert (facts.problem, facts.reason) == (None, ""), edits
