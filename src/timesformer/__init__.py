"""TimeSformer: video understanding by self-attention over space and time (Bertasius, Wang and Torresani, ICML 2021)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timesformer.export import export_model
    from timesformer.model.image_init import init_from_vit
    from timesformer.model.inference import prepare
    from timesformer.model.timesformer import ModelConfig, TimeSformer
    from timesformer.model.variants import create_model
    from timesformer.model.weights import load_model
    from timesformer.predictor import VideoClassifier

__version__ = "0.1.0"
__all__ = [
    "ModelConfig",
    "TimeSformer",
    "VideoClassifier",
    "create_model",
    "export_model",
    "init_from_vit",
    "load_model",
    "prepare",
]

_HOMES = {
    "ModelConfig": "model.timesformer",
    "TimeSformer": "model.timesformer",
    "VideoClassifier": "predictor",
    "create_model": "model.variants",
    "export_model": "export",
    "init_from_vit": "model.image_init",
    "load_model": "model.weights",
    "prepare": "model.inference",
}


def __getattr__(name: str) -> Any:
    # On first use: importing PyTorch takes a second or two, which a command line's help must not.
    if name not in _HOMES:
        raise AttributeError(f"module 'timesformer' has no attribute {name!r}")
    return getattr(import_module(f"timesformer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
