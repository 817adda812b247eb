"""What commands say of how data was read."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer import cli
from timesformer.video.datasets import read_videos


def test_notes_on_data_are_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text("video,action,mood\na.mp4,run|fast,x\nb.mp4,jump,y\n")
    (tmp_path / "val.csv").write_text("c.mp4 run\n")
    videos, validation = read_videos(tmp_path, "train"), read_videos(tmp_path, "val", classes=("fast", "jump", "run"))
    cli._tell_notes(videos)
    cli._tell_notes(validation, videos.notes)
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines == [
        f"note: {tmp_path / 'train.csv'}: columns by its header: path = 'video', label = 'action'; not used: mood",
        f"note: '|' within a field was taken to separate labels, as in {tmp_path / 'train.csv'}:2: 'run|fast'",
        "note: several labels a video: 1 of 3 videos have more than one, "
        f"such as {tmp_path / 'train.csv'}:2: run, fast",
    ]
