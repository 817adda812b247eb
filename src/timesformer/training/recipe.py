"""Recipes: all choices of a training run as one typed configuration, for Python, YAML and the command line."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from timesformer.documents import dump_yaml, parse_yaml, read_yaml
from timesformer.limits import limit
from timesformer.ranges import Range, counts, shown
from timesformer.training.model_options import check_model_options
from timesformer.typed import STRICT, build, close_match

_SHARE = Range(0, 1)
_PART = Range(0, 1, below=True)
_RATE = Range(0, 10**6)
_LONGEST = 10**6  # passes over the data, or videos of a step


@dataclass
class DataRecipe:
    """Which frames are taken and how they are varied."""

    __pydantic_config__ = STRICT

    sampling: Literal["clip", "segments"] = "clip"
    """`clip`: frames at a stride, from a random place; `segments`: a random frame from each equal part of the video"""
    stride: float = 32.0
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

    def __post_init__(self) -> None:
        stride = Range(0, limit("MAX_STRIDE"), above=True)
        ranges = {"stride": stride, "trim": _PART, "flip": _SHARE, "rand_augment": counts(0, 10), "erasing": _SHARE}
        ranges |= {"mixup": Range(0, 100), "cutmix": Range(0, 100), "validation": _PART, "workers": counts(0, 1024)}
        _check_ranges(self, "data.", {**ranges, "fraction": Range(0, 1, above=True)})
        _check_pair("data.short_side", self.short_side, Range(1, 16))
        if self.scale is not None:
            _check_pair("data.scale", self.scale, Range(0, 1, above=True))

    def cache_folder(self) -> Path | None:
        """The folder of `cache`; `auto` is `timesformer/frames` in the user's cache folder."""
        if self.cache != "auto":
            return Path(self.cache) if self.cache else None
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "timesformer" / "frames"


@dataclass
class OptimizerRecipe:
    """The optimizer and the schedule of its learning rate."""

    __pydantic_config__ = STRICT

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

    def __post_init__(self) -> None:
        ranges = {"lr": _RATE, "momentum": _PART, "beta2": _PART, "weight_decay": _RATE, "layer_decay": Range(0, 10)}
        ranges |= {"warmup": _PART, "warmup_lr": _RATE, "min_lr": _RATE}
        _check_ranges(self, "optimizer.", ranges)
        for milestone in self.milestones:
            counts(0, _LONGEST).check("optimizer.milestones", milestone)
        if self.clip_grad is not None:
            Range(0, 1e9, above=True).check("optimizer.clip_grad", self.clip_grad)


@dataclass
class Recipe:
    """A training run. The defaults are the paper's (Appendix A)."""

    __pydantic_config__ = STRICT

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
        often = counts(1, _LONGEST)
        ranges = {"epochs": often, "batch_size": often, "validate_every": often, "seed": counts(0, 2**32 - 1)}
        ranges |= {"label_smoothing": _SHARE, "max_bad_share": _SHARE, "ema": _PART}
        ranges |= {"checkpoint_minutes": Range(0, 1e6), "frozen_blocks": counts(-1, limit("MAX_BLOCKS"))}
        _check_ranges(self, "", ranges)
        if self.steps is not None:
            counts(1, 10**9).check("steps", self.steps)
        if self.micro_batch_size is not None and not counts(1, self.batch_size).holds(self.micro_batch_size):
            raise ValueError(f"micro_batch_size={self.micro_batch_size} must be in 1..batch_size={self.batch_size}")
        self.require_pairs(self.micro_batch_size or self.batch_size)
        if self.init and self.init_from_image:
            raise ValueError(f"init={self.init} and init_from_image={self.init_from_image}: give one of them")
        if "num_classes" in self.model:
            raise ValueError(f"model.num_classes={self.model['num_classes']}: the data decide on the classes")
        check_model_options(self.model, whole=not self.init)


def _check_ranges(recipe: object, prefix: str, ranges: Mapping[str, Range]) -> None:
    for name, allowed in ranges.items():
        allowed.check(f"{prefix}{name}", getattr(recipe, name))


def _check_pair(name: str, pair: Sequence[float], allowed: Range) -> None:
    if len(pair) != 2 or not all(allowed.holds(end) for end in pair) or pair[0] > pair[1]:
        raise ValueError(f"{name}={shown(pair)} must be two rising numbers, each {allowed}")


_RECIPES = Path(str(files("timesformer.training"))) / "recipes"
_TEXTS = ("init", "init_from_image", "data.cache")  # keys whose values may look like numbers


class RecipeError(ValueError):
    """A recipe that does not exist, or a value in it that is not allowed."""


def recipe_names() -> list[str]:
    """The recipes that come with the package; those of the paper's rows are `table1/k400_axial` and the like."""
    return sorted(file.relative_to(_RECIPES).with_suffix("").as_posix() for file in _RECIPES.rglob("*.yaml"))


def load_recipe(name: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe. Nothing that it names is imported or run.

    Args:
        name: one of `recipe_names()`, or the path of a YAML file, in which `base: NAME` is the recipe that it changes.
        settings: changes, each `key=value` with dots between levels, such as `optimizer.lr=0.01`; the value is YAML.

    Raises:
        RecipeError: an unknown recipe or key, or a value of the wrong type or out of its range.
    """
    try:
        return build(Recipe, _changed(_read_recipe(name), settings))
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"recipe {name}: {' '.join(str(error).split())}") from error


def _changed(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The values of a recipe with changes, each `key=value`. A whole `model` takes the place of the one there."""
    length: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"setting {setting!r} is not of the form key=value")
        _check_key(key)
        value = parse_yaml(text, f"setting {shown(setting)}")
        if key in _TEXTS and isinstance(value, bool | int | float):
            value = text
        top, dot, last = key.partition(".")
        if key == "model":
            values = {**values, "model": value}
        else:
            values = _merge(values, {top: {last: value} if dot else value})
        if key in _LENGTHS:
            length[key] = value
    _check_length(length)
    return {**_without_length(values), **length} if _gives_length(length) else values


def _read_recipe(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a recipe's file, on top of that of its base."""
    if name in above:
        raise RecipeError(f"recipe {name}: it is its own base")
    if len(above) >= limit("MAX_RECIPES"):
        raise RecipeError(f"recipe {above[0]}: more than {limit('MAX_RECIPES')} recipes on top of each other")
    path = _RECIPES / f"{name}.yaml" if name in recipe_names() else Path(name)
    if not _is_file(path):
        general = [known for known in recipe_names() if "/" not in known]
        raise RecipeError(
            f"recipe {shown(name)} is neither a file nor one of {', '.join(general)}, or of a table's rows"
        )
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).removeprefix(f"{path}: ")
        raise RecipeError(f"recipe {name}: {reason}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {name}: it holds no keys and values")
    base = content.pop("base", None)
    if not isinstance(base, str | None):
        raise RecipeError(f"recipe {name}: base={shown(base)}: must be the name of a recipe, or a file")
    try:
        _check_length(content)
    except ValueError as error:
        raise RecipeError(f"recipe {name}: {error}") from error
    if not base:
        return content
    below = _read_recipe(base if base in recipe_names() else _beside(path, base), (*above, name))
    return _merge(_without_length(below) if _gives_length(content) else below, content)


def _beside(recipe: Path, base: str) -> str:
    """The file that a recipe names as its base: in its own folder or below, so that it opens nothing else."""
    folder = recipe.parent.resolve()
    try:
        file = (folder / base).resolve()
    except (OSError, ValueError, RuntimeError):  # such as of a link to itself, or a name that no file can have
        file = folder.parent
    if not file.is_relative_to(folder):
        raise RecipeError(
            f"recipe {recipe}: base={shown(base)}: must be the name of a recipe, or a file in {folder} or below"
        )
    return str(file)


_LENGTHS = ("epochs", "steps")  # of which one says how long a run is


def _gives_length(values: Mapping[str, Any]) -> bool:
    return any(values.get(name) is not None for name in _LENGTHS)


def _without_length(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _LENGTHS}


def _check_length(values: Mapping[str, Any]) -> None:
    """See that not both `epochs` and `steps` are given at one level, where the one would be ignored: ValueError."""
    if all(values.get(name) is not None for name in _LENGTHS):
        raise ValueError(f"epochs={shown(values['epochs'])} and steps={shown(values['steps'])}: give one of them")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as of a name that is too long
        return False


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _check_key(key: str) -> None:
    """See that a recipe has a key, of dots between levels; the options of `model` are seen to with their values."""
    top = {field.name for field in dataclasses.fields(Recipe)}
    sections = {"data": DataRecipe, "optimizer": OptimizerRecipe}
    known = top | {f"{name}.{field.name}" for name, kind in sections.items() for field in dataclasses.fields(kind)}
    if key in known or (key.startswith("model.") and key.count(".") == 1):
        return
    by_last = {name.rsplit(".", 1)[-1]: name for name in known}
    close = close_match(key.rsplit(".", 1)[-1], by_last)
    for last in by_last:
        close = close.replace(f"did you mean {last}?", f"did you mean {by_last[last]}?")
    raise RecipeError(f"setting {shown(key)} is not in a recipe{close}")


def recipe_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML that `load_recipe` reads; of `epochs` and `steps`, what counts."""
    values = dataclasses.asdict(recipe)
    if recipe.steps is not None:
        del values["epochs"]
    return dump_yaml(_with_lists(values))


def _with_lists(value: Any) -> Any:
    """A value with lists in place of tuples, which YAML does not have."""
    if isinstance(value, dict):
        return {key: _with_lists(each) for key, each in value.items()}
    return [_with_lists(each) for each in value] if isinstance(value, list | tuple) else value
