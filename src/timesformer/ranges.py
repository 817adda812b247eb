"""Numbers with stated ends: the same for options of a command, for recipes, and for configurations in Python."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_WHOLE = re.compile(r"-?[0-9]{1,18}")  # not `str.isdigit`, which other scripts' digits and superscripts pass
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Range:
    """Which numbers a value may be; infinity and NaN never.

    Attributes:
        least, most: its ends, which are part of it.
        whole: only whole numbers.
        above, below: the least, or the most, is not part of it.
    """

    least: float
    most: float
    whole: bool = False
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {_text(self.least)}, " if self.above else f"from {_text(self.least)} "
        high = f"below {_text(self.most)}" if self.below else f"up to {_text(self.most)}"
        return f"{kind} {low}{high}"

    def holds(self, value: object) -> bool:
        """Whether a value is a number in the range; truth values are none."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if not (self.least <= value <= self.most):  # of NaN too
            return False
        return not ((self.above and value == self.least) or (self.below and value == self.most))

    def check(self, name: str, value: object) -> None:
        """See that a value is in the range: ValueError that names it."""
        if not self.holds(value):
            raise ValueError(f"{name}={shown(value)} must be {self}")

    def parse(self, text: str) -> int | float:
        """The number that a text writes: ValueError where it is none in the range."""
        value: int | float | None = None
        if _WHOLE.fullmatch(text):
            value = int(text)
        elif _NUMBER.fullmatch(text) and not self.whole:
            value = float(text)
        if value is None or not self.holds(value):
            raise ValueError(f"{shown(text)} is not {self}")
        return value


def counts(least: int, most: int) -> Range:
    """Whole numbers from one to another, both included."""
    return Range(least, most, whole=True)


def shown(value: object, length: int = 100) -> str:
    """A value as an error shows it: of one that is long, its beginning."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return f"(a number of {math.floor(math.log10(abs(value))) + 1} digits)"
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}…"


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:g}"
