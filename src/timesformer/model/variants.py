"""The models that the paper names: each a set of defaults, any of which can be given."""

from __future__ import annotations

from typing import Any

from timesformer.model.timesformer import ModelConfig, TimeSformer

_BASE = ModelConfig()
VARIANTS: dict[str, ModelConfig] = {
    "timesformer_tiny": _BASE.replace(embed_dim=192, num_heads=3),
    "timesformer_small": _BASE.replace(embed_dim=384, num_heads=6),
    "timesformer_base": _BASE,
    "timesformer_large": _BASE.replace(embed_dim=1024, depth=24, num_heads=16),
    "timesformer_hr": _BASE.replace(num_frames=16, image_size=448),
    "timesformer_long": _BASE.replace(num_frames=96),  # TimeSformer-L in the paper
}


def create_model(name: str = "timesformer_base", **options: Any) -> TimeSformer:
    """A TimeSformer with new weights.

    Args:
        name: one of `timesformer_tiny`, `_small`, `_base`, `_large`, `_hr` (16 frames of 448 px) or
            `_long` (96 frames).
        **options: fields of `ModelConfig` that differ from the name's, such as `num_classes=174` or
            `attention="joint_space_time"`.

    Raises:
        ValueError: an unknown name or option, or a value that an option does not allow.
    """
    if name not in VARIANTS:
        raise ValueError(f"model {name!r} is not one of {', '.join(VARIANTS)}")
    return TimeSformer(VARIANTS[name].replace(**options))
