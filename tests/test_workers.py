"""Processes that hang, crash and fail: each costs the job that it was at, and nothing else."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from timesformer import workers
from timesformer.workers import QUICKEST, JobError, Worker, WorkerLost, Workers, at_step

Job = tuple[str, int]


def make(factor: int) -> Callable[[Job], Any]:
    """Multiplies, or does what it is told."""

    def do(job: Job) -> Any:
        what, number = job
        if what == "hang":
            time.sleep(600)
        if what == "crash":
            time.sleep(0.2)  # the job before is answered, and this one given
            faulthandler.disable()  # whose report would be in the way
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "fail":
            raise LookupError(f"not\n{number}")
        if what == "odd":
            raise OddError(number, 2)
        return torch.full((3, 1000), factor * number)

    return do


class OddError(Exception):
    """One that can be pickled and not read again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def outcome(result: Any) -> Any:
    if isinstance(result, JobError | WorkerLost):
        return f"{type(result).__name__}: {result}"
    assert result.shape == (3, 1000)
    return int(result[2, 999])


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_each_job_has_its_own_outcome(count: int, in_order: bool) -> None:
    odd = {4: "hang", 5: "crash", 11: "fail", 12: "odd", 19: "crash"}
    jobs = [(odd.get(number, "multiply"), number) for number in range(20)]
    with Workers(make, (10,), count=count, method=QUICKEST) as pool:
        found = [(number, outcome(result)) for (_, number), result in pool.results(jobs, 1, in_order=in_order)]
    if in_order:
        assert [number for number, _ in found] == list(range(20))
    expected: dict[int, Any] = {number: 10 * number for number in range(20)}
    expected |= {4: "WorkerLost: takes more than 1 s"}
    expected |= {number: "WorkerLost: kills the process that works on it (SIGSEGV)" for number in (5, 19)}
    expected |= {11: "JobError: not 11", 12: "JobError: OddError: 12 and 2"}
    assert dict(found) == expected
    assert len(found) == 20
    assert not multiprocessing.active_children()


def test_processes_started_afresh() -> None:
    with Workers(make, (2,), count=1, method="spawn") as pool:
        found = [outcome(result) for _, result in pool.results([("multiply", 1), ("crash", 2), ("multiply", 3)], 30)]
    assert sorted(found, key=str) == [2, 6, "WorkerLost: kills the process that works on it (SIGSEGV)"]


def test_jobs_are_drawn_a_few_ahead() -> None:
    drawn = 0

    def jobs() -> Any:
        nonlocal drawn
        for number in range(100):
            drawn += 1
            yield "multiply", number

    with Workers(make, (1,), count=2, method=QUICKEST) as pool:
        results = pool.results(jobs(), 60, in_order=True)
        for number in range(10):
            assert next(results)[0][1] == number
            assert drawn <= number + 6


def make_killed(flag: Path) -> Callable[[int], int]:
    def do(job: int) -> int:
        if job == 2 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    return do


def test_a_job_whose_process_was_killed_is_done_again(tmp_path: Path) -> None:
    with Workers(make_killed, (tmp_path / "flag",), count=1, method=QUICKEST) as pool:
        assert sorted(pool.results(range(5), 60)) == [(number, number) for number in range(5)]


def test_results_pass_where_shared_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        @staticmethod
        def dumps(value: Any) -> Any:
            raise RuntimeError("unable to allocate shared memory")

    monkeypatch.setattr(workers, "ForkingPickler", Full)
    with Workers(make, (3,), count=1, method="fork") as pool:
        assert [outcome(result) for _, result in pool.results([("multiply", 2)], 60)] == [6]


def make_steps() -> Callable[[list[str]], list[int]]:
    def do(job: list[str]) -> list[int]:
        done = []
        for step, what in enumerate(job):
            at_step(step)
            time.sleep({"quick": 0, "slow": 0.7, "hang": 600}[what])
            done.append(step)
        return done

    return do


def test_the_time_limit_is_that_of_a_step() -> None:
    with Workers(make_steps, count=1, method=QUICKEST) as pool:
        (_, result), (_, lost) = pool.results([["slow"] * 3, ["quick", "quick", "hang"]], 1.5)
        assert result == [0, 1, 2]
        assert isinstance(lost, WorkerLost)
        assert lost.step == 2
        again = pool.results([["quick", "hang"]], 1.5, again=lambda job, lost: job[: lost.step])
        assert list(again) == [(["quick"], [0])]


def test_an_error_keeps_its_type_and_its_trace() -> None:
    with Workers(make, (1,), count=1, method=QUICKEST) as pool:
        ((_, error),) = pool.results([("fail", 1)], 60)
    assert isinstance(error, JobError)
    assert isinstance(error.__cause__, LookupError)
    assert "in do" in str(error.__cause__.__cause__)


SCRIPT = """
import sys, time
from tests.test_workers import make
from timesformer import workers
from timesformer.workers import QUICKEST, Workers
pool = Workers(make, (1,), count=2, method=QUICKEST).__enter__()
results = pool.results([("multiply", 1), ("hang", 2), ("multiply", 3)], 600)
next(results)
print(*(worker._process.pid for worker in pool._workers), flush=True)
time.sleep(600 if sys.argv[1] == "killed" else 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.parametrize("how", ["killed", "leaves"])
def test_processes_end_with_their_parent(how: str) -> None:
    root = Path(__file__).parents[1]
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, how], stdout=subprocess.PIPE, text=True, cwd=root)
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    if how == "killed":
        assert all(Path(f"/proc/{pid}").exists() for pid in children)
        parent.kill()
    parent.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def make_doubled() -> Callable[[Any], Any]:
    """Doubles a number; of a pair, sleeps first; or stops its own process, while it works or once it is idle again."""

    def do(job: Any) -> Any:
        if isinstance(job, tuple):
            time.sleep(job[0])
            return 2 * job[1]
        if job == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        return os.getpid() if isinstance(job, str) else 2 * job

    return do


@pytest.fixture
def doubler() -> Iterator[Worker]:
    worker = Worker(make_doubled, method=QUICKEST)
    worker.start()
    yield worker
    worker.stop()


@pytest.mark.parametrize("seconds", [float("inf"), 1e300])
def test_no_time_limit_is_too_long_to_wait_for(doubler: Worker, seconds: float) -> None:
    assert [doubler.run((0.05, number), seconds) for number in range(3)] == [0, 2, 4]


def test_an_answer_that_was_not_waited_for_is_nobody_elses(doubler: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workers, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            doubler.run((0.05, 100), 60)
    assert [doubler.run(number, 60) for number in range(3)] == [0, 2, 4]


def test_results_that_were_not_drawn_are_not_those_of_the_next_jobs() -> None:
    with Workers(make_doubled, count=1, method=QUICKEST) as pool:
        abandoned = pool.results([10, (0.2, 20), 30], 60, in_order=True)
        assert next(abandoned) == (10, 20)
        abandoned.close()
        assert list(pool.results([1, 2, 3], 60, in_order=True)) == [(1, 2), (2, 4), (3, 6)]


@pytest.mark.skipif(sys.platform != "linux", reason="stops a process")
def test_a_process_that_froze_while_idle_is_replaced(doubler: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PICK_UP", 0.3, raising=False)
    frozen = doubler.run("who", 60)
    os.kill(frozen, signal.SIGSTOP)
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(doubler.run(4, 60)), daemon=True)
    thread.start()
    thread.join(20)
    with suppress(ProcessLookupError):
        os.kill(frozen, signal.SIGKILL)
    assert outcomes == [8]
    assert not _alive(frozen)


def test_a_process_that_died_while_idle_is_replaced(doubler: Worker) -> None:
    os.kill(doubler.run("who", 60), signal.SIGKILL)
    assert doubler.run(4, 60) == 8


def make_late() -> Callable[[Any], Any]:
    time.sleep(600)
    return make_doubled()


def test_a_process_that_never_gets_ready_is_ended() -> None:
    worker = Worker(make_late, method=QUICKEST, start_seconds=0.2)
    with pytest.raises(WorkerLost, match=r"can't work after 0\.2 s"):
        worker.start()
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform != "linux", reason="stops processes")
def test_a_job_that_no_process_begins_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PICK_UP", 0.2, raising=False)
    frozen: list[int] = []

    def ready(self: Worker) -> None:
        original(self)
        assert self._process is not None
        frozen.append(self._process.pid or 0)
        os.kill(frozen[-1], signal.SIGSTOP)

    original = Worker.ready
    monkeypatch.setattr(Worker, "ready", ready)
    worker, outcomes = Worker(make_doubled, method=QUICKEST), []

    def run() -> None:
        with suppress(WorkerLost):
            worker.run(1, 60)
        outcomes.append(len(frozen))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    worker.stop()
    assert outcomes == [3]


def make_patient() -> Callable[[float], bool]:
    """Works for so many seconds, or until nobody waits for it any more."""

    def do(job: float) -> bool:
        end = time.monotonic() + abs(job)
        while time.monotonic() < end and not (job > 0 and workers.is_unwanted()):
            time.sleep(0.01)
        return True

    return do


@pytest.mark.parametrize(("job", "kept"), [(30.0, True), (-30.0, False)])
def test_a_job_that_nobody_waits_for_ends_soon(job: float, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_GRACE", 20 if kept else 0.3)
    worker, left = Worker(make_patient, method=QUICKEST), threading.Event()
    worker.start()
    threading.Timer(0.2, left.set).start()
    started = time.monotonic()
    if kept:
        assert worker.run(job, 60, left=left)
    else:
        with pytest.raises(WorkerLost):
            worker.run(job, 60, left=left)
    assert time.monotonic() - started < 15
    worker.stop()


def test_a_worker_is_ended_for_good_from_another_thread() -> None:
    worker = Worker(make_patient, method=QUICKEST)
    worker.start()
    threading.Timer(0.2, worker.close).start()
    with pytest.raises(WorkerLost):
        worker.run(-60, 60)
    with pytest.raises(WorkerLost, match="was ended"):
        worker.start()
