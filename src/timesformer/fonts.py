"""Fonts for names in any script: of those that are installed, the ones that have the characters.

Matplotlib and Pillow draw a box for a character that the font lacks. The font that comes with matplotlib has Latin,
Greek, Cyrillic, Arabic and Hebrew letters, but neither Chinese, Japanese and Korean nor most scripts of India.
"""

from __future__ import annotations

import functools
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

_USUAL = "DejaVu Sans"  # comes with matplotlib
_HINT = "install fonts that have them, such as the packages fonts-noto-cjk and fonts-noto-core of Debian and Ubuntu"
_OTHER_STYLES = re.compile(r"bold|italic|oblique|thin|light|medium|black|condensed|mono|serif|display", re.I)
_logger = logging.getLogger(__name__)


class Font(NamedTuple):
    """A font that is installed: its family and its file."""

    family: str
    file: str


def fonts_for(text: str) -> tuple[Font, ...]:
    """The usual font and those that it takes beside it for the characters that it lacks; the earlier come first.

    Characters that no installed font has are named in one warning for each set of them.
    """
    lacking = frozenset(ord(mark) for mark in text if mark.isprintable() and not mark.isspace())
    return _fonts_for(lacking - _characters(_usual_file()))


@contextmanager
def fitting_fonts(figure: Any) -> Iterator[None]:
    """Give the texts of a matplotlib figure, which is drawn inside, fonts that have their characters."""
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families = [font.family for font in fonts_for("".join(text.get_text() for text in texts))]
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # which `fonts_for` says once
        yield


def runs(text: str) -> list[tuple[str, str]]:
    """A text in pieces, each with the file of the first font that has all of its characters."""
    fonts = fonts_for(text)
    pieces: list[tuple[str, str]] = []
    for mark in text:
        own = [font.file for font in fonts if ord(mark) in _characters(font.file)]
        file = own[0] if own else _usual_file()
        if pieces and (mark.isspace() or pieces[-1][1] == file):
            pieces[-1] = (pieces[-1][0] + mark, pieces[-1][1])
        else:
            pieces.append((mark, file))
    return pieces


@functools.cache
def _fonts_for(lacking: frozenset[int]) -> tuple[Font, ...]:
    """The usual font, and of the others always the one that has most of what is still lacking."""
    chosen = [Font(_USUAL, _usual_file())]
    while lacking:
        best = max(_installed(), key=lambda font: len(lacking & _characters(font.file)), default=None)
        if best is None or not lacking & _characters(best.file):
            some = "".join(map(chr, sorted(lacking)[:8]))
            _logger.warning("no installed font has the characters %s of names in pictures: %s", some, _HINT)
            break
        chosen.append(best)
        lacking -= _characters(best.file)
    return tuple(chosen)


@functools.cache
def _installed() -> tuple[Font, ...]:
    """The upright fonts of usual weight, sorted, so that the choice is always the same."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {entry.fname for entry in fontManager.ttflist}
    for file in sorted(set(findSystemFonts()) - known):  # matplotlib keeps a list, which may be older than the fonts
        if not _OTHER_STYLES.search(file.rpartition("/")[2]):
            with suppress(OSError, RuntimeError, ValueError):
                fontManager.addfont(file)
    plain = {
        Font(entry.name, entry.fname)
        for entry in fontManager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular")
        and entry.stretch == "normal"
        and not entry.name.startswith("Last Resort")  # has a picture of a box for every character there is
    }
    return tuple(sorted(plain))


@functools.cache
def _usual_file() -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(_USUAL))


@functools.cache
def _characters(file: str) -> frozenset[int]:
    """The characters that a font has; none if the file cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
