"""Who may ask the server: requests under its own names, and of browsers only those that its own page makes.

Without this, any page that somebody has open could send videos to a server on their machine; and under a name that an
attacker lets point there (DNS rebinding), read its samples and answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from timesformer.app.answers import SECURITY_HEADERS, ClientLeft, Refusal, printable, problem

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/\\?#@,\s]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}

logger = logging.getLogger(__name__)


def parse_host(text: str) -> tuple[str, int | None]:
    """Name and port of a `Host` header; the name in lower case, an IPv6 address in its shortest form.

    Raises:
        ValueError: it is not one name or address, with or without a port.
    """
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no name or address of a host")
    name, port = match[1].lower(), int(match[2]) if match[2] else None
    if name.startswith("["):
        name = ipaddress.IPv6Address(name[1:-1]).compressed
    return name.removesuffix("."), port


def host_name(text: str) -> str:
    """A name or address without port, an IPv6 address with or without brackets, as `parse_host` writes it."""
    try:
        return ipaddress.ip_address(text).compressed
    except ValueError:
        pass
    name, port = parse_host(text)
    if port is not None or "*" in name:
        raise ValueError(f"{text!r} is not one name or address of a host, without a port")
    return name


def is_loopback(name: str) -> bool:
    """Whether a name or address, as `parse_host` writes it, can only be this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses requests under other names and from other pages; gives every answer the same headers.

    Whatever fails behind it is answered in JSON too.

    Args:
        hosts: names and addresses under which the server may be asked, beside the loopback ones.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self.app, self.hosts = app, frozenset(map(host_name, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                names = {name for name, _ in message.get("headers", ())}
                more = [(n.encode(), v.encode()) for n, v in SECURITY_HEADERS.items() if n.encode() not in names]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, receive, send_with_headers)
            return
        except ClientLeft:
            return
        except Refusal as refusal:
            answer = problem(refusal.status, str(refusal), refusal.headers)
        except asyncio.CancelledError:  # the server stops, and has waited for long enough
            if started:
                raise
            answer = problem(503, "the server stops", {"Connection": "close"})
        except Exception:
            logger.exception("the server failed at %s %s", scope["method"], printable(scope["path"]))
            if started:
                raise
            answer = problem(500, "the server failed")
        await answer(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        """Raise Refusal for what may come from another page, or under a name that is not the server's."""
        if not scope["path"].startswith("/"):
            raise Refusal(400, "the target of a request must be a path")
        hosts, origins, sites, modes, uses = (
            [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
            for wanted in (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
        )
        if len(hosts) != 1:
            raise Refusal(400, f"a request must have one Host header, not {len(hosts)}")
        try:
            host = parse_host(hosts[0])
        except ValueError as error:
            raise Refusal(400, f"Host: {error}") from None
        if not is_loopback(host[0]) and host[0] not in self.hosts:
            raise Refusal(403, f"Host: {host[0]!r} is not a name of this server; --allow-host {host[0]} allows it")
        if any(not self._is_same(origin, host) for origin in origins):
            raise Refusal(403, f"Origin: {origins[0][:100]!r} is not this server's own page")
        to_page = scope["method"] == "GET" and scope["path"] == "/"
        followed_link = to_page and modes == ["navigate"] and uses in ([], ["document"])  # and not in a frame
        if any(site.lower() not in ("same-origin", "none") for site in sites) and not followed_link:
            raise Refusal(403, f"Sec-Fetch-Site: {sites[0][:100]!r}: not asked by this server's own page")

    def _is_same(self, origin: str, host: tuple[str, int | None]) -> bool:
        scheme, _, rest = origin.partition("://")
        # A proxy that speaks TLS in front of the server has a name of its own.
        if scheme not in _PORTS or (scheme == "https" and host[0] not in self.hosts):
            return False
        try:
            name, port = parse_host(rest)
        except ValueError:
            return False
        return (name, port or _PORTS[scheme]) == (host[0], host[1] or _PORTS[scheme])
