"""Hugging Face's TimeSformer with the weights of ours."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import Tensor, nn
from transformers import TimesformerForVideoClassification

import timesformer
from timesformer.model.weights import convert


def hugging_face(model: timesformer.TimeSformer) -> nn.Module:
    """The same weights in transformers' model."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "ours")
        convert(Path(folder) / "ours", Path(folder) / "theirs", "huggingface")
        peer: nn.Module = TimesformerForVideoClassification.from_pretrained(Path(folder) / "theirs")
    return peer.eval()


class Logits(nn.Module):
    """transformers' model for clips (B, 3, F, H, W)."""

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.peer = peer

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.peer(clip.transpose(1, 2)).logits
        return logits
