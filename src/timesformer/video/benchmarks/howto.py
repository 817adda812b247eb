"""HowTo100M: a CSV file of the videos that a search for each task brought up, of which classes are made here."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

from timesformer.video.benchmarks.annotation import Found, Row, beside, integer, read_text, records
from timesformer.video.items import DataError

HOWTO_MIN_VIDEOS = 100  # of a task that counts as a class
HOWTO_TRAIN_SHARE = 85 / 120  # the paper's 85K of 120K videos
HOWTO_SEED = 0
_LINE = re.compile(r'"?([0-9]{1,18})"? *[\t,] *"?(.+)')  # of an id and a title


def find_howto(files: list[Path], source: Path) -> Found | None:
    there = {file.name.lower(): file for file in reversed(files)}
    if "howto100m_v1.csv" not in there:
        return None
    lists = dict.fromkeys(("train", "test"), there["howto100m_v1.csv"])
    tasks = beside(lists, "task_ids.csv", there)
    return Found("HowTo100M", lists, tasks, (tasks,), "videos/{name}.mp4", _read_howto)


def _read_howto(found: Found) -> tuple[dict[str, str], dict[str, list[Row]]]:
    assert found.labels is not None
    tasks = _best_tasks(found.lists["train"])
    counts = Counter(tasks.values())
    classes = sorted(task for task, count in counts.items() if count >= HOWTO_MIN_VIDEOS)
    if not classes:
        raise DataError(f"{found.lists['train']}: none of its {len(counts)} tasks has {HOWTO_MIN_VIDEOS} videos")
    large = set(classes)
    videos = [video for video, task in tasks.items() if task in large]
    shuffled = sorted(videos, key=lambda video: hashlib.sha256(f"{HOWTO_SEED} {video}".encode()).digest())
    train = set(shuffled[: round(len(videos) * HOWTO_TRAIN_SHARE)])
    parts: dict[str, list[Row]] = {"train": [], "test": []}
    for video in videos:
        parts["train" if video in train else "test"].append(Row((video,), str(tasks[video])))
    return _titles(found.labels, classes), parts


def _best_tasks(file: Path) -> dict[str, int]:
    """The task of each video: the one whose search it came up in first."""
    best: dict[str, tuple[int, int]] = {}
    for line, (video, rank, task) in records(file, "video_id", "rank", "task_id"):
        candidate = (integer(rank, file, line), integer(task, file, line))
        best[video] = min(best.get(video, candidate), candidate)
    return {video: task for video, (_, task) in best.items()}


def _titles(file: Path, tasks: list[int]) -> dict[str, str]:
    """The titles of tasks by their id, each once: equal ones have the id added."""
    # Tabs or commas separate, and titles hold commas themselves.
    lines = [_LINE.fullmatch(line.rstrip(" ")) for line in read_text(file).split("\n")]
    titles = {int(line[1]): line[2].removesuffix('"') for line in lines if line}
    known = {task: titles[task] for task in tasks if task in titles}
    counts = Counter(known.values())
    return {str(task): title if counts[title] == 1 else f"{title} ({task})" for task, title in known.items()}
