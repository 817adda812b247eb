"""Text of others (names of files and classes, messages) as it can be written anywhere, and shown on a terminal."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATES = re.compile("[\ud800-\udfff]")
# What moves the cursor, changes the terminal, ends a line, or reorders what stands around it.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"
_UNSHOWN, _UNSHOWN_IN_A_LINE = re.compile(f"[{_CONTROLS}]"), re.compile(f"[{_CONTROLS}\t\n]")


def text_of(value: object) -> str:
    """The text of a path or anything else as valid Unicode: a byte of a name that is not UTF-8 becomes `\\xff`."""
    return _SURROGATES.sub(_escaped, str(value))


def shown(value: object, *, lines: bool = False) -> str:
    """The text of anything for a terminal or a picture: control characters and those that reorder text are escaped.

    Args:
        lines: keep tabs and ends of lines, for a text of our own that has several lines.
    """
    return (_UNSHOWN if lines else _UNSHOWN_IN_A_LINE).sub(_escaped, text_of(value))


def json_text(value: Any) -> str:
    """A value as indented JSON of printable ASCII characters."""
    return json.dumps(_plain(value), indent=2).replace("\x7f", "\\u007f")


def _plain(value: Any) -> Any:
    """The same value with valid Unicode in all of its texts."""
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, dict):
        return {text_of(key) if isinstance(key, str) else key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps such a byte
        return f"\\x{code - 0xDC00:02x}"
    return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}.get(match[0]) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    )
