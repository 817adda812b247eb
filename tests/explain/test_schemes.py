"""The picture of the schemes says what the masks say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.model.test_attention import dense_mask
from timesformer.cli import main
from timesformer.explain.schemes import COLOURS, attended, draw_schemes
from timesformer.model.attention import SCHEMES, Grid
from timesformer.model.timesformer import ModelConfig


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("query", [(0, 0, 0), (1, 2, 3), (2, 4, 5)])
def test_what_moves_is_what_the_definition_says(scheme: str, query: tuple[int, int, int]) -> None:
    grid = Grid(t=3, h=5, w=6)
    place = 1 + (query[0] * 5 + query[1]) * 6 + query[2]
    for rule in ("released", "equations"):
        config = ModelConfig(attention=scheme, cls_attention=rule)
        for name, found in attended(config, query, grid).items():
            expected = dense_mask(name, grid)[place, 1:].view(3, 5, 6)
            assert torch.equal(torch.from_numpy(found), expected), (name, rule)


def test_the_picture_shows_it(tmp_path: Path) -> None:
    """Each scheme's colours, in as many patches as it attends to."""
    file = tmp_path / "schemes.png"
    draw_schemes(file, grid=Grid(t=1, h=4, w=4), query=(0, 1, 1), schemes=["axial"])
    image = Image.open(file).convert("RGB")
    pixels = dict((colour, count) for count, colour in image.getcolors(image.width * image.height) or [])
    temporal, width, height = (
        pixels.get(tuple(int(COLOURS[name][i : i + 2], 16) for i in (1, 3, 5)), 0)
        for name in ("temporal", "width", "height")
    )
    assert width == pytest.approx(height, rel=0.1)
    assert width > 20 * temporal, "with one frame, the time step has but the patch itself"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("schemes.png", "schemes.svg"):
        assert main(["schemes", "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 10_000
    assert main(["schemes", "--out", str(tmp_path / "x.png"), "--query", "9,0,0"]) == 1
    assert "outside the grid of (5, 8, 8) patches" in " ".join(capsys.readouterr().err.split())
