"""Processes that classify and explain videos for the server, and the queue before them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timesformer.workers import JobError, Worker, WorkerLost

Job = dict[str, Any]


class Unavailable(Exception):
    """A worker that is gone can't be started again, and why."""


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
            Unavailable: no process can be started.
            JobError, WorkerLost: as `Worker.run`.
        """
        if not self._places.acquire(blocking=False):
            raise queue.Full
        try:
            worker = self._idle.get()
            try:
                try:
                    worker.start()  # unless it runs
                except (JobError, WorkerLost) as error:
                    raise Unavailable(str(error)) from error
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
        file = path.with_name(f".explained{job['suffix']}")  # as no upload is named
        write_explanation(explanation, file)
        return file.read_bytes()

    return do
