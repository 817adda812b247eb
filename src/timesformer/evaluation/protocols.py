"""How videos are judged: the paper's way and that of the released code, which differ in what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from timesformer.video import sampling
from timesformer.video.preprocessing import Preprocessing

Clips = int | Literal["cover"]


class NotFiniteError(ValueError):
    """What a model computes is not finite, so that no class can be said to score highest."""


def finite(values: Tensor) -> Tensor:
    """The values, where all of them are finite. Raises NotFiniteError otherwise."""
    if not torch.isfinite(values).all():
        raise NotFiniteError("the model's outputs are not finite numbers (NaN or infinity)")
    return values


@dataclass(frozen=True)
class Protocol:
    """The choices of an evaluation that are not the model's own.

    Frames have a short side of the crop's size in both; three crops along the longer side are then also the paper's
    top-left, centre and bottom-right. Colours are a matter of the weights: see `Preprocessing`.

    Attributes:
        name: what it is called.
        clips: clips of a video, unless asked otherwise.
        crops: crops of a clip, unless asked otherwise.
        placement: of K clips and their frames. `centre`: at the model's stride, K starts spread over the video, a
            single clip in its middle. `start`: clip i starts at i/K of what is left of the video beside a clip, so that
            a single one starts with the video, and its frames are spread from the first to the last of what the clip
            spans at 30 frames a second.
        score: mean of the views' `softmax`, or softmax of their mean `logits` (which ranks classes as their sum does).
    """

    name: str
    clips: Clips
    crops: int
    placement: Literal["centre", "start"]
    score: Literal["softmax", "logits"]

    def indices(self, preprocessing: Preprocessing, n: int, fps: float, clips: Clips) -> sampling.Indices:
        """Frame indices (K, F) of the clips of a video of n frames at a mean rate of `fps`."""
        if self.placement == "centre" or preprocessing.sampling == "segments" or clips == "cover":
            return preprocessing.view_indices(n, clips)
        return sampling.spread_clips(n, preprocessing.num_frames, preprocessing.stride, clips, fps)

    def scores(self, logits: Tensor, *, multi_label: bool = False) -> Tensor:
        """Scores (classes,) in [0, 1] of a video by its views' logits (V, classes); sigmoid for several labels.

        Raises:
            NotFiniteError: a score is no number.
        """
        if self.score == "logits":
            logits = logits.mean(dim=0, keepdim=True)
        scores = logits.sigmoid() if multi_label else logits.softmax(dim=-1)
        return finite(torch.mean(scores, dim=0))


PROTOCOLS = {
    "paper": Protocol("paper", 1, 3, "centre", "softmax"),
    "released": Protocol("released", 1, 3, "start", "logits"),
}
