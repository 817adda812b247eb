"""Recipes: all choices of a training run as one typed configuration, for Python, YAML and the command line."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import yaml


@dataclass
class DataRecipe:
    """Which frames are taken and how they are varied."""

    sampling: Literal["clip", "segments"] = "clip"
    """`clip`: frames at a stride, from a random place; `segments`: a random frame from each equal part of the video"""
    stride: float = 32
    """source frames from one frame of a clip to the next"""
    trim: float = 0.0
    """largest share of a video that is cut off at its ends before the clip is taken"""
    short_side: tuple[float, float] = (8 / 7, 10 / 7)
    """range of the frames' short side in units of the model's image_size, drawn for each clip: 256 to 320 for 224"""
    scale: tuple[float, float] | None = None
    """crop a random share of the frame's area from this range instead (frames are decoded at the larger short_side)"""
    flip: float = 0.5
    """chance of a mirrored clip; 0 where classes differ by left and right"""
    rand_augment: int = 0
    """strength 0 to 10 of random augmentation; 0 is off"""
    erasing: float = 0.0
    """chance that a box of the clip is erased"""
    mixup: float = 0.0
    """alpha of mixup; 0 is off"""
    cutmix: float = 0.0
    """alpha of CutMix; 0 is off"""
    fraction: float = 1.0
    """share of the training videos to use, balanced over classes: a seeded part, smaller in larger (Figure 4)"""
    validation: float = 0.0
    """share of the videos held out, balanced over classes, where the data has neither validation nor test videos"""
    cache: str | None = None
    """folder in which decoded frames are kept for the next epoch: for small data; 'auto' is the user's cache folder"""
    workers: int = 2
    """processes that decode and transform"""

    def cache_folder(self) -> Path | None:
        """The folder of `cache`; `auto` is `timesformer/frames` in the user's cache folder."""
        if self.cache != "auto":
            return Path(self.cache) if self.cache else None
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "timesformer" / "frames"


@dataclass
class OptimizerRecipe:
    """The optimizer and the schedule of its learning rate."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    """sgd has Nesterov momentum; muon is Muon for the blocks' matrices and AdamW for the rest: fastest from nothing"""
    lr: float = 0.005
    """learning rate at its highest, for the recipe's batch size"""
    momentum: float = 0.9
    """momentum of sgd; beta 1 of adamw, also beside muon, whose own momentum is 0.95"""
    beta2: float = 0.999
    """beta 2 of adamw"""
    weight_decay: float = 1e-4
    """weight decay"""
    decay_all: bool = True
    """decay biases, norms, positions and CLS too"""
    layer_decay: float = 1.0
    """factor of the learning rate from each block to the one below it"""
    schedule: Literal["steps", "cosine"] = "steps"
    """divide by 10 at each milestone, or follow a cosine down to min_lr"""
    milestones: tuple[int, ...] = (11, 14)
    """epochs at which the learning rate is divided by 10 (schedule steps)"""
    warmup: float = 0.0
    """share of the run in which the learning rate grows linearly from warmup_lr"""
    warmup_lr: float = 0.0
    """learning rate at the start of the warm-up"""
    min_lr: float = 0.0
    """learning rate at the end of the cosine"""
    clip_grad: float | None = None
    """largest norm of the gradient"""


@dataclass
class Recipe:
    """A training run. The defaults are the paper's (Appendix A)."""

    model: dict[str, Any] = field(default_factory=lambda: {"name": "timesformer_base"})
    """`name` and options of timesformer.create_model, or of timesformer.baselines.create_baseline"""
    init: str | None = None
    """model to start from: whatever timesformer.load_model takes, or a trained baseline"""
    init_from_image: str | None = None
    """image model to start from: a ViT (timesformer.init_from_vit); for I3D and SlowFast a ResNet (inflate_2d)"""
    initialization: Literal["released", "scratch", "pretrained"] = "released"
    """first weights of all that `init` or an image model does not give: as released, or for training from nothing;
    `pretrained`: there are none, a model must be given"""
    frozen_blocks: int = 0
    """lowest blocks that stay as they are, and the embedding with them; -1: all, only the last norm and head learn"""
    data: DataRecipe = field(default_factory=DataRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    epochs: int = 15
    """passes over the training videos"""
    steps: int | None = None
    """steps of the optimizer, instead of `epochs`, rounded to whole passes: few videos are passed over more often;
    of a recipe and what changes it, the nearer one that gives either counts"""
    batch_size: int = 16
    """videos a step of the optimizer"""
    micro_batch_size: int | None = None
    """videos that go through the model at a time; gradients are accumulated up to batch_size"""
    label_smoothing: float = 0.0
    """share of the target spread over all classes"""
    ema: float = 0.0
    """decay of the moving average of the weights, which is what is tested and saved; 0 is off"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where the machine computes in it"""
    activation_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, about a third more time"""
    compile: bool = False
    """compile the blocks (torch.compile): a slow start, for long runs; paths are then dropped by other draws"""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """with several processes: ddp, a whole model in each; fsdp, a shard of it, for models that need the memory"""
    seed: int = 0
    """seed of weights, order and augmentation"""
    validate_every: int = 1
    """epochs from one validation to the next"""
    checkpoint_minutes: float = 5.0
    """minutes from one checkpoint to the next; 0 writes one at every step"""
    max_bad_share: float = 0.1
    """share of the training videos that may fail to decode before the run stops"""

    def num_epochs(self, num_videos: int) -> int:
        """Passes over a number of videos: `epochs`, or as many as `steps` takes."""
        if self.steps is None:
            return self.epochs
        return max(1, round(self.steps / math.ceil(num_videos / self.batch_size)))

    def require_pairs(self, clips: int) -> None:
        """See that mixup and CutMix, where they are on, have two clips to mix: ValueError."""
        if clips < 2 and (self.data.mixup or self.data.cutmix):
            raise ValueError(
                f"data.mixup={self.data.mixup}, data.cutmix={self.data.cutmix}: they mix the clips that go through the "
                f"model together, which must be two clips or more, not {clips}: set batch_size or micro_batch_size"
            )

    def __post_init__(self) -> None:
        if self.steps is not None:
            _check_length({"epochs": None if self.epochs == Recipe.epochs else self.epochs, "steps": self.steps})
        for name in ("epochs", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.micro_batch_size is not None and not 1 <= self.micro_batch_size <= self.batch_size:
            raise ValueError(f"micro_batch_size={self.micro_batch_size} must be in 1..batch_size={self.batch_size}")
        self.require_pairs(self.micro_batch_size or self.batch_size)
        if self.init and self.init_from_image:
            raise ValueError(f"init={self.init} and init_from_image={self.init_from_image}: give one of them")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        shares = {"data.trim": self.data.trim, "data.validation": self.data.validation}
        for name, share in {**shares, "optimizer.warmup": self.optimizer.warmup}.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name}={share} must be in [0, 1)")
        if not 0 < self.data.fraction <= 1:
            raise ValueError(f"data.fraction={self.data.fraction} must be in (0, 1]")
        for name in ("lr", "weight_decay", "layer_decay", "warmup_lr", "min_lr"):
            if getattr(self.optimizer, name) < 0:
                raise ValueError(f"optimizer.{name}={getattr(self.optimizer, name)} must be 0 or more")
        for name in ("label_smoothing", "max_bad_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1]")
        if not 1 <= self.data.short_side[0] <= self.data.short_side[1]:
            raise ValueError(f"data.short_side={self.data.short_side} must be two rising numbers from 1 up")
        if "num_classes" in self.model:
            raise ValueError(f"model.num_classes={self.model['num_classes']}: the data decide on the classes")
        for name, count in (("seed", self.seed), ("data.workers", self.data.workers)):
            if count < 0:
                raise ValueError(f"{name}={count} must be 0 or more")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema={self.ema} must be in [0, 1)")


_RECIPES = Path(str(files("timesformer.training"))) / "recipes"


class RecipeError(ValueError):
    """A recipe that does not exist, or a value in it that is not allowed."""


def recipe_names() -> list[str]:
    """The recipes that come with the package; those of the paper's rows are `table1/k400_axial` and the like."""
    return sorted(file.relative_to(_RECIPES).with_suffix("").as_posix() for file in _RECIPES.rglob("*.yaml"))


def load_recipe(name: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name: one of `recipe_names()`, or the path of a YAML file, in which `base: NAME` is the recipe that it changes.
        settings: changes, each `key=value` with dots between levels, such as `optimizer.lr=0.01`.

    Raises:
        RecipeError: an unknown recipe or key, or a value of the wrong type.
    """
    changes = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise RecipeError(f"setting {setting!r} is not of the form key=value")
        _check_key(key)
        changes.append(f"--{key}={value}")
    length = {key: value for key, _, value in (setting.partition("=") for setting in settings) if key in _LENGTHS}
    length = {key: value for key, value in length.items() if value != "null"}
    try:
        _check_length(length)
    except ValueError as error:
        raise RecipeError(f"recipe {name}: {error}") from error
    if "steps" in length:
        changes.append(f"--epochs={Recipe.epochs}")
    elif "epochs" in length:
        changes.append("--steps=null")
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(Recipe)
    try:
        config = parser.parse_object(_read_recipe(name))
        config = parser.parse_args(changes, namespace=config)
        return Recipe(**vars(parser.instantiate(config)))
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        raise RecipeError(f"recipe {name}: {' '.join(str(error).split())}") from error


def _read_recipe(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a recipe's file, on top of that of its base."""
    path = _RECIPES / f"{name}.yaml" if name in recipe_names() else Path(name)
    if not path.is_file():
        general = [known for known in recipe_names() if "/" not in known]
        raise RecipeError(f"recipe {name!r} is neither a file nor one of {', '.join(general)}, or of a table's rows")
    if name in above:
        raise RecipeError(f"recipe {name}: it is its own base")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {name}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {name}: it holds no keys and values")
    base = content.pop("base", None)
    try:
        _check_length(content)
    except ValueError as error:
        raise RecipeError(f"recipe {name}: {error}") from error
    if not base:
        return content
    below = _read_recipe(base, (*above, name))
    if any(content.get(length) is not None for length in _LENGTHS):
        below = {key: value for key, value in below.items() if key not in _LENGTHS}
    return _merge(below, content)


_LENGTHS = ("epochs", "steps")  # of which one says how long a run is


def _check_length(content: Mapping[str, Any]) -> None:
    """See that not both `epochs` and `steps` are given at one level, where the one would be ignored: ValueError."""
    if all(content.get(length) is not None for length in _LENGTHS):
        raise ValueError(f"epochs={content['epochs']} and steps={content['steps']}: give one of them")


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _check_key(key: str) -> None:
    top = {field.name for field in dataclasses.fields(Recipe)}
    parts = {"data": DataRecipe, "optimizer": OptimizerRecipe}
    known = top | {f"{part}.{field.name}" for part, kind in parts.items() for field in dataclasses.fields(kind)}
    if key not in known and not key.startswith("model."):
        by_last = {name.rsplit(".", 1)[-1]: name for name in known}
        close = difflib.get_close_matches(key.rsplit(".", 1)[-1], by_last, 1)
        raise RecipeError(
            f"setting {key!r} is not in a recipe{f': did you mean {by_last[close[0]]}?' if close else ''}"
        )


def recipe_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML that `load_recipe` reads; of `epochs` and `steps`, what counts."""
    values = dataclasses.asdict(recipe)
    if recipe.steps is not None:
        del values["epochs"]
    return yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False)
