"""A model as a graph of operations, for runtimes other than this program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from timesformer.model.base import VideoModel
from timesformer.model.inference import Prepared
from timesformer.model.linear import PlainLinear
from timesformer.model.plain import require_plain
from timesformer.model.timesformer import ModelConfig, TimeSformer


class FeaturesAndLogits(nn.Module):
    """One pass over clips (B, in_channels, F, H, W) on a CPU: features (B, D) and logits (B, num_classes).

    A TimeSformer is first rewritten, see `timesformer.prepare`; a baseline is taken as it is, with its hooks.

    Raises:
        ValueError: a TimeSformer with layers that are not plain.
    """

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.model = model
        if isinstance(model, TimeSformer):
            require_plain(model)
            self.model = Prepared(model, torch.float32, PlainLinear)

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model._features(clip) if isinstance(self.model, Prepared) else self.model.features(clip)
        return features, self.model.head(features)


@torch.no_grad()
def trace(module: FeaturesAndLogits, size: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """The module's operations on clips of F frames of a height and width in pixels, for any number of clips."""
    return torch.export.export(module, (example(module, size),), dynamic_shapes=any_batch(torch.export.Dim("batch")))


def example(module: FeaturesAndLogits, size: tuple[int, int, int]) -> Tensor:
    """Clips to trace a module with."""
    config = module.model.config
    if isinstance(config, ModelConfig):
        for _, step in config.steps:
            step.comparisons(config.grid_of(*size))  # makes its table of indices, if any, which must be a real one
    return torch.zeros(2, config.in_channels, *size)  # one alone would fix their number


def any_batch(batch: Any) -> dict[str, dict[int, Any]]:
    """That the number of clips is left open, and what it is called."""
    return {"clip": {0: batch}}
