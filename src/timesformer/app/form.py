"""Receives a video that is sent as a form: written once, as it arrives, within bounds of size, parts and time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from timesformer.app.answers import ClientLeft, Refusal, busy, printable
from timesformer.app.uploads import Claim, NoSpace, Uploads, full_disk_is_no_space

_FIELD = "video"
_HEADERS = 8192  # bytes of the headers of a part
_AT_ONCE = 2**20  # bytes that are written at a time


@dataclass(frozen=True)
class Pace:
    """How slowly an upload may come.

    Attributes:
        idle: seconds without a byte; also how long the rate may be below the least one.
        rate: bytes a second, on average.
        seconds: for all of it.
    """

    idle: float = 30
    rate: float = 10_000
    seconds: float = 600


@dataclass(frozen=True)
class Video:
    """An upload: where it is, and its name for people, in which nothing is left that a terminal might obey."""

    path: Path
    name: str


class _Part:
    """Takes what a parser finds in a form that has to have one part, the video."""

    def __init__(self) -> None:
        self.name = ""
        self.data: list[bytes] = []
        self.size = 0  # of the video, so far
        self.ended = False
        self.started = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._field = self._value = b""
        self._bytes = 0

    def on_part_begin(self) -> None:
        if self.started:
            raise Refusal(422, f"{_FIELD}: a form must have one part, the video, and no other")
        self.started = True

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += self._header(data, start, end)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._header(data, start, end)

    def _header(self, data: bytes, start: int, end: int) -> bytes:
        self._bytes += end - start
        if self._bytes > _HEADERS:
            raise Refusal(400, f"the headers of a part may have {_HEADERS} bytes")
        return data[start:end]

    def on_header_end(self) -> None:
        self._headers.append((self._field.lower(), self._value))
        self._field = self._value = b""

    def on_headers_finished(self) -> None:
        disposition = next((value for name, value in self._headers if name == b"content-disposition"), b"")
        _, options = parse_options_header(disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != _FIELD:
            raise Refusal(422, f"{_FIELD}: a form must have one part of this name, not {printable(field[:100])!r}")
        if b"filename" not in options:
            raise Refusal(422, f"{_FIELD}: must be a file, with a file name")
        self.name = printable(options[b"filename"].decode("utf-8", "replace"))[:255]

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.data.append(data[start:end])
        self.size += end - start

    def on_end(self) -> None:
        self.ended = True

    def take(self) -> bytes:
        data, self.data = b"".join(self.data), []
        return data


async def receive_video(request: Request, uploads: Uploads, claim: Claim, largest: float, pace: Pace) -> Video:
    """Write the video of a request into the folder that is claimed for it.

    Raises:
        Refusal: it is not as it has to be, too large or too slow, or there is no room for it.
        ClientLeft: the client is gone.
    """
    part = _Part()
    callbacks = {name: getattr(part, name) for name in dir(part) if name.startswith("on_")}
    try:
        parser = MultipartParser(_boundary(request), callbacks)  # type: ignore[arg-type]
        file = claim.folder / "video"
        with full_disk_is_no_space(), file.open("wb") as stream:
            async for chunk in _body(request, largest, pace):
                parser.write(chunk)
                if sum(map(len, part.data)) >= _AT_ONCE:
                    await _write(stream.write, part, uploads, claim)
            parser.finalize()
            await _write(stream.write, part, uploads, claim)
    except FormParserError as error:
        raise Refusal(400, f"the form can't be read: {printable(str(error))[:200]}") from None
    except NoSpace as error:
        raise busy(str(error)) from None
    if part.ended and not part.started:
        raise Refusal(422, f"{_FIELD}: there is no such part in the form")
    if not part.ended:
        raise Refusal(400, "the form can't be read: it ends too early")
    if not part.size:
        raise Refusal(422, f"{part.name or 'the video'}: is empty")
    suffix = re.sub(r"[^a-z0-9]", "", Path(part.name).suffix.lower())[:8]
    return Video(file.rename(file.with_name(f"video.{suffix}")) if suffix else file, part.name or "the video")


async def _write(write: object, part: _Part, uploads: Uploads, claim: Claim) -> None:
    data = part.take()
    uploads.grow(claim, claim.written + len(data))
    await asyncio.to_thread(write, data)  # type: ignore[arg-type]  # a disk may be slow
    claim.written += len(data)


def declared_size(request: Request, largest: float) -> int:
    """Length of the body as its header has it; 0 if it comes without. Raises Refusal for one that is too large."""
    size = int(request.headers.get("content-length", 0))  # which the HTTP parser has checked
    if size > largest:
        raise too_large(largest)
    return size


def too_large(largest: float) -> Refusal:
    return Refusal(413, f"at most {largest / 2**20:g} MB are allowed")


def _boundary(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Refusal(415, f"{_FIELD}: a body with Content-Encoding {printable(encoding[:100])!r} is not taken")
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        text = printable(request.headers.get("content-type", "")[:100])
        raise Refusal(415, f"{_FIELD}: must come as multipart/form-data with a boundary, not {text!r}")
    return options[b"boundary"]


async def _body(request: Request, largest: float, pace: Pace) -> AsyncIterator[bytes]:
    """The chunks of a body. Raises Refusal where it is too large or too slow."""
    clock = asyncio.get_running_loop().time
    started, size = clock(), 0
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), pace.idle)
        except asyncio.TimeoutError:  # two classes before Python 3.11
            raise _too_slow(f"nothing came for {pace.idle:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        size += len(message.get("body", b""))
        if size > largest:
            raise too_large(largest)
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
        passed = clock() - started
        if passed > pace.seconds:
            raise _too_slow(f"it takes more than {pace.seconds:g} s")
        if passed > pace.idle and size < passed * pace.rate:
            raise _too_slow(f"less than {pace.rate / 1000:g} kB come in a second")


def _too_slow(why: str) -> Refusal:
    return Refusal(408, f"the upload is too slow: {why}", {"Connection": "close"})
