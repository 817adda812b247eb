"""A process that classifies and explains videos, and that may be lost: a decoder that hangs or crashes takes it down
alone."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

Job = dict[str, Any]


class JobError(Exception):
    """A job that can't be done, and why: the video's or the request's fault."""


class WorkerLost(Exception):
    """The process took too long, or died, and was replaced."""


@dataclass
class Worker:
    """One process, which loads the model when it starts.

    Attributes:
        make: what loads it, in the process: returns a function from a job to its result.
        arguments: of `make`.
    """

    make: Callable[..., Callable[[Job], Any]]
    arguments: tuple[Any, ...]
    _process: SpawnProcess | None = field(default=None, init=False)
    _pipe: Connection | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process, if there is none, and wait until it can work. Raises JobError if it cannot."""
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.make, self.arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._answer(None)

    def run(self, job: Job, seconds: float) -> Any:
        """Do a job.

        Raises:
            JobError: it can't be done.
            WorkerLost: the process took longer than `seconds`, or died; the next call starts another.
        """
        if self._process is None or not self._process.is_alive():
            self.stop()
            self.start()
        assert self._pipe is not None
        self._pipe.send(job)
        return self._answer(seconds)

    def _answer(self, seconds: float | None) -> Any:
        assert self._pipe is not None
        try:
            if not self._pipe.poll(seconds):
                self.stop()
                raise WorkerLost(f"it took longer than {seconds:g} s")
            done, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            self.stop()
            raise WorkerLost("the process that decodes died") from error
        if not done:
            raise JobError(value)
        return value

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, make: Callable[..., Callable[[Job], Any]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's matter, which ends this process
    with suppress(EOFError, BrokenPipeError):
        try:
            do = make(*arguments)
        except Exception as error:  # whatever keeps it from working is told to whoever waits for it
            pipe.send((False, str(error)))
            return
        pipe.send((True, None))
        while True:
            job = pipe.recv()
            try:
                pipe.send((True, do(job)))
            except Exception as error:
                pipe.send((False, str(error) or type(error).__name__))


class Pool:
    """Workers that share a queue of bounded length."""

    def __init__(self, workers: list[Worker], waiting: int) -> None:
        self._workers = workers
        self._idle: queue.Queue[Worker] = queue.Queue()
        for worker in workers:
            self._idle.put(worker)
        self._places = threading.BoundedSemaphore(len(workers) + waiting)

    def start(self) -> None:
        """Start the workers that have not been. Raises JobError if one cannot."""
        for worker in self._workers:
            worker.start()

    def run(self, job: Job, seconds: float) -> Any:
        """Do a job as soon as a worker is idle.

        Raises:
            queue.Full: as many jobs as are allowed wait already.
            JobError, WorkerLost: as `Worker.run`.
        """
        if not self._places.acquire(blocking=False):
            raise queue.Full
        try:
            worker = self._idle.get()
            try:
                return worker.run(job, seconds)
            finally:
                self._idle.put(worker)
        finally:
            self._places.release()

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()


def make_classifier(source: str, options: dict[str, Any], longest: float, threads: int) -> Callable[[Job], Any]:
    """What a worker of the server does: jobs `predict`, `explain` and `timeline`, each of a `path`."""
    import torch

    from timesformer.evaluation.timeline import timeline
    from timesformer.explain.explain import explain, write_explanation
    from timesformer.predictor import VideoClassifier
    from timesformer.video.decode import VideoReader

    torch.set_num_threads(threads)
    classifier = VideoClassifier.from_pretrained(source, **options)

    def do(job: Job) -> Any:
        path = Path(job["path"])
        with VideoReader(path) as video:
            duration, frames = video.duration, len(video)
        if duration > longest:
            raise JobError(f"the video is {duration:.0f} s long; at most {longest:.0f} s are allowed")
        if job["do"] == "predict":
            labels = classifier.predict(path, top=job["top"])
            top = [{"label": label, "score": score} for label, score in labels]
            preprocessing = classifier.preprocessing
            span = preprocessing.num_frames * preprocessing.stride
            return {"top": top, "duration": duration, "clips": frames / span}
        if job["do"] == "timeline":
            return timeline(classifier, path).to_json(job["threshold"])
        explanation = explain(classifier, path, of=job["of"])
        file = path.with_name(f"explained{job['suffix']}")
        write_explanation(explanation, file)
        return file.read_bytes()

    return do
