"""Locks of outputs: one holder at a time, whoever dies and however many look at once."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from timesformer import lock
from timesformer.lock import OutputInUse, is_running, lock_file, output_lock

HOLD = """
import sys, time
from pathlib import Path
from timesformer.lock import output_lock
with output_lock(sys.argv[1], folder=True):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(out: Path) -> subprocess.Popen[str]:
    """A process that holds the lock of a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def forge(out: Path, **changes: Any) -> Path:
    """The lock of a folder, as a process that is gone left it."""
    out.mkdir(exist_ok=True)
    values = dataclasses.asdict(lock._myself()) | {"pid": 2**22 + 1} | changes
    file = lock_file(out, folder=True)
    file.write_text(json.dumps(values))
    return file


def test_the_second_process_is_refused_by_the_name_of_the_first_until_it_is_killed(tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    try:
        with pytest.raises(OutputInUse) as refused, output_lock(tmp_path / "out", folder=True):
            pass
        message = str(refused.value)
        assert message.startswith(
            f"{tmp_path / 'out'}: is being written by process {process.pid} on {os.uname().nodename}"
        )
        assert "\n" not in message
        assert time.strftime("since %Y-") in message
    finally:
        process.send_signal(signal.SIGKILL)
    while is_running(process.pid):
        time.sleep(0.01)
    with output_lock(tmp_path / "out", folder=True):  # while it is still a zombie, which nobody has waited for
        assert json.loads(lock_file(tmp_path / "out", folder=True).read_text())["pid"] == os.getpid()
    process.wait()
    assert not (tmp_path / "out" / ".timesformer.lock").exists()


def test_a_lock_is_given_back_on_an_error_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_lock(tmp_path / "a" / "b", folder=True):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with output_lock(tmp_path / "file.bin", folder=False):
        assert [file.name for file in tmp_path.iterdir()] == [".file.bin.timesformer.lock"]
    assert not list(tmp_path.iterdir())


def test_it_can_be_taken_again_within_itself_but_not_by_another_thread(tmp_path: Path) -> None:
    problems: list[BaseException] = []

    def other() -> None:
        try:
            with output_lock(tmp_path, folder=True):
                pass
        except OutputInUse as error:
            problems.append(error)

    with output_lock(tmp_path, folder=True):
        with output_lock(tmp_path, folder=True):
            pass
        assert lock_file(tmp_path, folder=True).exists()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread of this process" in str(problems[0])
    assert not lock_file(tmp_path, folder=True).exists()


def test_a_forked_process_neither_gives_it_back_nor_has_it(tmp_path: Path) -> None:
    with output_lock(tmp_path, folder=True):
        child = os.fork()
        if child == 0:
            lock.release(tmp_path, folder=True)
            try:
                lock.take(tmp_path, folder=True)
            except OutputInUse:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert lock_file(tmp_path, folder=True).exists()


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),  # there is no such process
        ({"pid": os.getpid(), "started": "1"}, True),  # another one has its number
        ({"pid": os.getpid()}, False),
        ({"host": "elsewhere"}, False),
        ({"namespace": "pid:[1]"}, False),  # another container, whose processes are not seen
        ({"boot": "before", "machine": "m"}, False),  # another machine of the same name
    ],
)
def test_which_holders_are_known_to_be_dead(changes: dict[str, Any], taken: bool, tmp_path: Path) -> None:
    file = forge(tmp_path / "out", **changes)
    before = file.read_bytes()
    if taken:
        with output_lock(tmp_path / "out", folder=True):
            assert file.read_bytes() != before
        assert not list((tmp_path / "out").iterdir())
        return
    with pytest.raises(OutputInUse) as refused, output_lock(tmp_path / "out", folder=True):
        pass
    assert file.read_bytes() == before
    assert (f"remove {file}" in str(refused.value)) == ("pid" not in changes)


def test_a_machine_that_was_started_again_has_no_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forge(tmp_path / "out", boot="before", machine="m")
    content = lock._content
    monkeypatch.setattr(lock, "_content", lambda file: "m" if file == "/etc/machine-id" else content(file))
    with output_lock(tmp_path / "out", folder=True):
        pass


@pytest.mark.parametrize("content", ["", "{}", "[]", "no JSON", '{"token": "../../x"}'])
def test_a_lock_that_is_not_understood_is_left_alone(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    file = lock_file(tmp_path, folder=True)
    file.write_text(content)
    with pytest.raises(OutputInUse, match="not understood: remove"), output_lock(tmp_path, folder=True):
        pass
    assert file.read_text() == content


def test_escapes_in_a_lock_of_others_are_shown(tmp_path: Path) -> None:
    forge(tmp_path / "out", host="x\x1b]0;y", command="a\nb\u202e")
    with pytest.raises(OutputInUse) as refused, output_lock(tmp_path / "out", folder=True):
        pass
    assert "x\\x1b]0;y" in str(refused.value)
    assert "(a\\nb\\u202e)" in str(refused.value)


def test_a_disk_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", link)
    with output_lock(tmp_path, folder=True):
        process = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True)
        assert f"is being written by process {os.getpid()}" in process.stderr
    forge(tmp_path)
    with output_lock(tmp_path, folder=True):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/out: can't be written") as refused:
        lock.take(tmp_path / "file" / "out", folder=True)
    assert "\n" not in str(refused.value)

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "hidden")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"out: can't be written \(Permission denied\)$"):
        lock.take(tmp_path / "out", folder=True)
    assert not (tmp_path / "out").exists()


def contend(out: Path, start: Any, tries: int, results: Any) -> None:
    """Try for a lock at the same moment as others, several times; say in which tries it was held, and whether alone."""
    alone = out.parent / "alone"
    for number in range(tries):
        start.wait()
        try:
            with output_lock(out, folder=True):
                descriptor = os.open(alone, os.O_CREAT | os.O_EXCL)  # FileExistsError if another one holds it too
                start.wait()  # all have tried
                os.close(descriptor)
                alone.unlink()
                results.put(number)
        except OutputInUse:
            start.wait()
        start.wait()
        if start.wait() == 0:
            forge(out)  # the next ones find the lock of a dead process
        start.wait()


def test_of_many_that_find_a_dead_lock_exactly_one_takes_it(tmp_path: Path) -> None:
    """And with other states in between too: no lock at all, and a claim whose holder died."""
    out, tries, processes = tmp_path / "out", 40, 6
    file = forge(out)
    dead = json.loads(file.read_text())["token"]
    claim = file.with_name(f"{file.name}.dead-{dead}")  # who began to take it over was killed, too
    claim.write_text(json.dumps(dataclasses.asdict(lock._myself()) | {"pid": 2**22 + 1}))
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=contend, args=(out, start, tries, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    held = sorted(results.get(timeout=60) for _ in range(tries))
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert held == list(range(tries))
    assert results.empty()
    assert [each.name for each in out.iterdir()] == [file.name], "and nothing is left but the last forged one"


def test_the_lock_is_a_plain_file_that_others_can_read(tmp_path: Path) -> None:
    with output_lock(tmp_path, folder=True):
        assert stat.S_IMODE(lock_file(tmp_path, folder=True).stat().st_mode) & 0o444 == 0o444
