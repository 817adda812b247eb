"""A server in a thread of the test, with workers that do as a test says; and requests byte by byte."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from timesformer.app.connections import Bounds
from timesformer.app.listen import Server, listen
from timesformer.app.pool import Pool
from timesformer.app.samples import Samples
from timesformer.app.server import Limits, make_app
from timesformer.workers import QUICKEST, Worker

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"


def make_echo() -> Callable[[dict[str, Any]], None]:
    """A worker whose videos are orders: what comes back is the label; `sleep S`, `die`, `freeze`, `full` or `fail`."""

    def do(job: dict[str, Any]) -> None:
        order, _, rest = Path(job["path"]).read_text(encoding="utf-8", errors="replace").partition(" ")
        if order == "sleep":
            time.sleep(float(rest))
        if order == "die":
            os._exit(9)
        if order == "full":
            raise OSError(28, "No space left on device")
        if order == "fail":
            raise LookupError("a fault")
        answer = {"top": [{"label": f"{order} {rest}", "score": 1.0}], "duration": os.getpid(), "clips": 1.0}
        Path(job["answer"]).write_text(json.dumps(answer))

    return do


def echo_app(workers: int = 1, limits: Limits | None = None, samples: Path | None = None, **options: Any) -> FastAPI:
    limits = limits or Limits()
    pool = Pool([Worker(make_echo, method=QUICKEST) for _ in range(workers)], limits.waiting)
    return make_app(pool, limits, Samples(samples), **options)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def error(self) -> str:
        """Of an answer in the form of every error."""
        assert self.headers["content-type"] == "application/json", (self.status, self.content)
        value = json.loads(self.content)
        assert list(value) == ["error"], value
        assert isinstance(value["error"], str)
        return value["error"]

    @property
    def label(self) -> str:
        assert self.status == 200, self.content
        return json.loads(self.content)["top"][0]["label"]


class _Received(io.BytesIO):
    """Several answers, one after the other, for `http.client` to read as if from a socket."""

    def makefile(self, mode: str) -> io.BytesIO:
        return self

    def close(self) -> None:
        """Nothing, as the next answer is to be read."""


def read_answers(connection: socket.socket, count: int) -> list[Answer]:
    """So many answers, after which the server closes the connection."""
    content = b""
    while chunk := connection.recv(2**16):
        content += chunk
    received = _Received(content)
    return [read_answer(received) for _ in range(count)]  # type: ignore[arg-type]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def read_answer(connection: socket.socket, method: str = "GET") -> Answer:
    """The next answer, which has to be whole."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return Answer(response.status, response.headers, response.read())


def ask(port: int, request: bytes) -> Answer:
    """The answer to what is sent."""
    with connect(port) as connection:
        connection.sendall(request)
        return read_answer(connection, request.split(b" ", 1)[0].decode("latin-1"))


def get(path: str = "/healthz", *headers: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        *(headers if any(h.startswith("Host") for h in headers) else ("Host: localhost", *headers)),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def form(content: bytes, *, disposition: bytes = b'form-data; name="video"; filename="a.mp4"') -> bytes:
    return b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n--x--\r\n"


def post(body: bytes, *, path: str = "/predict", length: int | None = None, headers: bytes = b"") -> bytes:
    """A request with a body, which is said to be of this length."""
    length = len(body) if length is None else length
    head = HEAD.replace(b"/predict", path.encode("latin-1"))
    return head + headers + b"Content-Length: %d\r\n\r\n" % length + body


@contextmanager
def serving(app: FastAPI, bounds: Bounds | None = None) -> Iterator[int]:
    """The port of a server that runs the application."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = Server(app, bounds or Bounds())
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        ask(port, get())
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until(is_so: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.01)
