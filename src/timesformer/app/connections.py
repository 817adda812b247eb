"""Connections of the server: how many there may be, how long a request's head may take, and what ends those that stall.

A connection is at work while a request of its is answered. One that is not costs nothing to close: where there are too
many, the one of the busiest address that has waited longest gives way, so that half requests never lock others out.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from timesformer.app.answers import SECURITY_HEADERS, busy, problem

_AHEAD = 2**16  # bytes that a client may send after a request, before it is answered


@dataclass(frozen=True)
class Bounds:
    """How much of the server its connections may take.

    Attributes:
        most: connections.
        most_of_one: of one address.
        head_seconds: until a request's head is there, from the start of the connection or the answer before.
        late_seconds: for which the body of a request goes on being read, and dropped, after it was answered.
        stall_seconds: for which a client may take in nothing of an answer.
    """

    most: int = 512
    most_of_one: int = 256
    head_seconds: float = 10
    late_seconds: float = 5
    stall_seconds: float = 30


def usual_bounds(most: int = Bounds.most, reserve: int = 256) -> Bounds:
    """Bounds that leave a reserve of what this process may open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return Bounds(most, max(1, most // 2))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        most = min(most, max(8, soft - reserve, soft // 4))
    return Bounds(most, max(1, most // 2))


class Connections:
    """All connections of a server."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._all: dict[Connection, None] = {}  # in the order in which they came
        self._of: Counter[str] = Counter()
        self._sweeping: asyncio.TimerHandle | None = None

    def add(self, connection: Connection) -> bool:
        """Take one on; False if there is no room, and all others are at work."""
        self._all[connection] = None
        self._of[connection.address] += 1
        if self._sweeping is None:
            self._sweep(connection.loop)
        busiest = None
        if self._of[connection.address] > self.bounds.most_of_one:
            busiest = connection.address
        elif len(self._all) > self.bounds.most:
            busiest = self._of.most_common(1)[0][0]
        if busiest is None:
            return True
        idle = (each for each in self._all if each.address == busiest and not each.is_at_work)
        waiting_longest = min(idle, key=lambda each: each.since)  # the new one at the latest
        waiting_longest.drop()
        return waiting_longest is not connection

    def remove(self, connection: Connection) -> None:
        if self._all.pop(connection, connection) is None:
            self._of[connection.address] -= 1
            self._of += Counter()  # without those of none

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        for connection in list(self._all):
            connection.end_if_stalled(self.bounds)
        shortest = min(self.bounds.head_seconds, self.bounds.late_seconds, self.bounds.stall_seconds)
        self._sweeping = loop.call_later(min(1, shortest / 4), self._sweep, loop) if self._all else None


class Connection(H11Protocol):
    """A connection that is counted, ends when it stalls, and has its errors answered in JSON."""

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = connections
        self.address = ""
        self.since = self._taken = 0.0  # when it began to wait for a request; when the client last took in some answer
        self._untaken = 0  # bytes of answers

    @property
    def is_at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.since = self._taken = self.loop.time()
        if not self._connections.add(self):
            self._refuse(503, "there are too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.is_at_work and self.conn.their_state is h11.DONE:
            # That the client leaves is only seen while there is reading, of a few requests ahead too.
            if len(self.conn.trailing_data[0]) > _AHEAD:
                self.drop()
            else:
                self.flow.resume_reading()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._taken = self.loop.time()
        super().resume_writing()

    def drop(self) -> None:
        """Close it at once, without a word."""
        self._connections.remove(self)  # so that of several at a time each makes room
        self.transport.abort()

    def end_if_stalled(self, bounds: Bounds) -> None:
        """Close it if its client keeps it waiting for too long."""
        now, untaken = self.loop.time(), self.transport.get_write_buffer_size()
        if untaken < self._untaken or not untaken:
            self._taken = now
        self._untaken = untaken
        if now - self._taken > bounds.stall_seconds:
            self.drop()
        elif self.is_at_work or self.transport.is_closing():
            return
        elif self.conn.their_state is h11.SEND_BODY:
            if now - self.since > bounds.late_seconds:
                self.transport.close()
        elif now - self.since > bounds.head_seconds:
            if self.conn.trailing_data[0]:
                self._refuse(408, f"the head of a request must be there within {bounds.head_seconds:g} s")
            else:
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        error = sys.exc_info()[1]  # this is called where it is handled
        hint = getattr(error, "error_status_hint", 400)
        self._refuse(hint, "the head of the request is too large" if hint == 431 else f"{msg} {error or ''}".strip())

    def _refuse(self, status: int, why: str) -> None:
        """Answer what is no request, or not a whole one, and close."""
        headers = busy(why).headers if status == 503 else None
        answer = problem(status, why, {**(headers or {}), **SECURITY_HEADERS, "connection": "close"})
        phrase = b"Refused"
        try:
            for event in (
                h11.Response(status_code=status, headers=answer.raw_headers, reason=phrase),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer has begun
            pass
        self.transport.close()
