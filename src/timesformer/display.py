"""What the terminal shows while a job runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from timesformer.evaluation.evaluate import Evaluation
from timesformer.text import shown
from timesformer.training.hints import Hints
from timesformer.training.loop import Report
from timesformer.video.items import VideoList


def _progress(console: Console, *columns: TextColumn) -> Progress:
    """A bar that stays out of the way where nobody looks, as in a log file."""
    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *columns,
        TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


class _LogLines:
    """Lines for a log file, where no bar is seen: one a tenth of a job, unless tenths take less than some seconds."""

    seconds = 10

    def __init__(self, console: Console, job: str, clock: Callable[[], float]) -> None:
        self.console, self.job, self.clock = console, job, clock
        self.start = self.shown_at = clock()
        self.first: int | None = None  # what was done before, by an earlier process
        self.tenth = 0

    def __call__(self, done: int, total: int) -> None:
        """Print a line if it is time for one."""
        if self.first is None:
            self.first = done if done > 1 else 0
        now, tenth = self.clock(), 10 * done // max(total, 1)
        if self.console.is_terminal or tenth <= self.tenth or done >= total or now - self.shown_at < self.seconds:
            return
        self.tenth, self.shown_at = tenth, now
        left = (now - self.start) / max(done - self.first, 1) * (total - done)
        self.console.print(f"{shown(self.job)}: {done} of {total}, {duration(left)} left", soft_wrap=True)


def duration(seconds: float) -> str:
    """A time that something takes, in words."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else "less than a minute"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 600 else f"{minutes // 60} h"


@contextmanager
def track(
    console: Console, job: str, total: int, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[..., None]]:
    """A progress bar, or lines in a log; what is yielded is called once for each thing done, or with how many."""
    done, log = 0, _LogLines(console, job, clock)
    with _progress(console) as progress:
        task = progress.add_task(shown(job), total=total)

        def advance(count: int = 1) -> None:
            nonlocal done
            done += count
            progress.advance(task, count)
            log(done, total)

        yield advance


@contextmanager
def track_total(
    console: Console, job: str, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, or lines in a log; what is yielded is called as (done, total)."""
    log = _LogLines(console, job, clock)
    with _progress(console) as progress:
        task = progress.add_task(shown(job), total=None)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)
            log(done, total)

        yield update


class TrainingDisplay:
    """A bar over all steps of a run, with loss, top-1 and speed; a line an epoch that is validated, or a tenth."""

    def __init__(
        self,
        console: Console,
        videos: VideoList,
        validation: VideoList | None,
        *,
        hints: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hints = Hints(0 if videos.multi_label else len(videos.classes)) if hints else None
        self.console, self.validates = console, validation is not None
        self.clock, self.start, self.first = clock, clock(), 0  # steps that an earlier process took
        self.begun = False
        self.progress = _progress(console, TextColumn("{task.fields[figures]}"))
        self.task = self.progress.add_task("train", total=None, figures="")
        held = f", {len(validation.items)} to validate on" if validation else ""
        console.print(f"{len(videos.items)} videos of {len(videos.classes)} classes to train on{held}")

    def __enter__(self) -> TrainingDisplay:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, report: Report) -> None:
        done = report.epoch * report.steps + report.step
        if not self.begun:
            self.begun, self.first = True, done - 1
        self.progress.update(self.task, completed=done, total=report.epochs * report.steps, figures=_figures(report))
        epoch = report.epoch + 1
        if report.validation:
            self._line(report, f"validation {report.validation.accuracy:6.1%}")
        elif not self.validates and report.step == report.steps and epoch % max(1, report.epochs // 10) == 0:
            self._line(report, f"waiting for data {report.waiting:.0%}")
        if self.hints and report.step == report.steps and report.validation is None:
            hint = self.hints.after(report, moving=report.moving)
            if hint:
                self.console.print(hint, style="yellow", soft_wrap=True)

    def _line(self, report: Report, text: str) -> None:
        epoch = f"{report.epoch + 1:>{len(str(report.epochs))}}/{report.epochs}"
        done, total = report.epoch * report.steps + report.step, report.epochs * report.steps
        left = (self.clock() - self.start) / max(done - self.first, 1) * (total - done)
        end = f"  {duration(left)} left" if done < total else ""
        self.console.print(f"epoch {epoch}  {_figures(report)}  {text}{end}", soft_wrap=True)


_LISTED = 40  # classes of a table in the terminal


def evaluation_lines(evaluation: Evaluation, split: str) -> list[str]:
    """What an evaluation gave, for the terminal: its figures beside chance, and a table of the classes, worst first.

    Args:
        evaluation: what was tested.
        split: names the videos.
    """
    summary, count = evaluation.summary(), len(evaluation.classes)
    lines = [f"{split}: {summary['videos']} videos of {count} classes"]
    if not evaluation.items:
        return lines
    lines.append(f"{'videos':24}{summary['videos']:7}")
    for name in ("top1", "top5", "mean_class_accuracy", "mean_average_precision"):
        if name in summary and (name != "top5" or count > 10):
            chance = f"  (chance: {1 / count:.2%})" if name == "top1" else ""
            lines.append(f"{name:24}{summary[name]:7.2%}{chance}")
    videos = evaluation.targets.sum(axis=0)
    classes = [(value, int(n), name) for (name, value), n in zip(summary["per_class"].items(), videos, strict=True)]
    classes.sort(key=lambda each: (each[0] is None, each[0]))
    lines.append(f"{'precision' if evaluation.multi_label else 'accuracy'}  videos  class")
    for value, n, name in classes[:_LISTED]:
        lines.append(f"{'–' if value is None else f'{value:.1%}':>8}  {n:6}  {name}")
    if count > _LISTED:
        lines.append(f"       …          and {count - _LISTED} more classes")
    return lines


def _figures(report: Report) -> str:
    return f"loss {report.loss:.3f}  top-1 {report.top1:6.1%}  {report.samples_per_second:.1f} videos/s"
