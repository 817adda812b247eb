"""Models from disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from timesformer.model.attention import Grid
from timesformer.model.timesformer import ModelConfig, TimeSformer

logger = logging.getLogger(__name__)


class WeightsError(Exception):
    """Weights that cannot be read, or do not fit; the message names the file."""


def load_model(source: str | Path, **overrides: Any) -> TimeSformer:
    """A model with the weights of `source`, in evaluation mode.

    Args:
        source: a folder that `save_pretrained` wrote, or the folder of a training run (its `best` model,
            or else `last`).
        **overrides: fields of `ModelConfig` to change. With another `num_classes` the head is new; at another
            `image_size` or `num_frames` the positions are resized (bicubic over space, linear over time). What was not
            loaded is logged as a warning.

    Raises:
        WeightsError: nothing readable there, or weights of another shape than the model's.
        ValueError: an override that does not exist or is not allowed.
    """
    folder = _model_folder(Path(source))
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        own = ModelConfig(**about["model"])
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise WeightsError(f"{folder}: no model can be read from it: {error}") from error

    model = TimeSformer(own.replace(**overrides))
    if model.config.num_classes == own.num_classes:
        model.classes = tuple(about["classes"]) if about.get("classes") else None
        model.multi_label = bool(about.get("multi_label"))
    else:
        logger.warning(
            "%s: head not loaded: it has %d classes, not %d", folder, own.num_classes, model.config.num_classes
        )
        weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
        weights |= {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
    if about.get("preprocessing"):
        sizes = {name: value for name, value in overrides.items() if name in ("num_frames", "image_size")}
        model.preprocessing = {**about["preprocessing"], **sizes}
    _fit(weights, model, own.grid, folder)
    model.load_state_dict(weights)
    return model.eval()


def _model_folder(source: Path) -> Path:
    for folder in (source, source / "best", source / "last"):
        if (folder / "config.json").is_file():
            return folder
    raise WeightsError(f"{source}: not a folder with a model (config.json and model.safetensors), nor one of a run")


def _fit(weights: dict[str, Tensor], model: TimeSformer, own: Grid, source: Path) -> None:
    """Resize the positions to the model's grid, then see that every weight is there and has the right shape."""
    grid = model.config.grid
    if (own["h"], own["w"]) != (grid["h"], grid["w"]):
        weights["pos_embed"] = resize_space_positions(weights["pos_embed"], own, grid)
    if own["t"] != grid["t"] and "time_embed" in weights:
        weights["time_embed"] = resize_time_positions(weights["time_embed"], grid["t"])
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        there = tuple(weights[name].shape) if name in weights else "missing"
        expected = tuple(wanted[name].shape) if name in wanted else "no such weight"
        if there != expected:
            raise WeightsError(f"{source}: weight {name}: {there} in the file, {expected} in the model")


def resize_space_positions(positions: Tensor, own: Grid, grid: Grid) -> Tensor:
    """Positions (1, 1 + H*W, D) of CLS and patches for another grid, by bicubic interpolation of the patches'."""
    planes = rearrange(positions[:, 1:], "1 (h w) d -> 1 d h w", h=own["h"])
    resized = F.interpolate(planes, (grid["h"], grid["w"]), mode="bicubic", align_corners=False)
    patches = rearrange(resized, "1 d h w -> 1 (h w) d")
    return torch.cat([positions[:, :1], patches], dim=1)


def resize_time_positions(positions: Tensor, num_frames: int) -> Tensor:
    """Positions (1, T, D) for another number of frames, by linear interpolation."""
    line = rearrange(positions, "1 t d -> 1 d t")
    return rearrange(F.interpolate(line, num_frames, mode="linear", align_corners=False), "1 d t -> 1 t d")
