"""Videos of one's own, or the paper's: which of them are trained on and tested on, and in what state they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from timesformer.video.clips import fingerprint
from timesformer.video.datasets import hold_out, read_videos, splits
from timesformer.video.items import VideoList

HELD_OUT = 0.2  # of each class, where the data have no split of their own


def train_and_test(data: Path) -> tuple[VideoList, VideoList]:
    """The videos to train on and those to test on: the data's own splits, or a fifth of each class held out to test.

    What is held out depends on the data alone, so that every model and every seed is tested on the same videos.

    Raises:
        DataError: nothing is there, or one of the splits is missing.
        ValueError: no class has a video to spare.
    """
    if splits(data):
        trained = read_videos(data, "train")
        return trained, read_videos(data, "test", classes=trained.classes)
    trained, tested = hold_out(read_videos(data), HELD_OUT, seed=0)
    if not tested.items:
        raise ValueError(f"{data}: every class has one video, none to test on: give folders train and test")
    return trained, tested


def state_of(data: Path) -> str:
    """A name for the videos of a folder, their labels, and what is in their files; others have another."""
    sha = hashlib.sha256()
    for videos in train_and_test(data):
        sha.update(repr((videos.classes, len(videos.items))).encode())
        for item in videos.items:
            try:
                sha.update(fingerprint(item.path))
            except OSError:  # it is not there, as its reader will say
                sha.update(repr(str(item.path)).encode())
            sha.update(repr(item.labels).encode())
    return sha.hexdigest()
