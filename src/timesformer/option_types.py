"""Types of a command's options: text to a number in a stated range, or one line that says the range."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Literal

from timesformer.ranges import Range, counts, shown

FRAMES, SIDE = counts(1, 10_000), counts(1, 16_384)
_GRID = counts(1, 64)
_MOST_CELLS, _MOST_VALUES = 16_384, 100


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from one to another."""
    allowed = counts(least, most)
    return lambda text: int(_parse(allowed, text))


def number(least: float, most: float, *, above: bool = False) -> Callable[[str], float]:
    """The type of an option that is a number from one (or `above` it) up to another."""
    allowed = Range(least, most, above=above)
    return lambda text: float(_parse(allowed, text))


count = whole(1, 10**6)
processes = whole(1, 1024)
seed = whole(0, 2**32 - 1)
port = whole(0, 65535)
frames, side = whole(1, int(FRAMES.most)), whole(1, int(SIDE.most))
share, part = number(0, 1), number(0, 1, above=True)
amount, seconds = number(0, 10**6, above=True), number(0, 86400, above=True)
tolerance = number(0, 1000)


def clips(text: str) -> int | Literal["cover"]:
    """A number of clips, or `cover`."""
    if text == "cover":
        return "cover"
    try:
        return int(counts(1, 1000).parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor `cover`") from error


def grid(text: str) -> tuple[int, int, int]:
    """Frames, rows and columns of patches."""
    sides = _three(text, _GRID)
    if sides[0] * sides[1] * sides[2] > _MOST_CELLS:
        raise argparse.ArgumentTypeError(f"{shown(text)} has more than {_MOST_CELLS} patches")
    return sides


def place(text: str) -> tuple[int, int, int]:
    """The frame, row and column of a patch, from 0 up."""
    return _three(text, counts(0, int(_GRID.most) - 1))


def sweep(text: str) -> tuple[Literal["frames", "size"], list[int]]:
    """Values of one option of clips, as in frames=8,16,32."""
    option, _, values = text.partition("=")
    texts = values.split(",")
    if option not in ("frames", "size") or not values or len(texts) > _MOST_VALUES:
        form = f"of the form frames=8,16,32 or size=224,336, with at most {_MOST_VALUES} values"
        raise argparse.ArgumentTypeError(f"{shown(text)} is not {form}")
    allowed = FRAMES if option == "frames" else SIDE
    return ("frames" if option == "frames" else "size"), [int(_parse(allowed, value)) for value in texts]


def _three(text: str, allowed: Range) -> tuple[int, int, int]:
    texts = text.split(",")
    if len(texts) != 3:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not three numbers: frame,row,column")
    first, second, third = (int(_parse(allowed, each)) for each in texts)
    return first, second, third


def _parse(allowed: Range, text: str) -> int | float:
    try:
        return allowed.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
