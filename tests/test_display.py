"""What the terminal and log files show."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from rich.console import Console

from timesformer import display
from timesformer.display import TrainingDisplay, evaluation_lines, track, track_total
from timesformer.evaluation.evaluate import Evaluation
from timesformer.training.loop import Report
from timesformer.video.datasets import VideoItem, VideoList


class Clock:
    """A clock that goes as it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def evaluation(classes: int, right: int = 6, each: int = 2) -> Evaluation:
    """`each` videos of every class, of which the first `right` are classified right, the others as class 0."""
    items = tuple(VideoItem(Path(f"{number}.mp4"), (number // each,)) for number in range(classes * each))
    scores = np.zeros((len(items), classes), np.float32)
    for number, item in enumerate(items):
        scores[number, item.labels[0] if number < right else 0] = 1
    return Evaluation(tuple(f"class {c}" for c in range(classes)), items, scores, False, ())


def test_an_evaluation_says_split_chance_and_each_class() -> None:
    lines = [" ".join(line.split()) for line in evaluation_lines(evaluation(4), "test split of videos")]
    assert lines[0] == "test split of videos: 8 videos of 4 classes"
    assert "top1 75.00% (chance: 25.00%)" in lines
    assert "mean_class_accuracy 75.00%" in lines
    assert not any(line.startswith("top5") for line in lines), "four classes are all among five"
    table = lines[lines.index("accuracy videos class") + 1 :]
    assert table == ["0.0% 2 class 3", "100.0% 2 class 0", "100.0% 2 class 1", "100.0% 2 class 2"]


def test_five_of_many_classes_are_of_interest_and_not_all_are_listed() -> None:
    assert not any(line.startswith("top5") for line in evaluation_lines(evaluation(10), ""))
    assert any(line.startswith("top5") for line in evaluation_lines(evaluation(11), ""))
    lines = evaluation_lines(evaluation(60), "")
    assert len(lines) < 50
    assert lines[-1].split() == ["…", "and", "20", "more", "classes"]


def test_a_class_without_videos_has_no_accuracy() -> None:
    some = evaluation(4)
    part = Evaluation(some.classes, some.items[:6], some.scores[:6], False, ())
    assert [" ".join(line.split()) for line in evaluation_lines(part, "x")][-1] == "– 0 class 3"


def test_without_videos_there_are_no_figures() -> None:
    none = Evaluation(("a", "b"), (), np.zeros((0, 2), np.float32), False, ())
    assert evaluation_lines(none, "test split") == ["test split: 0 videos of 2 classes"]


def test_a_log_says_how_long_a_job_still_takes() -> None:
    clock, out = Clock(), io.StringIO()
    with track(Console(file=out), "predict", 100, clock=clock) as advance:
        for _ in range(100):
            clock.now += 6
            advance()
    lines = out.getvalue().splitlines()
    assert lines[0] == "predict: 10 of 100, 9 min left"  # 90 of 6 s each
    assert lines[4] == "predict: 50 of 100, 5 min left"
    assert len(lines) == 9


def test_a_log_of_a_short_job_stays_empty() -> None:
    clock, out = Clock(), io.StringIO()
    with track_total(Console(file=out), "pack", clock=clock) as progress:
        for done in range(1, 101):
            clock.now += 0.05
            progress(done, 100)
    assert out.getvalue() == ""


def test_lines_of_a_training_say_how_long_it_still_takes() -> None:
    clock, out = Clock(), io.StringIO()
    videos = VideoList((VideoItem(Path("a"), (0,)),), ("a", "b"), False, "")
    with TrainingDisplay(Console(file=out), videos, None, clock=clock) as shown:
        for step in range(1, 5):  # goes on from the first epoch's end, at an hour an epoch of two steps
            clock.now += 1800
            shown(Report(1 + (step - 1) // 2, 10, 1 + (step - 1) % 2, 2, 1.0, 0.5, 3.0, 0.0))
    lines = out.getvalue().splitlines()
    assert lines[-2].startswith("epoch  2/10")
    assert lines[-2].endswith("8 h 0 min left")
    assert lines[-1].endswith("7 h 0 min left")


def test_durations_in_words() -> None:
    words = {5: "less than a minute", 60: "1 min", 3540: "59 min", 3600: "1 h 0 min", 5400: "1 h 30 min", 90000: "25 h"}
    assert {seconds: display.duration(seconds) for seconds in words} == words
