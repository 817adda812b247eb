"""Views of a video (clips x crops), and what a model makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer.evaluation.protocols import PROTOCOLS, Clips, Protocol
from timesformer.video.decode import VideoReader
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.transforms import normalize, resize_short_side, spatial_crops


def load_views(
    path: str | Path,
    preprocessing: Preprocessing,
    clips: Clips = 1,
    crops: int = 1,
    *,
    protocol: Protocol = PROTOCOLS["paper"],
    num_threads: int = 0,
) -> Tensor:
    """The views of a video, each frame decoded once.

    Args:
        path: a video file, or a folder of frames.
        preprocessing: what the model takes.
        clips: how many clips, spread evenly over the video; or `cover`, as many as tile all of it.
        crops: 1 (centre) or 3 (start, centre and end of the longer side).
        protocol: where the clips are.
        num_threads: threads of the decoder; 0 lets it choose.

    Returns:
        uint8 (clips * crops, F, S, S, 3), in the order of colours that the model takes.

    Raises:
        VideoError: the video can't be read.
        ValueError: clips or crops are not as above.
    """
    size = preprocessing.image_size
    with VideoReader(path, short_side=size, num_threads=num_threads) as video:
        indices = protocol.indices(preprocessing, len(video), video.fps, clips)
        wanted, place = np.unique(indices, return_inverse=True)
        frames = preprocessing.colours(resize_short_side(video.frames(wanted), size))
    order = torch.from_numpy(place.reshape(indices.shape))
    views = torch.stack([crop[order] for crop in spatial_crops(frames, size, crops)], dim=1)
    return rearrange(views, "k crop f h w c -> (k crop) f h w c")


@torch.inference_mode()
def view_logits(model: nn.Module, views: Tensor, *, batch_size: int = 16) -> Tensor:
    """Logits (V, classes) of each view, float32 on the CPU.

    Args:
        model: maps clips (B, 3, F, S, S) to logits (B, classes).
        views: uint8 (V, F, S, S, 3).
        batch_size: views that go through the model at a time.
    """
    device = next(model.parameters()).device
    logits = []
    for part in views.split(batch_size):
        logits.append(model(torch.stack([normalize(view) for view in part]).to(device)).float().cpu())
    return torch.cat(logits)
