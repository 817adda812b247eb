"""Views of a video (clips x crops), and what a model makes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from timesformer.evaluation.protocols import PROTOCOLS, Clips, Protocol
from timesformer.video.decode import VideoReader
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.shards import VideoPath
from timesformer.video.transforms import center_crop, spatial_crops

logger = logging.getLogger(__name__)


def load_views(
    path: str | VideoPath,
    preprocessing: Preprocessing,
    clips: Clips = 1,
    crops: int = 1,
    *,
    protocol: Protocol = PROTOCOLS["paper"],
    num_threads: int = 0,
) -> Tensor:
    """The views of a video, each frame decoded once.

    Args:
        path: a video file, a folder of frames, or a video in a shard.
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
    (part,) = view_parts(path, preprocessing, clips, crops, protocol=protocol, num_threads=num_threads)
    return part.views


@dataclass(frozen=True)
class Part:
    """Some of the views of a video, which follow those of the part before.

    Attributes:
        views: uint8 (V, F, S, S, 3), in the order of colours that the model takes.
        left: how many parts come after this one.
    """

    views: Tensor
    left: int = 0


def view_parts(
    path: str | VideoPath,
    preprocessing: Preprocessing,
    clips: Clips = 1,
    crops: int = 1,
    *,
    at_most: int | None = None,
    start: int = 0,
    protocol: Protocol = PROTOCOLS["paper"],
    num_threads: int = 0,
) -> Generator[Part, None, None]:
    """The views of a video part by part, each frame decoded once and kept for as long as a view needs it.

    Args:
        path, preprocessing, clips, crops, protocol, num_threads: as `load_views`, which this is in one part.
        at_most: views of a part, of which one clip has all its crops; without, there is one part.
        start: number of the first part that is wanted.

    Raises:
        VideoError, ValueError: as `load_views`.
    """
    with VideoReader(path, short_side=preprocessing.decoded_side, num_threads=num_threads) as video:
        indices = protocol.indices(preprocessing, len(video), video.fps, clips)
        step = len(indices) if at_most is None else max(1, at_most // crops)
        places = range(0, len(indices), step)[start:]
        wanted = np.unique(indices[start * step :]).tolist()
        ahead = zip(wanted, video.one_by_one(wanted), strict=True)
        kept: dict[int, Tensor] = {}
        for number, place in enumerate(places, 1):
            part = indices[place : place + step]
            first = int(part[0, 0])  # clips begin in turn, so that nothing before it is needed again
            kept = {index: frame for index, frame in kept.items() if index >= first}
            while int(part.max()) not in kept:
                index, picture = next(ahead)
                kept[index] = _of_model(picture, preprocessing, crops)
            yield Part(_views(kept, part, preprocessing.image_size, crops), len(places) - number)


def views_of_frames(frames: Tensor, preprocessing: Preprocessing, clips: Clips = 1, crops: int = 1) -> Tensor:
    """The views of a video whose frames (F, H, W, 3) are in memory, uint8 RGB; else as `load_views`."""
    indices = preprocessing.view_indices(len(frames), clips)
    kept = {index: _of_model(frames[index], preprocessing, crops) for index in np.unique(indices).tolist()}
    return _views(kept, indices, preprocessing.image_size, crops)


def _of_model(picture: Tensor, preprocessing: Preprocessing, crops: int) -> Tensor:
    """A frame (H, W, 3) at the size that crops are cut from, in the model's colours, without what no crop shows."""
    frame = preprocessing.resize(picture[None])
    if crops == 1:
        frame = center_crop(frame, preprocessing.image_size)
    return preprocessing.colours(frame)[0].clone()


def _views(kept: dict[int, Tensor], part: NDArray[np.int64], size: int, crops: int) -> Tensor:
    """The views of some clips (K, F), crop by crop."""
    wanted, place = np.unique(part, return_inverse=True)
    frames = torch.stack([kept[index] for index in wanted.tolist()])
    order = torch.from_numpy(place.reshape(part.shape))
    views = torch.stack([crop[order] for crop in spatial_crops(frames, size, crops)], dim=1)
    return rearrange(views, "k crop f h w c -> (k crop) f h w c")


def usual_batch(preprocessing: Preprocessing) -> int:
    """How many views go through a model at a time, unless asked otherwise: 16 of 8 frames of 224 px, or as many pixels.

    More at a time are hardly faster, even on a GPU, and this many need little memory at any size of a view.
    """
    pixels = preprocessing.num_frames * preprocessing.image_size**2
    return min(64, max(1, 16 * 8 * 224**2 // pixels))


def to_clips(views: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Views, uint8 (V, F, S, S, 3), as the model takes them: normalised floats (V, 3, F, S, S)."""
    return torch.stack([preprocessing.normalize(view) for view in views])


def view_logits(model: nn.Module, views: Tensor, preprocessing: Preprocessing, *, batch_size: int = 16) -> Tensor:
    """Logits (V, classes) of each view, float32 on the CPU; see `in_batches`."""
    return in_batches(model, model, views, preprocessing, batch_size)


@torch.inference_mode()
def in_batches(
    model: nn.Module,
    part_of: Callable[[Tensor], Tensor],
    views: Tensor,
    preprocessing: Preprocessing,
    batch_size: int,
) -> Tensor:
    """What a model, or a part of it such as its features, gives for each view: (V, D), float32 on the CPU.

    Args:
        model: says the device.
        part_of: maps clips (B, 3, F, S, S) to (B, D).
        views: uint8 (V, F, S, S, 3), as `load_views` gives them for this preprocessing.
        preprocessing: what the model takes; here, how colours are normalised.
        batch_size: views that go through the model at a time; halved, as often as need be, where memory runs out.
    """
    device = next(model.parameters(), torch.empty(0)).device
    found: list[Tensor] = []
    done = 0
    while done < len(views):
        part = views[done : done + batch_size]
        try:
            found.append(part_of(to_clips(part, preprocessing).to(device)).float().cpu())
            done += len(part)
        except RuntimeError as error:
            if len(part) == 1 or not _out_of_memory(error):
                raise
            batch_size = len(part) // 2
            logger.warning("memory ran out with %d views at a time: going on with %d", len(part), batch_size)
    return torch.cat(found)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, which has no exception of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
