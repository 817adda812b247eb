"""The formats in which TimeSformers are published, both ways: names of weights, and what a configuration says.

Weights are passed on as they are: in float32, there and back is the same, bit for bit.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from timesformer import documents
from timesformer.limits import limit
from timesformer.model.attention import RELEASED
from timesformer.model.hub import published_copy
from timesformer.model.processors import read_processor, to_processor
from timesformer.model.released_cfg import cfg_of, is_multi_label, preprocessing_of
from timesformer.model.tensors import WeightsError, without_prefix
from timesformer.model.timesformer import ModelConfig, TimeSformer
from timesformer.ranges import counts, shown
from timesformer.video import transforms
from timesformer.video.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)


@dataclass
class Stored:
    """A model as it was read: weights by our names, and what is known of them."""

    source: str
    config: ModelConfig
    weights: dict[str, Tensor]
    classes: tuple[str, ...] | None = None
    multi_label: bool = False
    preprocessing: dict[str, Any] | None = None


# --- The authors' release -------------------------------------------------------------------------------------------


def from_released(source: str, weights: dict[str, Tensor], about: dict[str, Any], options: dict[str, Any]) -> Stored:
    """The model of a released checkpoint.

    Such a file need not say what its model is: what its weights' shapes leave open is taken from its configuration
    (`cfg`) where it has one, from `options` (fields of `ModelConfig`), or is as usual: heads of 64, square frames.

    Raises:
        WeightsError: the weights are not a TimeSformer's, or something that is left open is not as usual.
    """
    if any(name.endswith("embeddings.cls_token") for name in weights):
        raise WeightsError(f"{source}: weights of Hugging Face's transformers: give the folder with their config.json")
    weights = without_prefix(weights)
    if "progress" in about and "run" in about:
        raise WeightsError(
            f"{source}: the checkpoint of a run under way, for --resume; models are in the run's folders best and last"
        )
    for name in ("cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"):
        if name not in weights:
            raise WeightsError(f"{source}: no TimeSformer: it has no weight {name}")
    dim, channels, patch, _ = weights["patch_embed.proj.weight"].shape
    said = _read_cfg(source, about, patch)
    depth = _count_blocks(source, weights)
    extra = {match[1] for name in weights if (match := re.match(r"blocks\.[0-9]+\.(\w+)_attn\.", name))}
    config: dict[str, Any] = {
        "attention": said.get("attention") or _scheme(source, extra, "time_embed" in weights),
        "positions": "none" if "pos_embed" not in weights else "space_time",
        "patch_size": patch, "in_channels": channels, "embed_dim": dim, "depth": depth,
        "mlp_ratio": weights["blocks.0.mlp.fc1.weight"].shape[0] / dim,
    }  # fmt: skip
    heads = [name for name in weights if re.fullmatch(r"head(\.\d+)?\.weight", name)]
    config["num_classes"] = weights[max(heads)].shape[0] if heads else 0
    config["head_hidden_dim"] = weights[min(heads)].shape[0] if len(heads) > 1 else 0
    if config["positions"] != "none" and config["attention"] != "space_only" and "time_embed" not in weights:
        config["positions"] = "space"
    for name in ("num_heads", "num_frames", "image_size"):
        value = said.get(name, options.get(name))
        if value is not None:
            config[name] = value
    if "time_embed" in weights:
        config["num_frames"] = weights["time_embed"].shape[1]
    if "num_heads" not in config:
        if dim % 64:
            raise WeightsError(f"{source}: its width of {dim} does not tell the number of heads: give num_heads")
        config["num_heads"] = dim // 64
    if "pos_embed" in weights:
        config |= _image_size(source, weights["pos_embed"].shape[1] - 1, patch, said, options)
    preprocessing = said.get("preprocessing")
    return Stored(
        source, ModelConfig(**config), weights, said.get("classes"), bool(said.get("multi_label")), preprocessing
    )


def _scheme(source: str, extra: set[str], has_time: bool) -> str:
    schemes = {frozenset({"temporal"}): "divided_space_time", frozenset({"local"}): "sparse_local_global"}
    schemes |= {frozenset({"temporal", "width"}): "axial"}
    schemes |= {frozenset(): "joint_space_time" if has_time else "space_only"}
    if frozenset(extra) not in schemes:
        raise WeightsError(f"{source}: attention steps {', '.join(sorted(extra))} are of no known scheme")
    return schemes[frozenset(extra)]


def _image_size(source: str, patches: int, patch: int, said: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    side = math.isqrt(patches)
    if side * side == patches:
        return {"image_size": side * patch}
    for sizes in (said, options):
        given = sizes.get("image_size")
        if isinstance(given, tuple | list) and (given[0] // patch) * (given[1] // patch) == patches:
            return {"image_size": given}
    raise WeightsError(f"{source}: {patches} positions are no square of patches: give image_size=(height, width)")


def _read_cfg(source: str, about: dict[str, Any], patch: int) -> dict[str, Any]:
    """What the configuration that training wrote into a checkpoint says, as far as it bears on the model."""
    text = about.get("cfg")
    try:
        cfg = documents.parse_yaml(text, "its cfg") if isinstance(text, str) else None
    except ValueError as error:
        raise WeightsError(f"{source}: {' '.join(str(error).split())}") from error
    if not isinstance(cfg, dict):
        return {}
    data, model = (cfg.get(part) or {} for part in ("DATA", "TIMESFORMER"))
    said: dict[str, Any] = {"multi_label": is_multi_label(source, data)}
    if model.get("ATTENTION_TYPE"):
        said["attention"] = model["ATTENTION_TYPE"]
    numbers = {"num_frames": (data, "NUM_FRAMES", "MAX_FRAMES"), "num_heads": (model, "NUM_HEADS", "MAX_WIDTH")}
    numbers["image_size"] = (data, "TRAIN_CROP_SIZE", "MAX_IMAGE_SIZE")
    for ours, (section, theirs, most) in numbers.items():
        if section.get(theirs):
            counts(1, limit(most)).check(theirs, section[theirs])
            said[ours] = section[theirs]
    if data.get("CLASS_NAMES"):
        said["classes"] = tuple(str(name) for name in data["CLASS_NAMES"])
    said["preprocessing"] = preprocessing_of(source, cfg, patch)
    return said


def to_released(model: TimeSformer) -> dict[str, Any]:
    """The content of a released checkpoint: `model_state`, and a configuration (`cfg`) of the authors' form.

    Raises:
        WeightsError: the model has options that the released code does not know.
    """
    config = model.config
    _only_released_options(config, "the released format")
    frames, dataset = cfg_of(model.preprocessing, min(config.frame_size))
    data: dict[str, Any] = {
        "NUM_FRAMES": config.num_frames, "TRAIN_CROP_SIZE": config.image_size, **frames,
        "INPUT_CHANNEL_NUM": [config.in_channels], "MULTI_LABEL": model.multi_label,
    }  # fmt: skip
    if model.classes:
        data["CLASS_NAMES"] = list(model.classes)
    cfg = {
        "DATA": data,
        "MODEL": {"NUM_CLASSES": config.num_classes, "ARCH": "vit"},
        "TIMESFORMER": {"ATTENTION_TYPE": config.attention, "NUM_HEADS": config.num_heads},
        "TRAIN": {"DATASET": dataset},
    }
    state = {f"model.{name}": value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return {"model_state": state, "cfg": documents.dump_yaml(cfg)}


def _only_released_options(config: ModelConfig, what: str) -> None:
    plain = ModelConfig()
    if config.attention not in RELEASED:
        raise WeightsError(f"attention={config.attention!r} can't be written in {what}: it has {', '.join(RELEASED)}")
    for name in ("order", "positions", "cls_attention", "head_hidden_dim"):
        if getattr(config, name) != getattr(plain, name):
            raise WeightsError(f"{name}={getattr(config, name)!r} can't be written in {what}")
    if not isinstance(config.image_size, int):
        raise WeightsError(f"image_size={config.image_size} can't be written in {what}: its frames are squares")


# --- Hugging Face ---------------------------------------------------------------------------------------------------

_HF_EMBEDDINGS = {
    "cls_token": "timesformer.embeddings.cls_token",
    "pos_embed": "timesformer.embeddings.position_embeddings",
    "time_embed": "timesformer.embeddings.time_embeddings",
    "patch_embed.proj": "timesformer.embeddings.patch_embeddings.projection",
    "norm": "timesformer.layernorm",
    "head": "classifier",
}
_HF_BLOCK = {
    "norm1": "layernorm_before",
    "attn.qkv": "attention.attention.qkv",
    "attn.proj": "attention.output.dense",
    "temporal_norm1": "temporal_layernorm",
    "temporal_attn.qkv": "temporal_attention.attention.qkv",
    "temporal_attn.proj": "temporal_attention.output.dense",
    "temporal_fc": "temporal_dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_HF_SIZES = {
    "num_frames": "num_frames",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "num_channels": "in_channels",
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
}


def _hf_name(name: str) -> str:
    """Our name of a weight as Hugging Face has it."""
    block = re.fullmatch(r"blocks\.(\d+)\.(.+?)(\.weight|\.bias)", name)
    if block:
        return f"timesformer.encoder.layer.{block[1]}.{_HF_BLOCK[block[2]]}{block[3]}"
    stem, kind = re.fullmatch(r"(.+?)(\.weight|\.bias)?", name).groups("")  # type: ignore[union-attr]
    return _HF_EMBEDDINGS[stem] + kind


def is_huggingface(about: Any) -> bool:
    """Whether the content of a config.json is that of transformers' TimeSformer."""
    return isinstance(about, dict) and about.get("model_type") == "timesformer"


def from_huggingface(folder: Path, weights: dict[str, Tensor], about: dict[str, Any]) -> Stored:
    """The model of transformers' `TimesformerForVideoClassification` or `TimesformerModel`.

    How frames become its input is what the folder's processor files say; which frames, only our own `preprocessing` in
    its config.json can say.

    Raises:
        WeightsError: the configuration lacks something, or says what no TimeSformer here has.
    """
    source = str(folder)
    fixed = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True}
    for name, value in fixed.items():
        if about.get(name, value) != value:
            raise WeightsError(f"{source}: {name}={about[name]!r}: it must be {value!r}")
    labels = {int(number): str(name) for number, name in (about.get("id2label") or {}).items()}
    try:
        config: dict[str, Any] = {ours: about[theirs] for theirs, ours in _HF_SIZES.items()}
        mlp_ratio = about["intermediate_size"] / about["hidden_size"]
    except KeyError as error:
        raise WeightsError(f"{source}: its config.json does not say {error}") from error
    weights = {name.removeprefix("timesformer."): value for name, value in weights.items()}
    _check_depth(source, weights, config["depth"])
    classes = weights["classifier.weight"].shape[0] if "classifier.weight" in weights else 0
    model_config = ModelConfig(
        attention=about.get("attention_type", "divided_space_time"), num_classes=classes, mlp_ratio=mlp_ratio,
        drop_path=about.get("drop_path_rate", 0), **config,
    )  # fmt: skip
    ours = {}
    for name in shape_of(lambda: TimeSformer(model_config), source).state_dict():
        theirs = _hf_name(name).removeprefix("timesformer.")
        if theirs in weights:
            ours[name] = weights.pop(theirs)
    if beyond := [name for name in weights if name.startswith("encoder.")]:
        raise WeightsError(f"{source}: its config.json does not tell of its weight {beyond[0]}")
    names = tuple(labels.get(number, "") for number in range(classes))
    known = len(labels) == classes and not all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    own = about.get("preprocessing") or {}
    if not isinstance(own, dict):
        raise WeightsError(f"{source}: preprocessing={own!r} is not understood")
    if "stride" not in own and "sampling" not in own:
        own = {**(published_copy(folder, about) or {}), **own}
    processor = read_processor(folder, model_config.patch_size)
    if processor is None and "mean" not in own:
        logger.warning(
            "%s: it has no preprocessor_config.json: colours are normalised as usual, by mean %s and std %s",
            source, transforms.MEAN, transforms.STD,
        )  # fmt: skip
    return Stored(
        source, model_config, {**ours, **weights}, names if classes and known else None,
        about.get("problem_type") == "multi_label_classification", {**own, **(processor or {})} or None,
    )  # fmt: skip


def to_huggingface(model: TimeSformer) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Weights, config.json and preprocessor_config.json for transformers' `TimesformerForVideoClassification`.

    Raises:
        WeightsError: the model has no head, or options that transformers does not know.
    """
    config = model.config
    _only_released_options(config, "Hugging Face's format")
    if not config.num_classes:
        raise WeightsError("num_classes=0: a model without a head can't be written in Hugging Face's format")
    if config.frames_apart:
        logger.warning("transformers gives logits for each frame of a space_only model: average them over the frames")
    if model.preprocessing and model.preprocessing.get("colour", "RGB") != "RGB":
        logger.warning("transformers takes colours in the order RGB, the model BGR: give it frames with them reversed")
    names = model.classes or tuple(f"LABEL_{number}" for number in range(config.num_classes))
    problem = "multi_label_classification" if model.multi_label else "single_label_classification"
    about = {
        "architectures": ["TimesformerForVideoClassification"],
        "model_type": "timesformer",
        **{theirs: getattr(config, ours) for theirs, ours in _HF_SIZES.items()},
        "intermediate_size": int(config.embed_dim * config.mlp_ratio),
        "attention_type": config.attention,
        "drop_path_rate": 0,  # of no matter but in training; transformers takes whole numbers alone
        "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6, "qkv_bias": True, "initializer_range": 0.02,
        "problem_type": problem,
        "preprocessing": model.preprocessing,
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }  # fmt: skip
    preprocessor = to_processor(Preprocessing(**{"image_size": config.image_size, **(model.preprocessing or {})}))
    weights = {_hf_name(name): value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return weights, about, preprocessor


# --- Our own --------------------------------------------------------------------------------------------------------


def from_own(source: str, weights: dict[str, Tensor], about: dict[str, Any]) -> Stored:
    """The model of a folder that `save_pretrained` wrote.

    Raises:
        WeightsError: the configuration is not one of ours.
    """
    architecture = about.get("architecture", TimeSformer.architecture)
    if architecture != TimeSformer.architecture:
        kind = architecture if isinstance(architecture, str) else shown(architecture)
        raise WeightsError(f"{source}: a {kind}, not a TimeSformer")
    try:
        config = ModelConfig(**about["model"])
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{source}: no model can be read from its config.json: {error}") from error
    _check_depth(source, weights, config.depth)
    if not isinstance(about.get("classes") or [], list):
        raise WeightsError(f"{source}: classes={shown(about['classes'])} is no list of names")
    classes = tuple(about["classes"]) if about.get("classes") else None
    return Stored(source, config, weights, classes, bool(about.get("multi_label")), about.get("preprocessing"))


def shape_of(make: Callable[[], Model], source: str) -> Model:
    """A model without weights: a configuration that does not fit them must not cost memory. May raise WeightsError."""
    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, TypeError, OverflowError) as error:  # of sizes that no tensor can have
        raise WeightsError(f"{source}: no model can be made by its configuration: {error}") from error


def _check_depth(source: str, weights: dict[str, Tensor], depth: int) -> None:
    """See that there are as many blocks as the configuration says, before that many are made: WeightsError."""
    there = _count_blocks(source, weights)
    if there != depth:
        raise WeightsError(f"{source}: depth={depth} in its config.json, {there} blocks in its weights")


def _count_blocks(source: str, weights: dict[str, Tensor]) -> int:
    """The number of blocks that weights are of: WeightsError where some of them are missing."""
    numbers = {match[1] for name in weights if (match := re.match(r"(?:blocks|encoder\.layer)\.([^.]*)\.", name))}
    most = limit("MAX_BLOCKS")
    if len(numbers) > most:
        raise WeightsError(f"{source}: weights of more than {most} blocks (TIMESFORMER_MAX_BLOCKS)")
    if odd := sorted(numbers - set(map(str, range(len(numbers))))):
        raise WeightsError(f"{source}: weights of {len(numbers)} blocks, among them one of the number {shown(odd[0])}")
    return len(numbers)


def read_json(file: Path) -> Any:
    """The content of a JSON file of plain values; WeightsError where there is none."""
    try:
        return documents.read_json(file)
    except OSError as error:
        raise WeightsError(f"{file}: can't be read: {error}") from error
    except ValueError as error:  # which names the file
        raise WeightsError(str(error)) from error
