"""The whole story on generated videos: two models learn to tell motions apart; only one of them can."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from timesformer.console import SafeConsole, say
from timesformer.display import TrainingDisplay, track_total
from timesformer.evaluation.evaluate import evaluate
from timesformer.lock import output_lock
from timesformer.predictor import VideoClassifier
from timesformer.training.loop import train
from timesformer.training.recipe import load_recipe
from timesformer.video.datasets import read_videos
from timesformer.video.items import VideoList
from timesformer.video.synthetic import write_dataset

_SCHEMES = ("space_only", "divided_space_time")


def run_demo(out: Path, seed: int, console: Console) -> int:
    """Write videos, train a space-only and a divided model on them, compare, and classify one; `timesformer demo`.

    Everything lies under `out` afterwards. What an earlier call with the same `out` has finished is not done again.

    Raises:
        OutputInUse: another process writes into `out`.
    """
    with output_lock(out, folder=True):
        return _run(out, seed, console)


def _run(out: Path, seed: int, console: Console) -> int:
    data = out / "videos"
    if not data.exists():
        with track_total(console, "write videos") as progress:
            write_dataset(data, "motion", train=800, val=0, test=160, seed=seed, progress=progress)
    videos, test = read_videos(data, "train"), read_videos(data, "test")
    console.print(
        f"{len(videos.items)} videos to learn from, {len(test.items)} to test on, of {len(test.classes)} motions:",
        f"{', '.join(test.classes[:2])} ...\nNo single frame tells them apart: the order of the frames does.\n",
        soft_wrap=True,
    )
    table = Table("attention", "sees", "top-1 on unseen videos")
    for scheme, sees in zip(_SCHEMES, ("each frame alone", "time, then space"), strict=True):
        console.print(f"[bold]{scheme}[/]", markup=True)
        accuracy = _train_and_test(out / scheme, scheme, videos, test, seed, console)
        table.add_row(scheme, sees, f"{accuracy:.1%}")
    table.add_row("(chance)", "", f"{1 / len(test.classes):.1%}")
    SafeConsole().print(table)

    run, item = out / _SCHEMES[-1], test.items[0]
    ((label, score),) = VideoClassifier.from_pretrained(run).predict(item.path, top=1)
    say(
        f"{item.path}: {label} ({score:.1%}); it is {test.classes[item.labels[0]]}",
        "",
        f"videos: {data}",
        f"runs:   {', '.join(str(out / scheme) for scheme in _SCHEMES)}",
        f"next:   timesformer evaluate {run} --data {data} --out {run / 'evaluation'}",
        "        timesformer train --data YOUR_VIDEOS --out runs/mine   (a folder of class folders)",
    )
    return 0


def _train_and_test(out: Path, scheme: str, videos: VideoList, test: VideoList, seed: int, console: Console) -> float:
    recipe = load_recipe("demo", [f"model.attention={scheme}", f"seed={seed}", f"data.cache={out.parent / 'frames'}"])
    # One of the two is to stay at chance: a hint what to do about it would mislead.
    with TrainingDisplay(console, videos, None, hints=False) as display:
        train(videos, out, recipe, resume=True, on_report=display)
    classifier = VideoClassifier.from_pretrained(out)
    return evaluate(classifier.model, test, classifier.preprocessing).accuracy
