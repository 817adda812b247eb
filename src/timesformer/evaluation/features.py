"""Features of videos: what a model makes of them before its head."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from timesformer.evaluation.evaluate import ViewDataset
from timesformer.evaluation.protocols import PROTOCOLS, Clips
from timesformer.model.base import VideoModel
from timesformer.video.clips import BadVideo, load
from timesformer.video.datasets import VideoItem, VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.transforms import normalize


@torch.inference_mode()
def video_features(
    model: VideoModel,
    videos: VideoList,
    preprocessing: Preprocessing,
    *,
    clips: Clips = 1,
    crops: int = 1,
    workers: int = 1,
) -> tuple[list[VideoItem], NDArray[np.float32]]:
    """The features of every video that can be read: the mean over its views.

    Args:
        model: it is put into evaluation mode.
        videos: whose features.
        preprocessing: what the model takes.
        clips, crops: the views of a video, see `load_views`.
        workers: processes that decode; 0 decodes in this one.

    Returns:
        The videos that could be read, and their features (N, D).
    """
    model.eval()
    device = next(model.parameters(), torch.empty(0)).device
    items, features = [], []
    dataset = ViewDataset(videos, preprocessing, clips, crops, PROTOCOLS["paper"])
    for index, views in load(dataset, workers=workers, batch_size=None):
        if isinstance(views, BadVideo):
            continue
        found = model.features(torch.stack([normalize(view) for view in views]).to(device))
        items.append(videos.items[index])
        features.append(found.float().mean(dim=0).cpu().numpy())
    return items, np.stack(features)
