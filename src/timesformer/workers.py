"""Processes that do jobs and may be lost: one that hangs or crashes is replaced, and costs the job that it was at."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import Any, Literal

Method = Literal["spawn", "fork"]
# Forking takes milliseconds and needs no guard in the caller's script, but is safe on Linux alone, and there only
# where the process that is copied has no threads that matter.
QUICKEST: Method = "fork" if sys.platform == "linux" else "spawn"

_AHEAD = 2  # jobs that a worker is given at a time, so that it never waits for the next one
_PATIENCE = 5.0  # seconds, for a process to finish dying, or to notice that its parent is gone


class JobError(Exception):
    """A job that failed, and why; its cause is the error in the process."""


class WorkerLost(Exception):
    """A process took too long over a job, or died, and was ended.

    Attributes:
        number: of the job that it was at, or was at last.
        step: of that job, see `at_step`.
        died: it died, rather than took too long.
    """

    def __init__(self, reason: str, number: int = 0, step: int = 0, *, died: bool = False) -> None:
        super().__init__(reason)
        self.number, self.step, self.died = number, step, died


class Worker:
    """One process, which does the jobs that it is given in their order.

    Args:
        make: called in the process when it starts, with `arguments`: returns a function from a job to its result.
        method: `spawn` starts a process afresh; `fork` copies this one.
    """

    def __init__(
        self, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...] = (), *, method: Method = "spawn"
    ) -> None:
        self._make, self._arguments = make, arguments
        self._context: Any = multiprocessing.get_context(method)
        self._process: BaseProcess | None = None
        self.given: deque[tuple[int, Any]] = deque()  # jobs without an answer yet, in order, with their numbers

    def start(self) -> None:
        """Start the process, if there is none, and wait until it can work.

        Raises:
            JobError, WorkerLost: it cannot.
        """
        if self._process is None:
            self.launch()
            self.ready()

    def launch(self) -> None:
        """Start the process, and don't wait for it."""
        self._clock = self._context.RawArray("d", 3)  # number of the job, and its step; since when, or 0 for idle
        self._clock[0] = -1
        self._pipe: Connection
        self._pipe, theirs = self._context.Pipe()
        arguments = (theirs, self._clock, os.getpid(), self._make, self._arguments)
        self._process = process = self._context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._end = Finalize(self, _kill, (process, self._pipe), exitpriority=10)

    def ready(self) -> None:
        """Wait until the process can work. Raises JobError or WorkerLost if it cannot."""
        try:
            self._receive()
        except JobError:
            self.stop()
            raise

    def submit(self, job: Any, number: int = 0) -> None:
        """Give the process a job; it is started if need be. The number is for the caller to know the answer by."""
        if self._process is None:
            self.start()
        self.given.append((number, job))
        with suppress(OSError):  # it died: `answer` will find out
            self._pipe.send((number, job))

    def answer(self, seconds: float) -> tuple[int, Any, Any] | None:
        """Number and result of the job that was given first, and the job; None if it is still at work. Does not wait.

        The result of a job that failed is the JobError. If the process died, or is at a step for longer than
        `seconds`, it is ended, the result is the WorkerLost, and another does what else was given.
        """
        try:
            if self._pipe.poll():
                result = self._receive()
            elif self.remaining(seconds) > 0:
                return None
            else:
                raise self._lost(f"takes more than {seconds:g} s")
        except JobError as error:
            result = error
        except WorkerLost as lost:
            # What it had finished, but was not received before it died, is done again.
            given, blamed = list(self.given), None
            self.given.clear()
            for number, job in given:
                if number == lost.number:
                    blamed = number, job, lost
                else:
                    self.submit(job, number)
            return blamed
        return (*self.given.popleft(), result)

    def remaining(self, seconds: float) -> float:
        """How much of the time for a step is left, in seconds."""
        since = self._clock[2]
        return float(seconds - (time.monotonic() - since)) if since else seconds

    def run(self, job: Any, seconds: float) -> Any:
        """Do a job and wait for it.

        Raises:
            JobError: it failed.
            WorkerLost: the process took longer than `seconds`, or died; the next call starts another.
        """
        self.submit(job)
        while (answer := self.answer(seconds)) is None:
            _wait([self], seconds)
        result = answer[-1]
        if isinstance(result, JobError | WorkerLost):
            raise result
        return result

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process = None
            self._end()

    def _lost(self, reason: str, *, died: bool = False) -> WorkerLost:
        self.stop()
        number, step, _ = self._clock
        return WorkerLost(reason, int(number), int(step), died=died)

    def _receive(self) -> Any:
        try:
            done, value = self._pipe.recv()
        except (EOFError, OSError):
            assert self._process is not None
            self._process.join(_PATIENCE)
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise self._lost(f"kills the process that works on it ({how})", died=True) from None
        if done:
            return value
        error, trace = value
        error.__cause__ = RuntimeError(f"in a worker process:\n{trace}")
        raise JobError(" ".join(str(error).split()) or type(error).__name__) from error


class Workers:
    """Several processes that do the same kind of job; a context that starts and ends them.

    Args:
        make, arguments, method: as `Worker` takes them.
        count: of processes.
    """

    def __init__(
        self,
        make: Callable[..., Callable[[Any], Any]],
        arguments: tuple[Any, ...] = (),
        *,
        count: int,
        method: Method = "spawn",
    ) -> None:
        self._workers = [Worker(make, arguments, method=method) for _ in range(count)]

    def __enter__(self) -> Workers:
        for worker in self._workers:
            worker.launch()
        for worker in self._workers:
            worker.ready()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def results(
        self,
        jobs: Iterable[Any],
        seconds: float,
        *,
        in_order: bool = False,
        again: Callable[[Any, WorkerLost], Any] | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """Every job with its result; for one that failed with the JobError, for one that was lost the WorkerLost.

        A job whose process died is done once again, all of it: someone may have killed the process, and then what comes
        of the job must not differ.

        Args:
            jobs: are drawn as they are needed, a few ahead.
            seconds: that a step of a job may take, see `at_step`.
            in_order: of the jobs; or as they are done.
            again: makes of a job that is lost the job to do in its place.
        """
        drawn = enumerate(jobs)
        number = due = 0  # of the job that was drawn last, and of the one that is to be yielded next
        done: dict[int, tuple[Any, Any]] = {}
        doubted: set[tuple[int, int]] = set()  # jobs and steps that a process died at once
        while True:
            while not in_order or number - due < _AHEAD * len(self._workers):
                idlest = min(self._workers, key=lambda worker: len(worker.given))
                if len(idlest.given) == _AHEAD or (job := next(drawn, None)) is None:
                    break
                number = job[0]
                idlest.submit(job[1], number)
            following = due if in_order else next(iter(done), due)
            if following in done:
                due += 1
                yield done.pop(following)
                continue
            busy = [worker for worker in self._workers if worker.given]
            if not busy:
                return
            _wait(busy, seconds)
            for worker in busy:
                while worker.given and (answer := worker.answer(seconds)) is not None:
                    of, given, result = answer
                    if isinstance(result, WorkerLost) and result.died and (of, result.step) not in doubted:
                        doubted.add((of, result.step))
                        worker.submit(given, of)
                    elif isinstance(result, WorkerLost) and again:
                        worker.submit(again(given, result), of)
                    else:
                        done[of] = given, result


def at_step(number: int) -> None:
    """Within a job: its step of this number begins now, for which there is the whole time again."""
    if _clock is not None:
        _clock[1:] = number, time.monotonic()


_clock: Any = None  # of this process, if it is a worker


def _wait(workers: list[Worker], seconds: float) -> None:
    """Wait until one of them has answered, died or run out of time."""
    wait([worker._pipe for worker in workers], max(0.0, min(worker.remaining(seconds) for worker in workers)))


def _kill(process: BaseProcess, pipe: Connection) -> None:
    process.kill()
    process.join()
    pipe.close()


def _serve(
    pipe: Connection, clock: Any, parent: int, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]
) -> None:
    """Answer jobs with (True, result) or (False, error), until the pipe or the parent process ends."""
    global _clock
    _clock = clock
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):  # what ends a job reaches all its processes; the main one decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    end_with(parent)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            do = make(*arguments)
        except Exception as error:  # whatever keeps it from working is told to whoever waits for it
            _tell(pipe, error)
            return
        pipe.send((True, None))
        while True:
            clock[0], job = pipe.recv()
            at_step(0)
            try:
                result = do(job)
                try:
                    answer = ForkingPickler.dumps((True, result))
                except RuntimeError:  # there is no room in shared memory: through the pipe, then
                    answer = memoryview(pickle.dumps((True, result)))
            except Exception as error:
                clock[2] = 0
                _tell(pipe, error)
            else:
                clock[2] = 0
                pipe.send_bytes(answer)
            clock[0] = -1  # a death from here on is no job's fault


def end_with(parent: int) -> None:
    """End this process once its parent is gone: it may hang, and siblings that were forked keep its pipe open."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PATIENCE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _tell(pipe: Connection, error: Exception) -> None:
    trace = traceback.format_exc()
    try:
        told = pickle.dumps((False, (error, trace)))
        pickle.loads(told)
    except Exception:  # an error that can't be sent as it is
        told = pickle.dumps((False, (RuntimeError(f"{type(error).__name__}: {error}"), trace)))
    pipe.send_bytes(told)
