"""Uploads: forms that are not as they have to be, come too slowly, or take more space than there is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
    serving,
    wait_until,
)  # fmt: skip
from timesformer.app import uploads as module
from timesformer.app.form import Pace
from timesformer.app.server import Limits
from timesformer.app.uploads import NoSpace, Uploads, remove_leftovers


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(echo_app(limits=Limits(megabytes=1))) as port:
        yield port


def named(name: bytes) -> bytes:
    return b'form-data; name="video"; filename="' + name + b'"'


def test_forms_as_they_may_come(port: int) -> None:
    assert ask(port, post(form(b"hello you"))).label == "hello you"
    quoted = form(b"hello you", disposition=b"form-data; filename=a.mp4; name=video")
    assert ask(port, post(quoted)).label == "hello you"
    body = form(b"hello you")
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
    assert ask(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n").label == "hello you"
    large = b"large " + bytes(900_000)
    assert len(ask(port, post(form(large))).label) == len(large)


def test_a_body_is_asked_for_only_if_it_is_wanted(port: int) -> None:
    with connect(port) as connection:
        body = form(b"hello you")
        connection.sendall(post(b"", length=len(body), headers=b"Expect: 100-continue\r\n"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert read_answer(connection).label == "hello you"
    assert ask(port, post(b"", length=2**21, headers=b"Expect: 100-continue\r\n")).status == 413


BAD = {
    "no part": (post(b"--x--\r\n"), 422),
    "nothing": (post(b""), 400),
    "no length": (HEAD + b"\r\n", 400),
    "another part": (post(form(b"a", disposition=b'form-data; name="film"; filename="a.mp4"')), 422),
    "no name": (post(form(b"a", disposition=b'form-data; filename="a.mp4"')), 422),
    "no file name": (post(form(b"a", disposition=b'form-data; name="video"')), 422),
    "no disposition": (post(b"--x\r\n\r\na\r\n--x--\r\n"), 422),
    "two videos": (post(form(b"a")[:-7] + b"\r\n" + form(b"b")), 422),
    "a thousand parts": (post((form(b"a")[:-5] + b"\r\n") * 1000 + form(b"b")), 422),
    "an empty file": (post(form(b"")), 422),
    "an end too early": (post(form(b"hello you")[:-7]), 400),
    "headers without end": (post(b"--x\r\n" + b"A: b\r\n" * 10_000), 400),
    "a header without end": (post(b"--x\r\nA: " + b"a" * 100_000), 400),
    "no boundary": (post(form(b"a")).replace(b"; boundary=x", b""), 415),
    "a long boundary": (post(form(b"a")).replace(b"boundary=x", b"boundary=" + b"x" * 5000), 400),
    "no form": (post(b"hello you").replace(b"multipart/form-data; boundary=x", b"video/mp4"), 415),
    "fields": (post(b"video=a").replace(b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded"), 415),
    "no type": (post(form(b"a")).replace(b"Content-Type: multipart/form-data; boundary=x\r\n", b""), 415),
    "gzip": (post(form(b"a"), headers=b"Content-Encoding: gzip\r\n"), 415),
    "too large": (post(form(bytes(2**21))), 413),
    "said to be too large": (post(b"", length=2**40), 413),
    "a parameter of no use": (post(form(b"a"), path="/predict?bottom=5"), 422),
    "a parameter twice": (post(form(b"a"), path="/predict?top=5&top=6"), 422),
    "top 1e18": (post(form(b"a"), path="/predict?top=1000000000000000000"), 422),
    "top 0": (post(form(b"a"), path="/predict?top=0"), 422),
    "threshold nan": (post(form(b"a"), path="/timeline?threshold=nan"), 422),
    "threshold inf": (post(form(b"a"), path="/timeline?threshold=inf"), 422),
    "another format": (post(form(b"a"), path="/explain?format=html"), 422),
    "a fault": (post(form(b"fail")), 500),
    "a full disk of the worker": (post(form(b"full")), 503),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_as_it_has_to_be_is_refused(port: int, name: str) -> None:
    request, status = BAD[name]
    answer = ask(port, request)
    assert (answer.status, bool(answer.error)) == (status, True), answer.content
    assert tempfile.gettempdir() not in answer.error
    assert ask(port, post(form(b"hello you"))).label == "hello you"


@pytest.mark.parametrize(
    "name", [b"\xed\xa0\x80.mp4", b"\xff.mp4", b"\\ud800.mp4", b"a\x1b[31m\x07.mp4", b"<b>.mp4", b"a" * 900]
)
@pytest.mark.parametrize("charset", [b"", b"; charset=unicode_escape", b"; charset=utf-16"])
def test_any_name_is_text(port: int, name: bytes, charset: bytes) -> None:
    request = post(form(b"", disposition=named(name))).replace(b"boundary=x", b"boundary=x" + charset)
    answer = ask(port, request)
    assert answer.status == 422
    assert answer.error.isprintable()
    assert ask(port, request.replace(b"\r\n\r\n\r\n", b"\r\n\r\nhi a\r\n")).status in (200, 400)


def test_an_upload_may_not_stand_still() -> None:
    app = echo_app(limits=Limits(pace=Pace(idle=0.3)))
    with serving(app) as port, connect(port) as idle:
        idle.sendall(post(form(b"hello")[:50], length=1000))
        answer = read_answer(idle)
        assert answer.status == 408
        assert "0.3 s" in answer.error
        assert app.state.pool.free == 9
        assert list(app.state.uploads.folder.iterdir()) == [app.state.uploads.folder / "owner.json"]


@pytest.mark.parametrize("pace", [Pace(idle=0.3, rate=1000), Pace(idle=5, rate=1, seconds=0.5)])
def test_an_upload_may_not_drip(pace: Pace) -> None:
    with serving(echo_app(limits=Limits(pace=pace))) as port, connect(port) as slow:
        slow.sendall(post(form(b"hello")[:50], length=1000))
        for _ in range(100):
            try:
                slow.sendall(b"a")
            except OSError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("it may take for ever")
        assert read_answer(slow).status == 408


def test_whether_there_is_a_place_is_asked_before_the_video() -> None:
    app = echo_app(limits=Limits(waiting=1))
    with serving(app) as port, connect(port) as first, connect(port) as second:
        for each in (first, second):
            each.sendall(post(b"", length=1000))
        wait_until(lambda: app.state.pool.free == 0)
        for request in (post(b"", length=10**8), HEAD + b"Transfer-Encoding: chunked\r\n\r\n"):
            answer = ask(port, request)
            assert answer.status == 503
            assert "too many" in answer.error
            assert int(answer.headers["retry-after"]) > 0
        first.close()
        wait_until(lambda: app.state.pool.free == 1, 3)
        assert ask(port, post(form(b"hello you"))).label == "hello you"


def test_all_uploads_share_a_space() -> None:
    app = echo_app(limits=Limits(megabytes=1, upload_megabytes=1.5))
    with serving(app) as port, connect(port) as first:
        first.sendall(post(form(bytes(2**19))[:-10], length=2**20))
        wait_until(lambda: app.state.pool.free == 8)
        answer = ask(port, post(b"", length=2**20))
        assert answer.status == 503
        assert "1.5 MB" in answer.error
        assert int(answer.headers["retry-after"]) > 0
        body = b"%x\r\n" % 2**20 + bytes(2**20)
        assert ask(port, post(form(b"hello you"))).label == "hello you"
        first.close()
        wait_until(lambda: app.state.pool.free == 9)
        del body
        assert ask(port, post(b"", length=2**20 + 1)).status == 413


def test_what_grows_is_counted(temporary: Path) -> None:
    uploads = Uploads(100)
    uploads.open()
    with uploads.claim(40) as first, uploads.claim() as second:
        uploads.grow(second, 60)
        with pytest.raises(NoSpace, match="together"):
            uploads.grow(second, 61)
        with pytest.raises(NoSpace), uploads.claim(1):
            pass
        assert first.folder != second.folder
    with uploads.claim(100):
        pass
    assert [path.name for path in next(iter(temporary.iterdir())).iterdir()] == ["owner.json"]
    uploads.close()
    assert not list(temporary.iterdir())


def test_a_disk_that_is_nearly_full_takes_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tempfile.gettempdir())._replace(free=17 * 2**20)
    with serving(echo_app()) as port:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        assert ask(port, post(form(b"hello you"))).label == "hello you"
        answer = ask(port, post(b"", length=2**21))
        assert answer.status == 503
        assert answer.error == "the server's disk is full"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_becomes_full_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(echo_app()) as port:
        original = Path.open

        def full(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
            return original(Path("/dev/full") if self.name == "video" and "w" in mode else self, mode, *rest, **more)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", full)
        answer = ask(port, post(form(b"hello you")))
        assert (answer.status, answer.error) == (503, "the server's disk is full")
        monkeypatch.undo()
        assert ask(port, get()).status == 200


HELD = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from timesformer.app.uploads import Uploads
uploads = Uploads(1000)
uploads.open()
with uploads.claim(10) as claim:
    (claim.folder / "video").write_bytes(bytes(10))
    print(uploads.folder, flush=True)
    time.sleep(600)
"""


def test_leftovers_of_a_killed_server_are_removed_and_nothing_else(temporary: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", HELD, str(temporary)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, alive = (Path(each.stdout.readline().strip()) for each in running if each.stdout)
        running[0].send_signal(signal.SIGKILL)
        running[0].wait()
        others = [temporary / "timesformer-serve-a", temporary / "timesformer-serve-b", temporary / "other"]
        for other in others:
            other.mkdir()
            (other / "file").touch()
        (others[0] / "owner.json").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
        elsewhere = temporary / "target"
        elsewhere.mkdir()
        (elsewhere / "owner.json").write_text(json.dumps({"host": socket.gethostname(), "pid": 1}))
        (temporary / "timesformer-serve-link").symlink_to(elsewhere)
        (temporary / "timesformer-serve-file").touch()
        (others[1] / "owner.json").symlink_to(elsewhere / "owner.json")
        before = set(temporary.rglob("*"))
        remove_leftovers()
        assert not killed.exists()
        gone = before - set(temporary.rglob("*"))
        assert gone == {path for path in before if path == killed or killed in path.parents}
        assert (alive / "0" / "video").exists()
    finally:
        for each in running:
            each.kill()
            each.communicate()
    remove_leftovers()
    assert not alive.exists()


def test_without_locks_leftovers_stay(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fcntl", None)
    uploads = Uploads(10)
    uploads.open()
    remove_leftovers()
    assert uploads.folder is not None
    assert uploads.folder.exists()
    assert os.stat(uploads.folder).st_mode & 0o077 == 0, "for nobody else to read"
    uploads.close()
