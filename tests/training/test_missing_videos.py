"""Training on lists whose videos are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.training.checkpoint import Progress
from timesformer.training.errors import TrainingError
from timesformer.training.loop import _note_bad_videos
from timesformer.video.clips import BadVideo
from timesformer.video.decode import VideoError, VideoReader


def missing(path: Path) -> BadVideo:
    with pytest.raises(VideoError) as caught:
        VideoReader(path)
    return BadVideo(str(path), str(caught.value))


def test_missing_videos_are_not_called_undecodable(tmp_path: Path) -> None:
    gone = [missing(tmp_path / f"{number}.mp4") for number in range(3)]
    message = r"^3 of 4 videos are not there, such as .*0\.mp4, more than max_bad"
    with pytest.raises(TrainingError, match=message) as all_gone:
        _note_bad_videos(gone, Progress(), tmp_path, 4, 0.1)
    assert "decode" not in str(all_gone.value)
    (tmp_path / "broken.mp4").write_bytes(b"none")
    broken = missing(tmp_path / "broken.mp4")
    assert not broken.is_missing
    for total, why in ((5, "more than max_bad_share=0.1"), (4, "there is nothing to train on")):
        message = (
            rf"^3 of {total} videos are not there, such as .*mp4 \(and 1 of {total} videos failed to decode\).*{why}"
        )
        with pytest.raises(TrainingError, match=message) as both:
            _note_bad_videos([*gone, broken], Progress(), tmp_path, total, 0.1)
        assert str(tmp_path / "bad_videos.txt") in str(both.value)
