"""The queue and its workers: who leaves gives up the place, and nobody gets the answer of another."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time

import pytest

from tests.app.serving import ask, connect, echo_app, form, get, post, read_answer, serving, wait_until
from timesformer import workers
from timesformer.app.server import Limits


def leave(connection: socket.socket) -> None:
    """As a client that is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("politely", [True, False])
def test_who_leaves_gives_up_the_place_at_once(politely: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_GRACE", 0.5)
    app = echo_app(limits=Limits(waiting=2))
    with serving(app) as port:
        clients = [connect(port) for _ in range(3)]
        for client in clients:
            client.sendall(post(form(b"sleep 60")))
        wait_until(lambda: app.state.pool.free == 0)
        assert ask(port, post(form(b"hello you"))).status == 503
        for client in clients:
            client.close() if politely else leave(client)
        wait_until(lambda: app.state.pool.free == 3, 3)
        assert ask(port, post(form(b"hello you"))).label == "hello you"
        assert not [path for path in app.state.uploads.folder.iterdir() if path.is_dir()]


def test_a_job_that_is_nearly_done_keeps_its_process() -> None:
    app = echo_app()
    with serving(app) as port:
        first = ask(port, post(form(b"hello you"))).content
        with connect(port) as client:
            client.sendall(post(form(b"sleep 0.5")))
            wait_until(lambda: app.state.pool.free == 8)
            time.sleep(0.1)
        assert ask(port, post(form(b"hello you"))).content == first, "of the same process"


def test_every_answer_is_of_its_own_video() -> None:
    """While others leave, fail and end their processes."""
    with serving(echo_app(workers=2, limits=Limits(waiting=40))) as port:
        wrong: list[str] = []

        def client(number: int) -> None:
            for turn in range(8):
                kind = (number + turn) % 8
                order = {0: "die", 1: "fail", 2: "sleep 0.05"}.get(kind, f"hello {number}.{turn}")
                with connect(port) as connection:
                    connection.sendall(post(form(order.encode())))
                    if kind == 3:
                        continue
                    answer = read_answer(connection)
                expected = {0: 504, 1: 500}.get(kind, 200)
                if answer.status != expected or (expected == 200 and answer.label.strip() != order):
                    wrong.append(f"{order}: {answer.status} {answer.content!r}")

        threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_worker_that_stops_while_idle_costs_no_request(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PICK_UP", 0.5)
    with serving(echo_app()) as port:
        first = ask(port, post(form(b"hello you")))
        os.kill(int(first.content.split(b'"duration": ')[1].split(b",")[0]), number)
        assert ask(port, post(form(b"hello you"))).label == "hello you"


def test_an_endless_time_limit_mixes_no_answers_up() -> None:
    with serving(echo_app(limits=Limits(seconds=float("inf")))) as port:
        for turn in range(3):
            assert ask(port, post(form(b"hello %d" % turn))).label == f"hello {turn}"


def test_what_takes_too_long_is_ended() -> None:
    with serving(echo_app(limits=Limits(seconds=0.3))) as port:
        answer = ask(port, post(form(b"sleep 60")))
        assert (answer.status, answer.error) == (504, "a.mp4: takes more than 0.3 s")
        assert ask(port, post(form(b"hello you"))).label == "hello you"
        assert ask(port, get()).status == 200
