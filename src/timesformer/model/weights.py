"""Models from disk and from the hub, in any format they come in; and back."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from timesformer.class_names import parse_class_names
from timesformer.documents import read_text
from timesformer.files import replace_file, write_json
from timesformer.lock import output_lock
from timesformer.model import formats
from timesformer.model.attention import Grid
from timesformer.model.base import VideoConfig
from timesformer.model.formats import Stored
from timesformer.model.hub import CATALOGUE, download, download_all, looks_like_hub_id, published
from timesformer.model.processors import PROCESSOR_FILES
from timesformer.model.tensors import WeightsError, is_of_another_task, read_tensors
from timesformer.model.timesformer import ModelConfig, TimeSformer
from timesformer.outputs import check_output

logger = logging.getLogger(__name__)

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
Resize = Literal["bicubic", "nearest"]
# What reading a configuration of the wrong kind ends in.
_ODD_CONFIGURATION = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def load_model(
    source: str | Path,
    *,
    classes: str | Path | Sequence[str] | None = None,
    resize: Resize = "bicubic",
    **overrides: Any,
) -> TimeSformer:
    """A model with the weights of `source`, in evaluation mode.

    Args:
        source: a folder that `save_pretrained` wrote, or that of a training run (its `best` model, or else `last`);
            a checkpoint of the authors' release; a folder or hub id of Hugging Face's TimeSformer; or a short name
            of `timesformer.model.hub.CATALOGUE`, such as `timesformer_base_k400`.
        classes: names of the classes, or a text file of them, one a line, where the source has none.
        resize: how positions over space become those of another grid; over time they are resized linearly, or nearest.
        **overrides: fields of `ModelConfig` to change. With another `num_classes` the head is new; at another
            `image_size` or `num_frames` the positions are resized. What was not loaded is logged as a warning.
            For a checkpoint that does not say so itself they also tell what its model is (`num_heads`).

    Raises:
        WeightsError: nothing readable there, code among the weights, or weights of another shape than the model's.
        ValueError: an override that does not exist or is not allowed.
    """
    if resize not in ("bicubic", "nearest"):
        raise ValueError(f"resize={resize!r} is not one of bicubic, nearest")
    try:
        stored = _read(source, overrides)
    except _ODD_CONFIGURATION as error:
        raise WeightsError(f"{source}: its configuration is not understood: {error}") from error
    entry = published(source)
    if stored.preprocessing is not None and not isinstance(stored.preprocessing, dict):
        raise WeightsError(f"{stored.source}: preprocessing={stored.preprocessing!r} is not understood")
    if entry:
        stored.preprocessing = {**entry.preprocessing, **(stored.preprocessing or {})}

    config, weights = stored.config.replace(**overrides), stored.weights
    blank = formats.shape_of(lambda: TimeSformer(config), stored.source)
    if misfit := _misfit_of_head(stored.config, config):
        logger.warning("%s: head not loaded: %s", stored.source, misfit)
        weights = with_head_of(blank, weights)
    for name in sorted(weights.keys() - blank.state_dict().keys()):
        if not name.startswith(("blocks.", "head.")):
            if not is_of_another_task(name):
                raise WeightsError(f"{stored.source}: the model has no place for its {name}")
            logger.warning("%s: %s not loaded: the model has no place for it", stored.source, name)
            del weights[name]
    for name in ("pos_embed", "time_embed"):
        shape = tuple(weights[name].shape) if name in weights else ()
        if name in weights and (len(shape) != 3 or shape[0] != 1):
            raise WeightsError(f"{stored.source}: weight {name}: {shape}, (1, positions, width) expected")
    own = stored.config.grid
    places = weights["pos_embed"].shape[1] if "pos_embed" in weights else None
    if places is not None and places != 1 + own["h"] * own["w"]:
        raise WeightsError(f"{stored.source}: weight pos_embed: {places} positions, {1 + own['h'] * own['w']} expected")
    fit_positions(weights, own, config.grid, resize)
    check_shapes(weights, blank, stored.source)

    model = TimeSformer(config)
    model.load_state_dict(with_head_of(model, weights) if misfit else weights)
    if not misfit:
        model.classes, model.multi_label = stored.classes, stored.multi_label
    if classes is not None:
        model.classes = class_names(classes)
    if model.classes is not None:
        check_classes(model.classes, config.num_classes, stored.source if classes is None else classes)
    if stored.preprocessing:
        model.preprocessing = preprocessing_for(config, stored.preprocessing, overrides)
    return model.eval()


def _read(source: str | Path, options: dict[str, Any]) -> Stored:
    path = Path(source)
    if path.is_file():
        if path.name in WEIGHT_FILES and (path.parent / "config.json").is_file():
            return _read_folder(path.parent, path)
        return formats.from_released(str(path), *read_tensors(path), options)
    if folder := model_folder(path):
        return _read_folder(folder)
    if path.exists():
        raise WeightsError(f"{path}: not a folder with a model (config.json and model.safetensors), nor one of a run")
    entry = published(source)
    if entry and not entry.repository:
        raise WeightsError(f"{source}: the authors publish it as {entry.file}, a file alone: give the path of yours")
    if entry or looks_like_hub_id(source):
        repository = entry.repository if entry and entry.repository else str(source)
        file = download(repository, ["config.json"])
        download_all(repository, PROCESSOR_FILES)
        return _read_folder(file.parent, download(repository, WEIGHT_FILES))
    raise WeightsError(
        f"{source}: no such file or folder, nor the id of a model on the hub (owner/name), nor one of "
        f"{', '.join(CATALOGUE)}"
    )


def model_folder(path: Path) -> Path | None:
    """The folder with a model's config.json: `path` itself, or the best or last model of the run in it."""
    return next((folder for folder in (path, path / "best", path / "last") if (folder / "config.json").is_file()), None)


def weights_file(folder: Path) -> Path | None:
    """The file of weights in a folder, safetensors first."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def _read_folder(folder: Path, file: Path | None = None) -> Stored:
    about = formats.read_json(folder / "config.json")
    file = file or weights_file(folder)
    if not file:
        raise WeightsError(f"{folder}: it has a config.json but no {' or '.join(WEIGHT_FILES)}")
    if isinstance(about, dict) and "model" in about:
        return formats.from_own(str(folder), read_tensors(file)[0], about)
    if formats.is_huggingface(about):
        return formats.from_huggingface(folder, read_tensors(file)[0], about)
    kind = about.get("model_type", about.get("architecture")) if isinstance(about, dict) else None
    hint = " (an image model to start from: init_from_vit)" if kind in ("vit", "deit", "dinov2") else ""
    what = f"a {kind} model" if kind else "another program"
    raise WeightsError(f"{folder}: its config.json is of {what}, not of a TimeSformer{hint}")


def with_head_of(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the head that a model has in place of theirs."""
    heads = {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
    return {name: value for name, value in weights.items() if not name.startswith("head.")} | heads


def preprocessing_for(config: VideoConfig, said: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A model's preprocessing as it was `said`, at the sizes that are asked for."""
    sizes = {"num_frames": config.num_frames, "image_size": min(config.frame_size)}
    fitted = {**sizes, **said, **{name: size for name, size in sizes.items() if name in overrides}}
    if said.get("short_side") and fitted["image_size"] != (own := said.get("image_size", fitted["image_size"])):
        fitted["short_side"] = round(said["short_side"] * fitted["image_size"] / own)
    return fitted


def _misfit_of_head(own: ModelConfig, wanted: ModelConfig) -> str | None:
    """Why a head can't be taken over, if it can't."""
    if own.num_classes != wanted.num_classes:
        return f"it has {own.num_classes} classes, not {wanted.num_classes}"
    if own.head_hidden_dim != wanted.head_hidden_dim:
        return f"its hidden layer is {own.head_hidden_dim} wide, not {wanted.head_hidden_dim}"
    return None


def class_names(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Names as given, or those in a text file, one a line; WeightsError where that can't be read."""
    if not isinstance(classes, str | Path):
        return tuple(classes)
    try:
        return parse_class_names(read_text(Path(classes)))[0]
    except (OSError, ValueError) as error:
        raise WeightsError(f"{classes}: not a text file of class names: {error}") from error


def check_classes(names: Sequence[str], count: int, where: object) -> None:
    """See that there is one name for each class, each another: WeightsError."""
    where = where if isinstance(where, str | Path) else "classes"
    for name in names:
        if not isinstance(name, str):
            raise WeightsError(f"{where}: the class name {name!r} is no text")
    if len(names) != count:
        raise WeightsError(f"{where}: {len(names)} names for a model of {count} classes")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise WeightsError(f"{where}: the class name {twice[0]!r} occurs more than once")


def fit_positions(weights: dict[str, Tensor], own: Grid, grid: Grid, resize: Resize = "bicubic") -> None:
    """Resize the positions among `weights`, in place of those there, from their own grid to another."""
    if (own["h"], own["w"]) != (grid["h"], grid["w"]) and "pos_embed" in weights:
        weights["pos_embed"] = resize_space_positions(weights["pos_embed"], own, grid, resize)
    if own["t"] != grid["t"] and "time_embed" in weights:
        weights["time_embed"] = resize_time_positions(weights["time_embed"], grid["t"], resize)


def check_shapes(weights: dict[str, Tensor], model: nn.Module, source: str) -> None:
    """See that every weight of the model is there in its shape, and no other: WeightsError with both shapes."""
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        there = tuple(weights[name].shape) if name in weights else "missing"
        expected = tuple(wanted[name].shape) if name in wanted else "no such weight"
        if there != expected:
            raise WeightsError(f"{source}: weight {name}: {there} in the file, {expected} in the model")


def resize_space_positions(positions: Tensor, own: Grid, grid: Grid, mode: Resize = "bicubic") -> Tensor:
    """Positions (1, 1 + H*W, D) of CLS and patches for another grid: those of the patches are interpolated."""
    planes = rearrange(positions[:, 1:], "1 (h w) d -> 1 d h w", h=own["h"])
    corners = None if mode == "nearest" else False
    resized = F.interpolate(planes.float(), (grid["h"], grid["w"]), mode=mode, align_corners=corners)
    patches = rearrange(resized, "1 d h w -> 1 (h w) d").to(positions.dtype)
    return torch.cat([positions[:, :1], patches], dim=1)


def resize_time_positions(positions: Tensor, num_frames: int, mode: Resize = "bicubic") -> Tensor:
    """Positions (1, T, D) for another number of frames: linear interpolation, or nearest."""
    line = rearrange(positions, "1 t d -> 1 d t").float()
    if mode == "nearest":
        resized = F.interpolate(line, num_frames, mode="nearest")
    else:
        resized = F.interpolate(line, num_frames, mode="linear", align_corners=False)
    return rearrange(resized, "1 d t -> 1 t d").to(positions.dtype)


def convert(
    source: str | Path, destination: str | Path, to: Literal["timesformer", "huggingface", "released"], **options: Any
) -> None:
    """Write a model in another format.

    Args:
        source: whatever `load_model` takes, with `options`.
        destination: a folder (`timesformer`, `huggingface`) or a file (`released`: .pyth, .pth or .pt); a model that is
            there is replaced.
        to: our own format, transformers', or that of the authors' code.

    Raises:
        WeightsError: the source can't be read, or its model can't be expressed in the format; or the destination holds
            something else than a model.
        ValueError: the destination is the source, or a file where a folder is to be, or the other way round.
    """
    destination = Path(destination)
    folder = model_folder(Path(source))
    suffixes = (".pyth", ".pth", ".pt") if to == "released" else ()
    inputs = [source, *filter(None, [folder, folder and weights_file(folder)])]
    check_output(destination, "destination", folder=to != "released", suffixes=suffixes, inputs=inputs)
    model = load_model(source, **options)
    if to != "released" and destination.exists():
        ours = {"config.json", "model.safetensors", "preprocessor_config.json"}
        if not destination.is_dir() or {path.name for path in destination.iterdir() if path.name[0] != "."} - ours:
            raise WeightsError(
                f"{destination}: there is something else; name a new folder, or one of a model to replace"
            )
    if to not in ("timesformer", "huggingface", "released"):
        raise ValueError(f"to={to!r} is not one of timesformer, huggingface, released")
    if to == "released":
        content = formats.to_released(model)
        with replace_file(destination) as file, file.open("wb") as out:  # by Python, which says why where it fails
            torch.save(content, out)
        return
    with output_lock(destination, folder=True):  # files that belong together
        if to == "timesformer":
            model.save_pretrained(destination)
            return
        weights, about, preprocessor = formats.to_huggingface(model)
        with replace_file(destination / "model.safetensors") as file:
            save_file(weights, file, metadata={"format": "pt"})
        write_json(destination / "preprocessor_config.json", preprocessor)
        write_json(destination / "config.json", about)
