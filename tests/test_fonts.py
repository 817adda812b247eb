"""Names in any script in pictures: characters instead of boxes, or a note on what to install."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from timesformer import fonts
from timesformer.explain.explain import _captioned
from timesformer.files import save_figure

USUAL = findfont("DejaVu Sans")


@pytest.fixture(autouse=True)
def fresh() -> None:
    fonts._fonts_for.cache_clear()


@pytest.fixture
def two_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pretended fonts: one with two characters, one with three, of which it shares one."""
    own = {"some.ttf": {0x4E2D, 0x56FD}, "more.ttf": {0x56FD, 0x0905, 0x0906}}
    real = fonts._characters
    monkeypatch.setattr(fonts, "_installed", lambda: (fonts.Font("Some", "some.ttf"), fonts.Font("More", "more.ttf")))
    monkeypatch.setattr(fonts, "_characters", lambda file: frozenset(own[file]) if file in own else real(file))


@pytest.mark.usefixtures("two_fonts")
def test_fonts_are_chosen_by_the_characters_that_they_have() -> None:
    assert [font.family for font in fonts.fonts_for("jump")] == ["DejaVu Sans"]
    assert [font.family for font in fonts.fonts_for("jump 中国")] == ["DejaVu Sans", "Some"]
    assert [font.family for font in fonts.fonts_for("中अआ")] == ["DejaVu Sans", "More", "Some"]
    assert fonts.runs("a 中 国b अ") == [("a ", USUAL), ("中 国", "some.ttf"), ("b ", USUAL), ("अ", "more.ttf")]


@pytest.mark.usefixtures("two_fonts")
def test_what_no_font_has_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "한국")
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(tmp_path / "a.png", figure)
        save_figure(tmp_path / "b.png", figure)
    assert [record.getMessage() for record in caplog.records] == [
        "no installed font has the characters 국한 of names in pictures: install fonts that have them, such as the "
        "packages fonts-noto-cjk and fonts-noto-core of Debian and Ubuntu"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["跳跃", "走る", "달리기", "दौड़ना", "قفز"])
def test_names_of_other_scripts_are_drawn(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = fonts.fonts_for(name)
    if caplog.records:
        pytest.skip("no installed font has these characters")
    assert not any("LastResort" in font.file for font in chosen)
    have = set().union(*(FT2Font(font.file).get_charmap() for font in chosen))
    assert set(map(ord, name)) <= have
    figure = Figure()
    text = figure.text(0.5, 0.5, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(tmp_path / "a.png", figure)
    if len(chosen) > 1:
        assert text.get_fontfamily() == [font.family for font in chosen]
    black = np.zeros((40, 400, 3), np.uint8)
    drawn = _captioned(black, [name])[40:]
    boxes = _captioned(black, ["\uffff" * len(name)])[40:]
    assert drawn.any()
    assert (drawn != boxes).any()
