"""Colours of classes: by name, the same wherever a class is shown."""

from __future__ import annotations

import random
import re
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from timesformer.class_colours import class_colours
from timesformer.evaluation import timeline
from timesformer.evaluation.timeline import Timeline

NAMES = [f"class {number}" for number in range(20)]


def test_twenty_classes_have_twenty_colours_in_any_order() -> None:
    colours = class_colours(NAMES)
    assert len(set(colours.values())) == 20
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours.values())
    mixed = random.Random(0).sample(NAMES, 20)
    assert class_colours(mixed) == colours
    assert len(class_colours([f"class {number}" for number in range(50)])) == 50
    assert class_colours(["run", "\udcff"])


def test_a_class_keeps_its_colour_from_timeline_to_timeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, str]] = []

    def note(file: Path, figure: matplotlib.figure.Figure) -> None:
        legend = figure.axes[0].get_legend()
        assert legend is not None
        names = [text.get_text() for text in legend.get_texts()]
        drawn.append(dict(zip(names, [line.get_color() for line in legend.legend_handles], strict=True)))

    monkeypatch.setattr(timeline, "save_figure", note)
    times = np.array([[0.0, 1.0], [1.0, 2.0]])
    for scores in ([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], [[0.1, 0.2, 0.7], [0.1, 0.3, 0.6]]):
        Timeline("a.mp4", ("run", "jump", "sit"), times, np.array(scores, np.float32)).draw(tmp_path / "x.png")
    assert drawn[0].keys() == {"run", "jump", "sit"}
    assert drawn[0] == drawn[1]
