"""Baselines that are small enough to run in a moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from timesformer.baselines import create_baseline
from timesformer.model.base import VideoModel

_CONVNET: dict[str, Any] = {"num_classes": 5, "image_size": 32, "depths": (1, 2, 1, 2), "width": 8}
TINY: dict[str, dict[str, Any]] = {
    "i3d_r50": {**_CONVNET, "num_frames": 8},
    "slow_r50": {**_CONVNET, "num_frames": 4},
    "slowfast_r50": {**_CONVNET, "num_frames": 8, "beta_inverse": 4},
    "x3d_s": {**_CONVNET, "num_frames": 4, "feature_dim": 16},
    "image_vit_base": {
        "num_classes": 5, "image_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3,
    },
}  # fmt: skip
CONVNETS = [name for name in TINY if name != "image_vit_base"]


def tiny(name: str, **options: Any) -> VideoModel:
    """A tiny baseline in evaluation mode, every branch of which has an effect."""
    torch.manual_seed(0)
    model = create_baseline(name, **{**TINY[name], **options}).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):  # those that start at zero would hide mistakes
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0, 0.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def clip_for(model: VideoModel, batch: int = 2) -> torch.Tensor:
    """Random clips of a model's own size."""
    config = model.config
    return torch.randn(batch, config.in_channels, config.num_frames, *config.frame_size)
