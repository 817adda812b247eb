"""What the server answers with: JSON that every reader of JSON accepts, and one form of error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel

# As headers of every answer: it is for this server's own page, in no frame, of its declared type, and not stored.
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Problem(BaseModel):
    """Why a request is not answered."""

    error: str


class Refusal(Exception):
    """A request that is not answered, and why.

    Attributes:
        status: of the HTTP response.
        headers: more of them.
    """

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


class ClientLeft(Exception):
    """Nobody is there to answer."""


def busy(why: str, status: int = 503) -> Refusal:
    """A refusal of what may well be answered a little later."""
    return Refusal(status, why, {"Retry-After": "5"})


class Json(Response):
    """A value as JSON, in ASCII: any text passes, a lone surrogate too. Raises ValueError for NaN and infinity."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def problem(status: int, why: str, headers: Mapping[str, str] | None = None) -> Json:
    """The answer of every request that is refused or fails."""
    return Json({"error": why}, status, headers)


def printable(text: str) -> str:
    """Text with whatever a terminal might obey, or an encoder refuse, written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
