"""Dropout by its definition: in training a share p is zero, and what is left is divided by 1 - p."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import timesformer
from tests.baselines.tiny import CONVNETS, tiny
from timesformer.model.base import VideoModel


def transformer(dropout: float) -> VideoModel:
    torch.manual_seed(0)
    return timesformer.create_model(
        num_classes=5, num_frames=2, image_size=16, patch_size=8, embed_dim=192, depth=1, num_heads=3,
        dropout=dropout, drop_path=0.0,
    )  # fmt: skip


def dropped(given: Tensor, wanted: Tensor, p: float) -> None:
    """See that `given` is what dropout makes of `wanted`."""
    zero = given == 0
    torch.testing.assert_close(given[~zero], wanted[~zero] / (1 - p))
    share = zero.double().mean().item()
    assert abs(share - p) < 4.5 * (p * (1 - p) / given.numel()) ** 0.5  # standard deviations


@pytest.mark.parametrize("name", [*CONVNETS, "timesformer"])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_features_are_dropped_before_the_head(name: str, p: float) -> None:
    model = transformer(p) if name == "timesformer" else tiny(name, dropout=p)
    model.train()
    features = torch.rand(64, model.head.in_features) + 0.5
    model.features = lambda clip: features  # type: ignore[method-assign]
    model.head = nn.Identity()
    torch.manual_seed(1)
    dropped(model(torch.empty(0)), features, p)
    model.eval()
    assert torch.equal(model(torch.empty(0)), features)


def test_hidden_elements_of_the_mlp_are_dropped() -> None:
    model = transformer(0.3).train()
    mlp: Any = model.get_submodule("blocks.0.mlp")
    seen: list[Tensor] = []
    mlp.fc2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(4, 9, 192)
    mlp(x)
    mlp.eval()(x)
    hidden = nn.functional.gelu(x @ mlp.fc1.weight.T + mlp.fc1.bias)
    torch.testing.assert_close(seen[1], hidden)
    kept = hidden.abs() > 1e-6
    dropped(seen[0][kept], hidden[kept], 0.3)
