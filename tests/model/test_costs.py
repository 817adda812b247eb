"""Counts against the paper's figures and against PyTorch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.model.test_attention import MODELS
from timesformer.model.attention import SCHEMES, Grid
from timesformer.model.costs import count_macs, count_parameters
from timesformer.model.timesformer import TimeSformer
from timesformer.model.variants import VARIANTS

BASE = VARIANTS["timesformer_base"]


def tera(config: Any, views: int = 1) -> float:
    return round(views * sum(count_macs(config).values()) / 1e12, 3)


def test_costs_of_table_2_and_5() -> None:
    assert tera(BASE, 3) == 0.587
    assert tera(VARIANTS["timesformer_hr"], 3) == 5.108
    assert tera(VARIANTS["timesformer_long"], 3) == 7.140


@pytest.mark.parametrize(
    ("attention", "by_size", "by_frames"),
    [
        ("joint_space_time", [0.180, 0.531, 1.262, 2.609], [0.180, 1.262, 3.974, 8.136]),
        ("divided_space_time", [0.196, 0.456, 0.850, 1.408], [0.196, 0.786, 1.579, 2.380]),
    ],
)
def test_costs_of_figure_3(attention: str, by_size: list[float], by_frames: list[float]) -> None:
    config = BASE.replace(attention=attention)
    assert [tera(config.replace(image_size=size)) for size in (224, 336, 448, 560)] == by_size
    assert [tera(config.replace(num_frames=frames)) for frames in (8, 32, 64, 96)] == by_frames


@pytest.mark.parametrize(
    "options", [*({"attention": scheme} for scheme in SCHEMES), *MODELS], ids=lambda options: "-".join(options.values())
)
@pytest.mark.parametrize(("frames", "size"), [(4, (32, 32)), (3, (24, 40)), (1, (8, 8))])
def test_counts_are_those_of_pytorchs_counter(options: Any, frames: int, size: tuple[int, int]) -> None:
    config = VARIANTS["timesformer_tiny"].replace(
        num_frames=frames, image_size=size, patch_size=8, depth=2, num_classes=7, in_channels=2, mlp_ratio=3, **options
    )
    for head in (0, 11):
        config = config.replace(head_hidden_dim=head)
        # The plain backend: the counter does not know the fused kernel for CPUs.
        with torch.device("meta"), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            TimeSformer(config).eval()(torch.randn(1, 2, frames, *size))
        assert counter.get_total_flops() == 2 * sum(count_macs(config).values())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_parameters_by_part_add_up(scheme: str) -> None:
    config = BASE.replace(attention=scheme)
    counts = count_parameters(config)
    with torch.device("meta"):
        assert sum(counts.values()) == sum(p.numel() for p in TimeSformer(config).parameters())
    extra = [step.name for prefix, step in config.steps if prefix]
    assert [counts[name] for name in extra] == [12 * 2_954_496] * len(extra)
    assert set(counts) == {*count_macs(config), "positions"}


def test_comparisons_of_section_3() -> None:
    """Per patch: NF joint, N + F divided (besides CLS)."""
    grid = Grid(t=8, h=14, w=14)
    for scheme, expected in (("joint_space_time", 8 * 196), ("divided_space_time", 196 + 8), ("axial", 8 + 14 + 14)):
        assert sum(step.comparisons(grid) for step in SCHEMES[scheme]) == 8 * 196 * expected
    local, strided = SCHEMES["sparse_local_global"]
    assert local.comparisons(grid) == 8 * 196 * 8 * 49
    assert strided.comparisons(grid) == 8 * 196 * 4 * 49
