"""The baselines that the paper names: each a set of defaults, any of which can be given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from timesformer.baselines.convnet import ConvNetConfig
from timesformer.baselines.i3d import I3D
from timesformer.baselines.image_vit import ImageViT, ImageViTConfig
from timesformer.baselines.slowfast import SlowFast, SlowFastConfig, SlowOnly
from timesformer.baselines.x3d import X3D, X3DConfig
from timesformer.model.base import VideoConfig, VideoModel
from timesformer.ranges import shown

_ARCHITECTURES: dict[str, tuple[Callable[[Any], VideoModel], type[VideoConfig]]] = {
    I3D.architecture: (I3D, ConvNetConfig),
    SlowOnly.architecture: (SlowOnly, ConvNetConfig),
    SlowFast.architecture: (SlowFast, SlowFastConfig),
    X3D.architecture: (X3D, X3DConfig),
    ImageViT.architecture: (ImageViT, ImageViTConfig),
}


def _x3d_depths(factor: float) -> tuple[int, ...]:
    """Depths of X3D's stages at a factor of expansion in depth (its paper's gamma_d)."""
    return tuple(math.ceil(factor * depth) for depth in (1, 2, 5, 3))


BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "i3d_r50": ("i3d", {}),
    "slow_r50": ("slow", {}),
    "slowfast_r50": ("slowfast", {}),
    "slowfast_r101": ("slowfast", {"num_frames": 64, "depths": (3, 4, 23, 3), "lateral_kernel": 5}),
    "x3d_s": ("x3d", {"num_frames": 13, "image_size": 160, "depths": _x3d_depths(2.2)}),
    "x3d_m": ("x3d", {"num_frames": 16, "image_size": 224, "depths": _x3d_depths(2.2)}),
    "x3d_l": ("x3d", {"num_frames": 16, "image_size": 312, "depths": _x3d_depths(5.0)}),
    "image_vit_base": ("image_vit", {}),
}


def create_baseline(name: str, **options: Any) -> VideoModel:
    """A baseline with new weights.

    Args:
        name: `i3d_r50` and `slow_r50` (8 frames; published with a stride of 8), `slowfast_r50` (8x8: 32 frames of
            stride 2), `slowfast_r101` (16x8: 64 of stride 2), `x3d_s` (13 frames of 160 px, stride 6), `x3d_m` (16 of
            224 px, stride 5), `x3d_l` (16 of 312 px, stride 5), or `image_vit_base` (one frame).
        **options: fields of the model's configuration that differ from the name's, such as `num_classes=174`,
            `width=8` or `depths=(1, 1, 1, 1)`: see `ConvNetConfig`, `SlowFastConfig`, `X3DConfig`, `ImageViTConfig`.

    Raises:
        ValueError: an unknown name or option, or a value that an option does not allow.
    """
    if name not in BASELINES:
        raise ValueError(f"baseline {name!r} is not one of {', '.join(BASELINES)}")
    architecture, defaults = BASELINES[name]
    return build(architecture, {**defaults, **options})


def build(architecture: str, config: Mapping[str, Any]) -> VideoModel:
    """A model with new weights from what `VideoModel.save_pretrained` writes into `config.json`.

    Args:
        architecture: `i3d`, `slow`, `slowfast`, `x3d` or `image_vit`; `architecture` in the file.
        config: fields of the architecture's configuration, those that are missing at their defaults; `model` in the
            file.

    Raises:
        ValueError: an unknown architecture or option, or a value that an option does not allow.
    """
    checked = baseline_configuration(architecture, config)
    model, _ = _ARCHITECTURES[architecture]
    return model(checked)


def baseline_configuration(architecture: str, config: Mapping[str, Any]) -> VideoConfig:
    """The configuration of a baseline; no model is made. For the rest see `build`."""
    if not isinstance(architecture, str) or architecture not in _ARCHITECTURES:
        raise ValueError(f"architecture {architecture!r} is not one of {', '.join(_ARCHITECTURES)}")
    if not isinstance(config, Mapping) or not all(isinstance(option, str) for option in config):
        raise ValueError(f"the options {shown(config)} of {architecture} are not understood")
    _, defaults = _ARCHITECTURES[architecture]
    return defaults().replace(**config)
