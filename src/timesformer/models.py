"""Any video model, TimeSformer or baseline, by name or from disk: what training and the commands go through."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from timesformer.baselines import build as build_baseline
from timesformer.baselines import create_baseline, inflate_2d
from timesformer.baselines.resnet3d import ResNet3d
from timesformer.baselines.slowfast import SlowFast
from timesformer.baselines.variants import BASELINES, baseline_configuration
from timesformer.model.base import VideoConfig, VideoModel
from timesformer.model.formats import read_json, shape_of
from timesformer.model.hub import download, looks_like_hub_id, published
from timesformer.model.image_init import LoadReport, init_from_vit
from timesformer.model.tensors import WeightsError, read_tensors
from timesformer.model.timesformer import ModelConfig, TimeSformer
from timesformer.model.variants import VARIANTS, create_model
from timesformer.model.weights import (
    check_classes,
    check_shapes,
    class_names,
    load_model,
    model_folder,
    preprocessing_for,
    with_head_of,
)

logger = logging.getLogger(__name__)

_NONE: Mapping[str, Any] = MappingProxyType({})
NAMES = (*VARIANTS, *BASELINES)


def configuration_of(name: str) -> type[VideoConfig]:
    """The class of the configuration of a model with one of these `NAMES`."""
    return type(configuration(name))


def configuration(name: str, **options: Any) -> VideoConfig:
    """The configuration of a model with one of these `NAMES`; no model is made.

    Raises:
        ValueError: as `create`.
    """
    if name in VARIANTS:
        return VARIANTS[name].replace(**options)
    if name in BASELINES:
        architecture, defaults = BASELINES[name]
        return baseline_configuration(architecture, {**defaults, **options})
    raise ValueError(f"model {name!r} is not one of {', '.join(NAMES)}")


def create(name: str, *, where_known: Mapping[str, Any] = _NONE, **options: Any) -> VideoModel:
    """A new model by its name: one of `timesformer.create_model`, or of `timesformer.baselines.create_baseline`.

    Args:
        where_known: options that a model without them is made without, with a warning.
        options: of the model.

    Raises:
        ValueError: an unknown name or option, or a value that an option does not allow.
    """
    if name in VARIANTS:
        return create_model(name, **where_known, **options)
    if name in BASELINES:
        return create_baseline(name, **_known_of(where_known, configuration_of(name), name), **options)
    raise ValueError(f"model {name!r} is not one of {', '.join(NAMES)}")


def build(architecture: str, config: Mapping[str, Any]) -> VideoModel:
    """A new model from what `VideoModel.save_pretrained` says of it."""
    if architecture == TimeSformer.architecture:
        return TimeSformer(ModelConfig(**config))
    return build_baseline(architecture, config)


def _known_of(options: Mapping[str, Any], kind: type[VideoConfig], what: str | Path) -> dict[str, Any]:
    """Those of the options that a kind of model has; a warning names the others."""
    known = {field.name for field in dataclasses.fields(kind)}
    for option in options.keys() - known:
        logger.warning("%s: %s=%s is not used: it has no such option", what, option, options[option])
    return {option: value for option, value in options.items() if option in known}


def load(
    source: str | Path,
    *,
    classes: str | Path | Sequence[str] | None = None,
    where_known: Mapping[str, Any] = _NONE,
    **overrides: Any,
) -> VideoModel:
    """A model with its weights, in evaluation mode: whatever `timesformer.load_model` takes, or a trained baseline.

    Args:
        source: of the weights.
        classes: names of the classes, or a file of them.
        where_known: further overrides, which a model without such options is loaded without, with a warning.
        overrides: options of the model that differ from what is stored.

    Raises:
        WeightsError, ValueError: as `timesformer.load_model`.
    """
    folder = model_folder(Path(source))
    from_hub = folder is None and looks_like_hub_id(source) and not published(source)
    if from_hub:
        folder = download(str(source), ["config.json"]).parent
    about = read_json(folder / "config.json") if folder else None
    if folder is None or not isinstance(about, dict) or "model" not in about:
        return load_model(source, classes=classes, **where_known, **overrides)
    if about.get("architecture", TimeSformer.architecture) == TimeSformer.architecture:
        return load_model(source, classes=classes, **where_known, **overrides)
    file = download(str(source), ["model.safetensors"]) if from_hub else folder / "model.safetensors"
    model = _load_baseline(folder, file, about, overrides, where_known)
    if classes is not None:
        model.classes = class_names(classes)
    if model.classes is not None:
        check_classes(model.classes, model.config.num_classes, folder)
    return model


def _load_baseline(
    folder: Path, file: Path, about: dict[str, Any], overrides: dict[str, Any], where_known: Mapping[str, Any]
) -> VideoModel:
    architecture, classes, said = about["architecture"], about.get("classes"), about.get("preprocessing")
    try:
        own = baseline_configuration(architecture, about["model"])
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{folder}: no model can be read from its config.json: {error}") from error
    if not isinstance(classes or [], list) or not isinstance(said or {}, dict):
        raise WeightsError(f"{folder}: classes={classes!r}, preprocessing={said!r} are not understood")
    config = own.replace(**overrides, **_known_of(where_known, type(own), folder))
    blank = shape_of(lambda: build_baseline(architecture, dataclasses.asdict(config)), str(folder))
    weights, _ = read_tensors(file)
    new_head = config.num_classes != own.num_classes
    check_shapes(with_head_of(blank, weights) if new_head else weights, blank, str(folder))

    model = build_baseline(architecture, dataclasses.asdict(config))
    if new_head:
        logger.warning("%s: head not loaded: it has %d classes, not %d", folder, own.num_classes, config.num_classes)
        weights = with_head_of(model, weights)
    else:
        model.classes, model.multi_label = tuple(classes) if classes else None, bool(about.get("multi_label"))
    if said:
        model.preprocessing = preprocessing_for(config, said, overrides)
    model.load_state_dict(weights)
    return model.eval()


def init_from_image(model: VideoModel, source: str | Path) -> LoadReport:
    """Set a model's weights to those of an image model: a ViT for TimeSformer, a ResNet for I3D, Slow and SlowFast.

    Raises:
        WeightsError: as `timesformer.init_from_vit` and `timesformer.baselines.inflate_2d`.
        ValueError: a model that starts from no image model.
    """
    if isinstance(model, TimeSformer):
        return init_from_vit(model, source)
    if isinstance(model, ResNet3d | SlowFast):
        return inflate_2d(model, source)
    raise ValueError(f"{model.architecture}: no image model is known to start it from")
