"""Processes that do jobs and may be lost: one that hangs or crashes is replaced, and costs the job that it was at."""

from __future__ import annotations

import itertools
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
_PICK_UP = 30.0  # seconds, for an idle process to begin a job that it was given
_GRACE = 5.0  # seconds, for a job that nobody waits for any more
_LONGEST_WAIT = 3600.0  # seconds: the operating system takes no infinite ones; whoever waits asks again
_ATTEMPTS = 3  # processes that are lost before they begin a job, until the job counts as the cause


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
        start_seconds: that the process may take until it can work.
    """

    def __init__(
        self,
        make: Callable[..., Callable[[Any], Any]],
        arguments: tuple[Any, ...] = (),
        *,
        method: Method = "spawn",
        start_seconds: float = 600,
    ) -> None:
        self._make, self._arguments, self._start_seconds = make, arguments, start_seconds
        self._context: Any = multiprocessing.get_context(method)
        self._process: BaseProcess | None = None
        self._closed = False
        self._numbers = itertools.count()
        self._since = 0.0  # when the process was last given something, or answered
        self._not_begun = 0  # processes in a row that were lost before they began a job
        self.given: deque[tuple[int, Any]] = deque()  # jobs without an answer yet, in order, with their numbers

    def start(self) -> None:
        """Start the process, if there is none that lives, and wait until it can work.

        Raises:
            JobError, WorkerLost: it cannot.
        """
        if self._process is not None and not self.given and not self._process.is_alive():
            self.stop()  # it died while it was idle
        if self._process is None:
            self.launch()
            self.ready()

    def launch(self) -> None:
        """Start the process, and don't wait for it."""
        if self._closed:
            raise WorkerLost("was ended")
        # Number of the job, and its step; since when, or 0 for idle; number of the job that nobody waits for.
        self._clock = self._context.RawArray("d", [-1, 0, 0, -1])
        self._pipe: Connection
        self._pipe, theirs = self._context.Pipe()
        arguments = (theirs, self._clock, os.getpid(), self._make, self._arguments)
        self._process = process = self._context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._end = Finalize(self, _kill, (process, self._pipe), exitpriority=10)

    def ready(self) -> None:
        """Wait until the process can work. Raises JobError or WorkerLost if it cannot."""
        if not self._pipe.poll(min(self._start_seconds, _LONGEST_WAIT)):
            raise self._lost(f"can't work after {min(self._start_seconds, _LONGEST_WAIT):g} s")
        _, result = self._receive()
        if isinstance(result, JobError):
            self.stop()
            raise result

    def submit(self, job: Any, number: int = 0) -> None:
        """Give the process a job; it is started if need be. The number is for the caller to know the answer by."""
        if self._process is None:
            self.start()
        if not self.given:
            self._since = time.monotonic()
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
                number, result = self._receive()
            elif self.remaining(seconds) > 0:
                return None
            else:
                raise self._lost(f"takes more than {seconds:g} s")
        except WorkerLost as lost:
            return self._after(lost)
        self._since, self._not_begun = time.monotonic(), 0
        if not self.given or number != self.given[0][0]:
            return None  # nobody waits for it
        return (*self.given.popleft(), result)

    def _after(self, lost: WorkerLost) -> tuple[int, Any, Any] | None:
        """Give another process what a lost one had, but for the job that it was at: return that one."""
        # What it had finished, but was not received before it died, is done again.
        given = list(self.given)
        self.given.clear()
        blamed = next((each for each in given if each[0] == lost.number), None)
        self._not_begun = self._not_begun + 1 if blamed is None else 0
        if given and self._not_begun == _ATTEMPTS:
            self._not_begun, blamed = 0, given[0]
        for number, job in given:
            if blamed is None or number != blamed[0]:
                self.submit(job, number)
        return blamed and (*blamed, lost)

    def remaining(self, seconds: float) -> float:
        """How much of the time for a step, or for beginning one, is left, in seconds."""
        since, now = self._clock[2], time.monotonic()
        if since:
            return float(seconds - (now - since))
        return min(seconds, _PICK_UP) - (now - self._since) if self.given else seconds

    def run(self, job: Any, seconds: float, *, left: threading.Event | None = None) -> Any:
        """Do a job and wait for it.

        Args:
            left: is set once nobody waits for the result any more: the job may notice (see `is_unwanted`), and is
                ended a few seconds later.

        Raises:
            JobError: it failed.
            WorkerLost: the process took longer than `seconds`, or died; the next call starts another.
        """
        number = next(self._numbers)
        try:
            self.submit(job, number)
            while (answer := self.answer(seconds)) is None:
                if left is not None and left.is_set() and self._clock[3] != number:
                    self._clock[3] = number
                    seconds = min(seconds, seconds - self.remaining(seconds) + _GRACE)
                _wait([self], seconds, _LONGEST_WAIT if left is None else 0.1)
        except BaseException:
            self.forget()
            raise
        result = answer[-1]
        if isinstance(result, JobError | WorkerLost):
            raise result
        return result

    def forget(self) -> None:
        """Forget the jobs without an answer. The process ends if it has any, as its answers are for nobody."""
        if self.given:
            self.given.clear()
            self.stop()

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process = None
            self._end()

    def close(self) -> None:
        """End the process for good, from whichever thread: `run`, if it waits, raises WorkerLost."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()

    def _lost(self, reason: str, *, died: bool = False) -> WorkerLost:
        self.stop()
        number, step = self._clock[:2]
        return WorkerLost(reason, int(number), int(step), died=died)

    def _receive(self) -> tuple[int, Any]:
        """The number of a job and its result, which is a JobError if it failed. Waits for it."""
        try:
            number, done, value = self._pipe.recv()
        except (EOFError, OSError):
            assert self._process is not None
            self._process.join(_PATIENCE)
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise self._lost(f"kills the process that works on it ({how})", died=True) from None
        if done:
            return number, value
        error, trace = value
        error.__cause__ = RuntimeError(f"in a worker process:\n{trace}")
        failure = JobError(" ".join(str(error).split()) or type(error).__name__)
        failure.__cause__ = error
        return number, failure


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
        try:
            yield from self._results(jobs, seconds, in_order, again)
        finally:
            for worker in self._workers:  # whose answers would be taken for those of the next call
                worker.forget()

    def _results(
        self, jobs: Iterable[Any], seconds: float, in_order: bool, again: Callable[[Any, WorkerLost], Any] | None
    ) -> Iterator[tuple[Any, Any]]:
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
        _clock[1:3] = number, time.monotonic()


def is_unwanted() -> bool:
    """Within a job: whether nobody waits for its result any more."""
    return _clock is not None and bool(_clock[3] == _clock[0])


_clock: Any = None  # of this process, if it is a worker


def _wait(workers: list[Worker], seconds: float, longest: float = _LONGEST_WAIT) -> None:
    """Wait until one of them has answered, died or run out of time, or for the longest time."""
    remaining = min(worker.remaining(seconds) for worker in workers)
    wait([worker._pipe for worker in workers], max(0.0, min(remaining, longest)))


def _kill(process: BaseProcess, pipe: Connection) -> None:
    process.kill()
    process.join()
    pipe.close()


def _serve(
    pipe: Connection, clock: Any, parent: int, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]
) -> None:
    """Answer jobs with (number, True, result) or (number, False, error), until the pipe or the parent process ends."""
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
            _tell(pipe, -1, error)
            return
        pipe.send((-1, True, None))
        while True:
            number, job = pipe.recv()
            clock[0] = number
            at_step(0)
            try:
                result = do(job)
                try:
                    answer = ForkingPickler.dumps((number, True, result))
                except RuntimeError:  # there is no room in shared memory: through the pipe, then
                    answer = memoryview(pickle.dumps((number, True, result)))
            except Exception as error:
                clock[2] = 0
                _tell(pipe, number, error)
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


def _tell(pipe: Connection, number: int, error: Exception) -> None:
    trace = traceback.format_exc()
    try:
        answer = pickle.dumps((number, False, (error, trace)))
        pickle.loads(answer)
    except Exception:  # an error that can't be sent as it is
        answer = pickle.dumps((number, False, (RuntimeError(f"{type(error).__name__}: {error}"), trace)))
    pipe.send_bytes(answer)
