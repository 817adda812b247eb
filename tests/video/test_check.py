"""Faulty datasets, made on purpose, and what the check says of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from pathlib import Path

import av
import numpy as np
import pytest

from timesformer.video import check
from timesformer.video.check import CheckReport, check_videos
from timesformer.video.items import DataError
from timesformer.video.synthetic import render, write_dataset, write_video


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("clean") / "data", "motion", train=8, val=4, test=0)


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(clean, tmp_path / "data"))


def found(report: CheckReport) -> dict[str, list[str]]:
    """File names by kind of problem."""
    kinds: dict[str, list[str]] = {}
    for problem in report.problems:
        kinds.setdefault(problem.kind, []).append(problem.path.name)
    return kinds


def write_matroska(path: Path, num_frames: int, sound: bool = False) -> None:
    with av.open(str(path), "w", format="matroska") as container:
        if sound:
            audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            samples.rate = 8000
            container.mux(audio.encode(samples))
            return
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        for image in np.random.default_rng(0).integers(0, 255, (num_frames, 48, 64, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def test_a_clean_dataset(clean: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = check_videos(clean, workers=2, progress=lambda *at: seen.append(at))
    assert report.ok
    assert (report.videos, report.readable, report.problems, report.stray_files) == (12, 12, (), 0)
    assert seen == [(done, 12) for done in range(1, 13)]
    assert {name: (r.least, r.most) for name, r in report.ranges.items()} == {
        "frames": (32, 32),
        "height": (64, 64),
        "width": (64, 64),
        "fps": (16, 16),
    }
    assert list(report.classes) == ["train", "val"]
    assert set(report.classes["train"].values()) == {1}
    assert sorted(report.classes["val"].values()) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert report.lines()[-1] == "no problems"


def test_every_kind_of_fault_is_found(data: Path) -> None:
    videos = [data / line.split()[0] for line in (data / "train.csv").read_text().splitlines()]
    videos[0].write_bytes(b"")
    videos[1].write_bytes(bytes(range(256)) * 100)
    videos[2].unlink()
    shutil.copy(videos[4], videos[3])
    write_video(videos[5], render("motion", 0, np.random.default_rng(0))[:7], fps=16)
    write_matroska(videos[6], 0, sound=True)
    write_matroska(videos[7], 50)
    videos[7].write_bytes(videos[7].read_bytes()[: videos[7].stat().st_size // 2])
    (data / "forgotten.mp4").write_bytes(videos[4].read_bytes()[:-1])
    (data / "notes.md").touch()
    (data / ".hidden").touch()
    lines = (data / "val.csv").read_text().splitlines()
    lines[0], lines[1] = lines[0].split()[0], lines[1].split()[0] + " 8"
    (data / "val.csv").write_text("\n".join(lines))

    report = check_videos(data, workers=2, min_frames=8)
    names = [video.name for video in videos]
    labels = [Path(line.split()[0]).name for line in lines]
    problems = found(report)
    assert problems.pop("unreadable") == names[:2]
    assert problems.pop("missing") == [names[2]]
    assert problems.pop("duplicate") == [names[4]]
    assert problems.pop("short") == [names[5]]
    assert problems.pop("audio_only") == [names[6]]
    assert problems.pop("truncated") == [names[7]]
    assert problems.pop("unlabelled") == [labels[0], "forgotten.mp4"]
    assert problems.pop("bad_label") == [labels[1]]
    assert not problems
    assert not report.ok
    assert (report.videos, report.stray_files) == (13, 1)

    reasons = {problem.path.name: problem.reason for problem in report.problems}
    assert reasons[names[2]] == f"{data / 'train.csv'}:3: no such file or folder"
    assert reasons[names[7]].startswith("only ")
    assert reasons[names[7]].endswith(" s of 2.0 s decode")
    assert reasons[names[5]] == "has 7 of at least 8 frames"
    text = "\n".join(report.lines())
    assert all(f"{problem.path}: {problem.reason}" in text for problem in report.problems)


def test_a_video_in_two_lists_is_a_duplicate(data: Path) -> None:
    first = (data / "train.csv").read_text().splitlines()[0]
    with (data / "val.csv").open("a") as file:
        file.write(f"{first}\n")
    report = check_videos(data)
    lines = len((data / "val.csv").read_text().splitlines())
    assert [(problem.kind, problem.reason) for problem in report.problems] == [
        ("duplicate", f"{data / 'val.csv'}:{lines}: {data / 'train.csv'}:1 names it already")
    ]


def test_json_has_the_same_keys_with_and_without_faults(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "no video.mp4").write_text("text")
    full, empty = (json.loads(json.dumps(check_videos(path).to_json())) for path in (clean, tmp_path))
    assert list(full) == list(empty)
    assert list(full["problems"]) == list(empty["problems"])
    assert list(full["ranges"]) == list(empty["ranges"])
    assert full["ranges"]["frames"] == [32, 32]
    assert empty["ranges"]["frames"] is None
    assert empty["problems"]["unlabelled"] == [
        {"path": str(tmp_path / "no video.mp4"), "reason": "no list or class folder names it"}
    ]


def test_truncated_mp4_whose_index_comes_first(tmp_path: Path) -> None:
    frames = render("motion", 0, np.random.default_rng(0))
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    assert found(check_videos(tmp_path)) == {"unlabelled": ["v.mp4"]}
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = check_videos(tmp_path)
    assert found(report) == {"unlabelled": ["v.mp4"], "truncated": ["v.mp4"]}
    reason = next(problem.reason for problem in report.problems if problem.kind == "truncated")
    assert re.fullmatch(r"only \d+ of 32 frames decode", reason)


def test_a_crash_or_hang_of_a_decoder_costs_one_video(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect = check._inspect

    def fragile(path: Path) -> object:
        if path.name == "train_00001.mp4":
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name == "train_00002.mp4":
            time.sleep(60)
        if path.name == "train_00003.mp4":
            raise RuntimeError("of a\nnew kind")
        return inspect(path)

    monkeypatch.setattr(check, "_inspect", fragile)
    report = check_videos(clean, workers=2, time_limit=1)
    assert {problem.path.name: problem.reason for problem in report.problems} == {
        "train_00001.mp4": "kills the process that works on it (SIGKILL)",
        "train_00002.mp4": "takes more than 1 s",
        "train_00003.mp4": "RuntimeError: of a new kind",
    }
    assert report.readable == 9


def test_workers_end_when_the_job_is_interrupted(clean: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_videos(clean, workers=2, progress=interrupt)
    assert not multiprocessing.active_children()


def test_class_folders_frame_folders_and_lists_elsewhere(clean: Path, tmp_path: Path) -> None:
    images = tmp_path / "data" / "run" / "clip"
    images.mkdir(parents=True)
    for i in range(9):
        with av.open(str(images / f"{i}.png"), "w", format="image2") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 24, 16, "rgb24"
            frame = av.VideoFrame.from_ndarray(np.full((16, 24, 3), i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    report = check_videos(tmp_path / "data")
    assert report.ok
    assert report.classes == {"all": {"run": 1}}
    assert (report.ranges["frames"].least, report.ranges["width"].least, report.stray_files) == (9, 24, 0)

    name = 999 * "x"  # longer than a file's name can be
    (tmp_path / "list.txt").write_text(f"data/run/clip run\n{clean / 'train.csv'} run\n{name} run\n")
    report = check_videos(tmp_path / "list.txt")
    assert found(report) == {"unreadable": ["train.csv"], "missing": [name]}
    assert report.classes == {"all": {"run": 3}}


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        check_videos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="workers: 0; allowed: 1 or more"):
        check_videos(tmp_path, workers=0)
    report = check_videos(tmp_path)
    assert not report.ok
    assert report.lines() == [f"{tmp_path}: there are no videos"]


def test_real_videos(shared_data: Path) -> None:
    report = check_videos(shared_data / "weizmann", workers=2)
    assert report.ok
    assert (report.videos, report.readable, report.stray_files) == (90, 90, 0)
    assert (report.ranges["frames"].least, report.ranges["frames"].most) == (36, 146)
    assert set(report.classes["train"].values()) == {6}


def test_a_folder_of_odd_files(shared_data: Path) -> None:
    problems = found(check_videos(shared_data / "clips" / "derived", workers=2))
    assert sorted(problems["unreadable"]) == [
        "empty.mp4",
        "garbage.mp4",
        "text_named.mp4",
        "truncated_half_demo.mp4",
    ]
    assert sorted(problems["short"]) == ["one_frame.mp4", "seven_frames.mp4", "two_frames.mp4"]
    assert set(problems) == {"unreadable", "short", "unlabelled"}


def test_notes_on_what_is_no_problem(clean: Path, tmp_path: Path) -> None:
    videos = [clean / line.split()[0] for line in (clean / "train.csv").read_text().splitlines()]
    videos += [clean / line.split()[0] for line in (clean / "val.csv").read_text().splitlines()]
    for number, video in enumerate(videos):
        label = "run" if number < 10 else "jump" if number < 11 else "swim"
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(video, tmp_path / "data" / label / f"{number}.mp4")
    (tmp_path / "data" / "wave").mkdir()
    report = check_videos(tmp_path / "data", workers=2)
    assert report.ok
    notes = report.to_json()["notes"]
    assert isinstance(notes, list)
    assert notes == [
        f"{tmp_path / 'data' / 'wave'}: is empty, and no class",
        "all: 2 of 3 classes have one video alone: jump, swim",
        "all: classes are of very different sizes: 1 videos of 'jump', 10 of 'run'",
    ]
    assert [line for line in report.lines() if line.startswith("note: ")] == [f"note: {note}" for note in notes]
    (tmp_path / "one" / "run").mkdir(parents=True)
    shutil.copy(videos[0], tmp_path / "one" / "run" / "a.mp4")
    assert any("one class alone, 'run'" in note for note in check_videos(tmp_path / "one", workers=1).notes)


def test_truncated_videos_are_counted_among_the_readable(data: Path) -> None:
    video = data / (data / "train.csv").read_text().split()[0]
    write_matroska(video, 50)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    report = check_videos(data, workers=2)
    assert found(report) == {"truncated": [video.name]}
    assert report.lines()[0] == f"{data}: 12 videos, 12 readable, of them 1 truncated"


def test_an_empty_label_is_none(data: Path) -> None:
    lines = (data / "train.csv").read_text().splitlines()
    path = lines[0].split()[0]
    (data / "train.csv").write_text("\n".join([f'{path},""', *lines[1:]]))
    assert found(check_videos(data, workers=2)) == {"unlabelled": [Path(path).name]}
