"""The queue in front of the processes that classify and explain videos for the server."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from timesformer.workers import JobError, Worker, WorkerLost

Job = dict[str, Any]

logger = logging.getLogger(__name__)


class Full(Exception):
    """As many requests as are allowed are being worked on or wait."""


class Unavailable(Exception):
    """A worker that is gone can't be started again, and why."""


class Pool:
    """Workers that share a queue of bounded length.

    Whoever asks takes a place first (`place`), for as long as the request lasts, and then runs the job.
    """

    def __init__(self, workers: list[Worker], waiting: int) -> None:
        self._workers = workers
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in workers:
            self._idle.put_nowait(worker)
        self._threads = ThreadPoolExecutor(len(workers), thread_name_prefix="worker")
        self._closed = False
        self.free = len(workers) + waiting

    def start(self) -> None:
        """Start the workers that have not been. Raises JobError or WorkerLost if one cannot."""
        for worker in self._workers:
            worker.start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who are worked for or wait. Raises Full if there is none."""
        if self.free <= 0:
            raise Full
        self.free -= 1
        try:
            yield
        finally:
            self.free += 1

    async def run(self, job: Job, seconds: float) -> Any:
        """Do a job as soon as a worker is idle. If this is cancelled, the job ends soon, and its result is dropped.

        Raises:
            Unavailable: no process can be started.
            JobError, WorkerLost: as `Worker.run`.
        """
        worker = await self._idle.get()
        left = threading.Event()
        work = asyncio.get_running_loop().run_in_executor(self._threads, _work, worker, job, seconds, left)
        work.add_done_callback(lambda done: self._after(worker, done))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            left.set()
            raise

    def _after(self, worker: Worker, work: asyncio.Future[Any]) -> None:
        """Let a worker be idle again, after another process is started for it if need be."""
        if not work.cancelled() and isinstance(work.exception(), WorkerLost) and not self._closed:
            restart = asyncio.get_running_loop().run_in_executor(self._threads, _restart, worker)
            restart.add_done_callback(lambda _: self._idle.put_nowait(worker))
        else:
            self._idle.put_nowait(worker)

    def close(self) -> None:
        """End all workers for good, whatever they do; from a signal handler too."""
        self._closed = True
        for worker in self._workers:
            worker.close()

    def stop(self) -> None:
        """End all workers, and wait until they have ended."""
        self.close()
        self._threads.shutdown()
        for worker in self._workers:
            worker.stop()


def _work(worker: Worker, job: Job, seconds: float, left: threading.Event) -> Any:
    try:
        worker.start()  # unless it runs
    except (JobError, WorkerLost) as error:
        raise Unavailable(str(error)) from error
    return worker.run(job, seconds, left=left)


def _restart(worker: Worker) -> None:
    try:
        worker.start()
    except (JobError, WorkerLost) as error:  # the next job tries again, and is answered with the reason
        logger.warning("a worker can't be started: %s", error)
