"""Linear layers in 8 bits against the arithmetic of their steps, and where their ranges are from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import timesformer
from timesformer.model import linear
from timesformer.model.inference import Prepared, prepare
from timesformer.model.linear import Int8Linear

RANGES = [(-1.0, 3.0), (-2.0, 0.0), (0.0, 5.0), (-0.17, 0.16), (-40.0, 1.5)]


def identity(low: float, high: float, size: int = 64) -> Int8Linear:
    """x -> x in 8 bits: weights of 1 and 0 are exact, so that only the rounding of the input is left."""
    return Int8Linear(torch.eye(size), torch.zeros(size), low, high, torch.float32)


def steps(low: float, high: float, size: int = 64) -> tuple[Tensor, float]:
    """Numbers from end to end of a range, both ends among them; and the length of its 255 steps."""
    return torch.linspace(low, high, 32 * size).view(32, size), (high - low) / 255


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_every_number_of_a_range_is_rounded_to_the_nearest_step(low: float, high: float) -> None:
    x, step = steps(low, high)
    layer = identity(low, high)
    for given in (x, layer.prepared(x)):
        out = layer(given)
        assert (out - x).abs().max() <= 0.501 * step, "half a step, and no more at the ends"
    assert layer.prepared(x).dtype == torch.uint8
    assert layer(torch.zeros(1, 64)).abs().max() == 0, "zero is exact"


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_numbers_outside_of_a_range_become_its_ends(low: float, high: float) -> None:
    step = (high - low) / 255
    layer = identity(low, high)
    for beyond, end in ((low - 3 * (high - low), low), (high + 3 * (high - low), high)):
        assert (layer(torch.full((1, 64), beyond)) - end).abs().max() <= 0.501 * step


@pytest.mark.parametrize("exact", [True, False])
def test_sums_are_exact_but_for_the_rounding(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of inputs as large as the range has them, which a CPU that adds in 16 bits would cut off."""
    if not exact:  # as on such a CPU
        monkeypatch.setattr(linear, "_adds_exactly", lambda: False)
    torch.manual_seed(0)
    sizes = 10.0 ** torch.arange(-3, 5)
    weight = torch.randn(8, 64) * sizes[:, None]
    bias = torch.randn(8)
    x, step = steps(-1.0, 1.0)
    out = Int8Linear(weight, bias, -1.0, 1.0, torch.float32)(x)
    for c in range(8):
        unit = max(abs(value) for value in weight[c].tolist()) / 64  # the coarser of the two kinds of steps
        apart = (out[:, c] - x.double() @ weight[c].double() - bias[c]).abs().max()
        assert apart <= 0.51 * step * weight[c].abs().sum() + 0.51 * unit * x.abs().max() * 64**0.5 * 2


def test_the_largest_products_are_added_exactly() -> None:
    """Whichever way this CPU adds: 255 steps times as many steps as a weight has, 256 times."""
    layer = Int8Linear(torch.ones(16, 256), torch.zeros(16), 0.0, 255.0, torch.float32)
    for number in (255, 254, 128, 1):
        assert layer(torch.full((4, 256), float(number))) == pytest.approx(256.0 * number, rel=1e-6)
        half = torch.full((4, 256), float(number))
        half[:, ::2] = 0
        assert layer(half) == pytest.approx(128.0 * number, rel=1e-6)


def test_gelu_and_the_sum_with_a_residual() -> None:
    x, step = steps(-3.0, 3.0)
    first, second = identity(-3.0, 3.0), identity(-0.2, 3.0)
    hidden = first.gelu_for(second, x)
    assert hidden.dtype == torch.uint8
    following = 3.2 / 255
    exact = x * (1 + torch.erf(x / 2**0.5)) / 2
    assert (second(hidden) - exact).abs().max() <= 0.51 * following + 1.13 * 0.51 * step  # GELU's slope is at most 1.13
    residual = torch.randn_like(x)
    added = first.add_to(residual.clone(), x)
    assert (added - residual - x).abs().max() <= 0.51 * step


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_ranges_are_those_of_all_clips(order: tuple[int, ...]) -> None:
    """Of the first layers: what the first norm, without scale and shift, makes of the embedded clips."""
    torch.manual_seed(7)  # in which one clip has the lowest and another the highest
    model = timesformer.create_model(
        num_classes=3, num_frames=2, image_size=16, patch_size=8, embed_dim=48, depth=2, num_heads=3,
        attention="joint_space_time",
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    clips = list(torch.randn(3, 1, 3, 2, 16, 16))
    with torch.no_grad():
        normed = [F.layer_norm(model.embed(clip)[0], (48,), eps=1e-6) for clip in clips]
    low = min(float(x.min()) for x in normed)
    high = max(float(x.max()) for x in normed)
    assert not any(x.min() == low and x.max() == high for x in normed), "no clip has both"
    fast: Any = prepare(model, "int8", calibration=(clips[number] for number in order))
    assert isinstance(fast, Prepared)
    for layer in (fast.blocks[0].steps[0].q, fast.blocks[0].steps[0].k, fast.blocks[0].steps[0].v):
        assert isinstance(layer, Int8Linear)
        assert layer.scale == pytest.approx((high - low) / 255, rel=1e-4)
        assert layer.zero == round(-low * 255 / (high - low))
    exact, rounded = (torch.cat([each(clip) for clip in clips]) for each in (model, fast))
    assert (exact - rounded).abs().mean() < 0.1 * exact.std()
