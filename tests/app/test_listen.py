"""How the server starts, what it logs, and how it ends."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.app.serving import connect, echo_app, form, get, post, read_answer
from timesformer.app.connections import Bounds
from timesformer.app.listen import Server, Sparing, listen, log_sparingly
from timesformer.cli import main


def _serve(port: Connection, folder: Path) -> None:
    tempfile.tempdir = str(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app, listening = echo_app(), listen("127.0.0.1", 0)
    app.state.pool.start()
    port.send(listening.getsockname()[1])
    with suppress(KeyboardInterrupt):
        Server(app, Bounds(), app.state.pool.close).run([listening])


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[BaseProcess, int]]:
    """A server in a process of its own, whose temporary files are here; and its port."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, tmp_path))
    process.start()
    yield process, here.recv()
    process.kill()
    process.join()


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_signal_ends_it_within_seconds_and_everybody_is_answered(
    running: tuple[BaseProcess, int], tmp_path: Path
) -> None:
    process, port = running
    with connect(port) as working, connect(port) as waiting, connect(port) as sending, connect(port) as half:
        working.sendall(post(form(b"sleep 60")))
        waiting.sendall(post(form(b"hello you")))
        sending.sendall(post(form(b"hello")[:40], length=1000))
        half.sendall(b"GET / HT")
        time.sleep(0.5)
        os.kill(process.pid or 0, signal.SIGTERM)
        started = time.monotonic()
        for each in (working, waiting, sending):
            answer = read_answer(each)
            assert (answer.status, answer.error) == (503, "the server stops")
    process.join(10)
    assert not process.is_alive()
    assert time.monotonic() - started < 10
    assert not list(tmp_path.iterdir()), "no uploads are left"


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(running: tuple[BaseProcess, int], number: int) -> None:
    process, port = running
    with connect(port) as working:
        working.sendall(post(form(b"sleep 60")))
        time.sleep(0.5)
        os.kill(process.pid or 0, number)
        time.sleep(0.5)
        assert process.is_alive()
        os.kill(process.pid or 0, number)
        process.join(3)
        assert not process.is_alive()


def test_two_servers_on_a_port_are_one_line_before_the_model_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "no/such/model", "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--host 127.0.0.1 --port {port}: " in line
    assert "in use" in line


def test_a_socket_listens_as_soon_as_there_is_one() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port}: .*in use"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("no.such.host.invalid", 0), ("a" * 300, 0), ("a\0b", 0), ("a b", 0),
        ("256.1.1.1", 0), ("[::1", 0), ("192.0.2.1", 0),
    ],
)  # fmt: skip
def test_what_cannot_be_listened_on_is_one_line(host: str, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "no/such/model", f"--host={host}", f"--port={port}"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"--port {port}: " in lines[0]
    assert lines[0].isprintable()


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_there_is_not(port: int) -> None:
    """Not that of the remainder, as the system would take it."""
    with pytest.raises(ValueError, match=rf"--port {port}: "):
        listen("127.0.0.1", port)


def test_a_privileged_port_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refused)
    with pytest.raises(ValueError, match=r"--host 127\.0\.0\.1 --port 80: .*Permission denied"):
        listen("127.0.0.1", 80)


@pytest.mark.parametrize("name", ["http://a", "a:80", "*", "*.example.com", "", "a/b", "a,b"])
def test_hosts_are_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "no/such/model", "--allow-host", name])
    assert "--allow-host" in capsys.readouterr().err


def test_a_server_on_another_address_family() -> None:
    try:
        listening = listen("::1", 0)
    except ValueError:
        pytest.skip("no IPv6 here")
    server = Server(echo_app(), Bounds())
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    port = listening.getsockname()[1]
    thread.start()
    with socket.create_connection(("::1", port), timeout=10) as connection:
        connection.sendall(get("/healthz", f"Host: [::1]:{port}"))
        assert read_answer(connection).status == 200
    server.should_exit = True
    thread.join(10)


def record(text: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, text, values, None)


def test_what_repeats_is_logged_sparingly(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sparing = Sparing(most=3, seconds=60)
    assert [sparing.filter(record("Invalid %d", i)) for i in range(100)].count(True) == 3
    assert sparing.filter(record("another")), "another kind"
    now[0] += 61
    late = record("Invalid %d", 100)
    assert sparing.filter(late)
    assert late.getMessage() == "Invalid 100 (97 more like this in 61 s)"


def test_nothing_that_a_terminal_obeys_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        log_sparingly()
        logging.getLogger("timesformer.app").warning("of %s", "a\x1b[31m\r\udcff.mp4")
    finally:
        root.handlers[:], root.level = before
    text = capsys.readouterr().err
    assert "a\\x1b[31m" in text
    assert "\x1b" not in text
    assert "\r" not in text
