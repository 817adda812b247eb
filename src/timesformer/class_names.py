"""Names of classes: how they are compared, and the text files that list them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_NUMBERED = re.compile(r"([0-9]{1,18})[\s,;:]+(.+)")


def same_name(name: str) -> str:
    """A name in the one form (NFC) in which two spellings of the same characters are equal."""
    return unicodedata.normalize("NFC", name)


def parse_class_names(text: str) -> tuple[tuple[str, ...], int]:
    """The names in the text of a file such as classes.txt, and the index that the first of them has in it.

    A name a line, or `index name` lines, whose indices count from 0 or 1 and may be in any order. Raises ValueError
    where a name occurs twice.
    """
    lines = [line.strip() for line in text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    names = [same_name(line) for line in lines if line]
    numbered = [match for name in names if (match := _NUMBERED.fullmatch(name))]
    indices = sorted(int(match[1]) for match in numbered)
    first = 0
    if names and indices in (list(range(len(names))), list(range(1, len(names) + 1))):
        first = indices[0]
        names = [match[2] for match in sorted(numbered, key=lambda match: int(match[1]))]
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{name!r} occurs {count} times; allowed: each name once")
    return tuple(names), first


def some(names: Sequence[str]) -> str:
    """The first of many names, for a message."""
    return ", ".join(names[:40]) + (f", … and {len(names) - 40} more" if len(names) > 40 else "")
