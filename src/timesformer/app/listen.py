"""Listening: the socket, the server around an application, what it logs, and how it ends."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from timesformer.app.answers import printable
from timesformer.app.connections import Bounds, Connection, Connections

_AT_ONCE = 64  # connections that are accepted before the first of them is counted
_BACKLOG = 1024  # connections that wait to be accepted; whoever finds no room there tries again after a second
_STOP = 4  # seconds, for requests that are being answered when the server is to stop
_LEAVE = 2  # seconds, for clients to take in that theirs is not


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that no other server can, too.

    Raises:
        ValueError: it can't; the message names host and port, and says why.
    """
    if not 0 <= port <= 65535:  # of which getaddrinfo takes the last 16 bits
        raise ValueError(f"--port {port}: a port is a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":  # where it would let two servers listen
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    except (OSError, OverflowError, ValueError) as error:
        raise ValueError(f"--host {printable(host)} --port {port}: {error}") from error
    return listening


class Server(uvicorn.Server):
    """Serves an application on sockets.

    The first signal ends it within seconds: requests that are not answered by then are refused. A second ends it at
    once.

    Args:
        app: the application.
        bounds: of its connections.
        end_now: called at the second signal.
    """

    def __init__(self, app: ASGIApp, bounds: Bounds, end_now: Callable[[], None] = lambda: None) -> None:
        connection = functools.partial(Connection, connections=Connections(bounds))
        config = uvicorn.Config(
            cast(Any, app),
            http=cast(Any, connection),
            loop="asyncio",
            ws="none",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="warning",
            backlog=_AT_ONCE,
            timeout_graceful_shutdown=_STOP + _LEAVE,
        )
        super().__init__(config)
        self._end_now = end_now

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:  # asyncio has one number for how many wait, and how many it accepts at once
            listening.listen(_BACKLOG)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        def refuse_the_rest() -> None:
            for task in self.server_state.tasks:
                task.cancel()

        asyncio.get_running_loop().call_later(_STOP, refuse_the_rest)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            self._end_now()
        super().handle_exit(sig, frame)


class Sparing(logging.Filter):
    """Lets a few records of a kind through in a while, and says how many more there were when the next one comes.

    Args:
        most: records of a kind that pass in a while.
        seconds: of a while.
    """

    def __init__(self, most: int = 5, seconds: float = 60) -> None:
        super().__init__()
        self._most, self._seconds = most, seconds
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}  # start of the while, and how many since

    def filter(self, record: logging.LogRecord) -> bool:
        # What asyncio logs has the connection in its text, a different one each time.
        kind = record.name, record.levelno, str(record.msg)[:24]
        now = time.monotonic()
        start, count = self._seen.get(kind, (now, 0))
        if now - start > self._seconds:
            if count > self._most:
                record.msg = f"{record.getMessage()} ({count - self._most} more like this in {now - start:.0f} s)"
                record.args = ()
            start, count = now, 0
        if len(self._seen) > 1000:  # kinds are few; whatever makes them many is not to fill the memory
            self._seen.clear()
        self._seen[kind] = start, count + 1
        return count < self._most


class _OneLine(logging.Formatter):
    """Nothing in a message that a terminal might obey; traces keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(printable(line) for line in super().format(record).splitlines())


def log_sparingly() -> None:
    """Send what is logged to the standard error, a little of each kind."""
    handler = logging.StreamHandler()
    handler.addFilter(Sparing())
    handler.setFormatter(_OneLine("%(asctime)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
