"""What the terminal shows while a job runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from timesformer.text import shown
from timesformer.training.loop import Report
from timesformer.video.items import VideoList


def _progress(console: Console, *columns: TextColumn) -> Progress:
    """A bar that stays out of the way where nobody looks, as in a log file."""
    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *columns,
        TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


@contextmanager
def track(console: Console, job: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar; what is yielded is called once for each thing done, or with how many."""
    with _progress(console) as progress:
        task = progress.add_task(shown(job), total=total)
        yield lambda count=1: progress.advance(task, count)


@contextmanager
def track_total(console: Console, job: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; what is yielded is called as (done, total)."""
    with _progress(console) as progress:
        task = progress.add_task(shown(job), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class TrainingDisplay:
    """A bar over all steps of a run, with loss, top-1 and speed; a line an epoch that is validated, or a tenth."""

    def __init__(self, console: Console, videos: VideoList, validation: VideoList | None) -> None:
        self.console, self.validates = console, validation is not None
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
        self.progress.update(self.task, completed=done, total=report.epochs * report.steps, figures=_figures(report))
        epoch = report.epoch + 1
        if report.validation:
            self._line(report, f"validation {report.validation.accuracy:6.1%}")
        elif not self.validates and report.step == report.steps and epoch % max(1, report.epochs // 10) == 0:
            self._line(report, f"waiting for data {report.waiting:.0%}")

    def _line(self, report: Report, text: str) -> None:
        epoch = f"{report.epoch + 1:>{len(str(report.epochs))}}/{report.epochs}"
        self.console.print(f"epoch {epoch}  {_figures(report)}  {text}", soft_wrap=True)


def _figures(report: Report) -> str:
    return f"loss {report.loss:.3f}  top-1 {report.top1:6.1%}  {report.samples_per_second:.1f} videos/s"
