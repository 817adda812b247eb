"""Parameters and multiply-accumulates against published ones, which no wrong layer would give."""

from __future__ import annotations

import pytest
import torch

from timesformer.baselines import create_baseline
from timesformer.model.base import VideoModel
from timesformer.profiling import count


def on_paper(name: str) -> VideoModel:
    with torch.device("meta"):
        return create_baseline(name).eval()


def macs(model: VideoModel, size: int) -> int:
    return count(model, size)[1]


@pytest.mark.parametrize(
    ("name", "millions", "size", "giga_macs"),
    [
        ("i3d_r50", "28.04", 224, "28.41"),
        ("slow_r50", "32.45", 256, "54.52"),
        ("slowfast_r50", "34.57", 256, "65.71"),
        ("slowfast_r101", "53.77", 256, "213.02"),  # its paper: 213
        ("x3d_s", "3.79", 160, "1.96"),
        ("x3d_m", "3.79", 224, "4.73"),
        ("x3d_l", "6.15", 312, "18.37"),
        ("image_vit_base", "86.11", 224, "17.56"),  # 12 blocks of ViT-B/16 on one frame
    ],
)
def test_parameters_and_macs_are_the_published_ones(name: str, millions: str, size: int, giga_macs: str) -> None:
    model = on_paper(name)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == millions
    assert f"{macs(model, size) / 1e9:.2f}" == giga_macs


@pytest.mark.parametrize(
    ("name", "giga_macs", "layers"),
    [
        ("i3d_r50", "37.11", [(2048, 400)]),
        ("slow_r50", "54.52", [(2048, 400)]),
        ("slowfast_r50", "65.71", [(2304, 400)]),
        ("x3d_m", "6.19", [(432, 2048), (2048, 400)]),
    ],
)
def test_macs_at_256_px(name: str, giga_macs: str, layers: list[tuple[int, int]]) -> None:
    """The published counts are of models made for 224 px, which average 7 x 7 places of the last maps: at 256 px there
    are 8 x 8, and their heads run at 2 x 2 places. Ours averages all places and runs once; hence 3 heads between."""
    once = sum(inputs * outputs for inputs, outputs in layers)
    assert f"{(macs(on_paper(name), 256) + 3 * once) / 1e9:.2f}" == giga_macs
