"""Connections that ask nothing, ask half, ask too much, or don't listen: each costs itself and no other."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.app.serving import (
    HEAD,
    ask,
    connect,
    echo_app,
    form,
    get,
    post,
    read_answer,
    read_answers,
    serving,
    wait_until,
)  # fmt: skip
from timesformer.app.connections import Bounds, usual_bounds


def is_closed(connection: socket.socket, seconds: float = 10) -> bool:
    """Whether the other side closes, whatever it sends before."""
    connection.settimeout(seconds)
    try:
        while connection.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_a_half_head_is_refused_in_time() -> None:
    with serving(echo_app(), Bounds(head_seconds=0.4)) as port:
        with connect(port) as half, connect(port) as silent, connect(port) as dripping:
            half.sendall(b"GET /healthz HTTP/1.1\r\nHos")
            started = time.monotonic()
            while time.monotonic() - started < 5:
                try:
                    dripping.sendall(b"a")
                except OSError:
                    break
                time.sleep(0.05)
            else:
                pytest.fail("a head may take for ever")
            answer = read_answer(half)
            assert answer.status == 408
            assert "0.4 s" in answer.error
            assert is_closed(silent)
        with connect(port) as later:
            later.sendall(get())
            assert read_answer(later).status == 200
            later.sendall(b"GET /hea")
            assert is_closed(later), "the second head of a connection, too"


@pytest.mark.parametrize("most_of_one", [1000, 20])
def test_half_requests_lock_nobody_out(most_of_one: int) -> None:
    with serving(echo_app(), Bounds(most=20, most_of_one=most_of_one, head_seconds=60)) as port:
        halves = []
        for number in range(100):
            halves.append(connect(port))
            halves[-1].sendall(b"GET /healthz HTTP/1.1\r\nHos")
            if number % 10 == 9:
                assert ask(port, get()).status == 200
                assert ask(port, post(form(b"hello you"))).label == "hello you"
        open_ones = [each for each in halves if not is_closed(each, 0.02)]
        assert 10 <= len(open_ones) <= 20
        for each in halves:
            each.close()


def test_a_flood_makes_nobody_wait_for_the_system_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that come while the server is at something else are kept for it, by the system."""
    app = echo_app()
    with serving(app) as port:
        monkeypatch.setattr(app.state.pool, "place", lambda: time.sleep(1.5))  # which nothing of the server does
        with connect(port) as busy:
            busy.sendall(post(form(b"hello you")))
            time.sleep(0.2)
            started = time.monotonic()
            waiting = [connect(port) for _ in range(300)]
            assert time.monotonic() - started < 1
            for each in waiting:
                each.close()


def test_requests_at_work_are_not_closed_for_others() -> None:
    with serving(echo_app(), Bounds(most=4, most_of_one=4, head_seconds=60)) as port, connect(port) as slow:
        slow.sendall(post(form(b"sleep 1")))
        time.sleep(0.1)
        for _ in range(20):
            with connect(port) as half:
                half.sendall(b"GET")
                time.sleep(0.01)
        assert read_answer(slow).label == "sleep 1"


def test_one_more_than_can_be_at_work_is_refused() -> None:
    with serving(echo_app(), Bounds(most=2, most_of_one=2)) as port:
        with connect(port) as first, connect(port) as second:
            for each in (first, second):
                each.sendall(post(form(b"sleep 1")))
            time.sleep(0.2)
            with connect(port) as third:
                assert is_closed(third, 5)
            assert read_answer(first).status == read_answer(second).status == 200
        assert ask(port, get()).status == 200


def test_bounds_leave_descriptors_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for soft, most in ((1024, 512), (300, 75), (4096, 512), (16, 8), (resource.RLIM_INFINITY, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert usual_bounds() == Bounds(most, most // 2)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**6, 10**6))
    assert usual_bounds(10_000).most == 10_000


def test_a_body_that_is_not_wanted_is_not_read_for_ever() -> None:
    """An early answer reaches its client, which may go on sending for a while."""
    with serving(echo_app(), Bounds(late_seconds=0.4)) as port, connect(port) as connection:
        connection.sendall(HEAD.replace(b"/predict", b"/nowhere") + b"Content-Length: 1000000000\r\n\r\n")
        assert read_answer(connection).status == 404
        connection.sendall(bytes(100_000))
        assert is_closed(connection, 5)


def test_a_client_that_takes_no_answer_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.mp4").write_bytes(bytes(64 * 2**20))
    app = echo_app(samples=tmp_path)
    with serving(app, Bounds(stall_seconds=0.5)) as port:
        with connect(port) as deaf:
            deaf.sendall(get("/samples/large.mp4"))
            time.sleep(3)
            deaf.settimeout(5)
            total = 0
            try:
                while chunk := deaf.recv(2**20):
                    total += len(chunk)
            except ConnectionError:
                pass
            assert total < 64 * 2**20
        assert len(ask(port, get("/samples/large.mp4")).content) == 64 * 2**20, "another one has it all"


def test_pipelined_requests_are_answered_in_their_order() -> None:
    with serving(echo_app()) as port, connect(port) as connection:
        sent = [post(form(b"hello %d" % number)) for number in range(5)]
        connection.sendall(b"".join(sent) + get("/healthz", "Connection: close"))
        *answers, health = read_answers(connection, 6)
        assert [answer.label for answer in answers] == [f"hello {number}" for number in range(5)]
        assert health.status == 200


def test_a_client_that_leaves_is_noticed_though_it_sent_ahead() -> None:
    app = echo_app()
    with serving(app) as port:
        with connect(port) as connection:
            connection.sendall(post(form(b"sleep 20")))
            wait_until(lambda: app.state.pool.free == 8)
            for _ in range(3):
                connection.sendall(get())
                time.sleep(0.1)
        wait_until(lambda: app.state.pool.free == 9, 3)


def test_too_much_ahead_is_no_way_to_fill_the_memory() -> None:
    app = echo_app()
    with serving(app) as port, connect(port) as connection:
        connection.sendall(post(form(b"sleep 20")))
        wait_until(lambda: app.state.pool.free == 8)
        connection.settimeout(5)
        with suppress(OSError):
            for _ in range(200):
                connection.sendall(bytes(2**16))
            pytest.fail("all of it is taken")
        wait_until(lambda: app.state.pool.free == 9, 3)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n", 400),
        (b"GET / HTTX\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 400_000 + b"\r\n\r\n", 431),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_is_refused_in_the_form_of_every_error(request_: bytes, status: int) -> None:
    with serving(echo_app()) as port:
        answer = ask(port, request_)
        assert answer.status == status
        assert answer.error
        assert answer.headers["connection"] == "close"
        assert ask(port, get()).status == 200


def test_a_broken_chunk_ends_its_request_only() -> None:
    app = echo_app()
    with serving(app) as port:
        with connect(port) as connection:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n")
            assert is_closed(connection)
        wait_until(lambda: app.state.pool.free == 9)
        assert ask(port, get()).status == 200


def test_refusals_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    from timesformer.app.listen import Sparing

    sparing = Sparing()
    with serving(echo_app()) as port, caplog.at_level(logging.WARNING):
        for _ in range(50):
            ask(port, b"nonsense\r\n\r\n")
    passed = [record for record in caplog.records if sparing.filter(record)]
    assert len(passed) <= 10
