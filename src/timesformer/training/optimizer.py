"""The optimizer of a recipe, and the learning rate at each point of the run."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW, Muon, Optimizer

from timesformer.training.recipe import OptimizerRecipe

_POSITIONS = ("cls_token", "pos_embed", "time_embed")
_LOWEST = (*_POSITIONS, "patch_embed", "stem", "conv1", "bn1")
_HIGHEST = ("norm", "last", "hidden", "head")
_PATHWAYS = re.compile(r"^(pathway|slow|fast)\.")
_BLOCK = re.compile(r"(blocks|layer(?P<stage>\d+))\.(?P<block>\d+)\.")


class Optimizers:
    """Optimizers of a model's parameters, each of its own part, that are stepped and saved as one."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts

    def step(self) -> None:
        """A step of each."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate, to be multiplied by each group's `lr_scale`."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr * group["lr_scale"]

    def state_dict(self) -> list[dict[str, Any]]:
        """The states of all, for a checkpoint."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from what `state_dict` gave."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def make_optimizer(model: nn.Module, recipe: OptimizerRecipe) -> Optimizers:
    """The optimizer of a recipe, its parameters in groups of one `lr_scale` (layer decay) and weight decay.

    `muon` moves the matrices of the blocks by Muon, with updates of the size that AdamW's have, and the rest by AdamW.
    """
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = defaultdict(list)
    levels = _levels([name for name, _ in model.named_parameters()])
    unknown = [name for name, level in levels.items() if level is None]
    if unknown and recipe.layer_decay != 1:
        raise ValueError(f"optimizer.layer_decay={recipe.layer_decay}: the depth of {unknown[0]} is not known")
    top = max((level for level in levels.values() if level is not None), default=0)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim > 1 and name not in _POSITIONS
        decay = recipe.weight_decay if plain or recipe.decay_all else 0.0
        hidden_matrix = parameter.ndim == 2 and name.startswith("blocks.")
        level = levels[name]
        scale = recipe.layer_decay ** (top - (top if level is None else level))
        groups[recipe.name == "muon" and hidden_matrix, scale, decay].append(parameter)

    def options(muon: bool) -> list[dict[str, Any]]:
        return [
            {"params": parameters, "lr": recipe.lr * scale, "lr_scale": scale, "weight_decay": decay}
            for (by_muon, scale, decay), parameters in groups.items()
            if by_muon == muon
        ]

    if recipe.name == "sgd":
        fused = not any(isinstance(parameter, DTensor) for parameter in model.parameters())  # of shards there is none
        return Optimizers(SGD(options(False), momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=fused))
    adamw = AdamW(options(False), betas=(recipe.momentum, recipe.beta2), fused=True)
    if not (matrices := options(True)):  # for adamw, and for a model without such blocks
        return Optimizers(adamw)
    return Optimizers(Muon(matrices, adjust_lr_fn="match_rms_adamw"), adamw)


def _levels(names: Sequence[str]) -> dict[str, int | None]:
    """Depth of each parameter: 0 for embedding or stem, 1 for the first block, one above the last block for the head.

    The blocks of a convolutional network are counted through its stages `layer1`, `layer2`, ...; those of SlowFast's
    pathways side by side, and a lateral connection with the block before it. None where a name tells no depth.
    """
    layers = {name: _PATHWAYS.sub("", name) for name in names}
    depths: dict[int, int] = defaultdict(int)  # blocks of each stage
    for layer in layers.values():
        if match := _BLOCK.match(layer):
            stage, block = int(match["stage"] or 0), int(match["block"])
            depths[stage] = max(depths[stage], 1 + block)
    top = 1 + sum(depths.values())

    def before(stage: int) -> int:
        return sum(depth for earlier, depth in depths.items() if earlier < stage)

    def level(layer: str) -> int | None:
        if match := _BLOCK.match(layer):
            return 1 + before(int(match["stage"] or 0)) + int(match["block"])
        part, *rest = layer.split(".")
        if part == "laterals":
            return before(1 + int(rest[0]))
        if part in _LOWEST:
            return 0
        return top if part in _HIGHEST else None

    return {name: level(layer) for name, layer in layers.items()}


def learning_rate(recipe: OptimizerRecipe, epoch: float, epochs: int) -> float:
    """The learning rate at a point of the run, such as epoch 1.5 of 15."""
    warmup = recipe.warmup * epochs
    if epoch < warmup:
        return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * epoch / warmup
    if recipe.schedule == "steps":
        return recipe.lr * 0.1 ** sum(epoch >= milestone for milestone in recipe.milestones)
    progress = (epoch - warmup) / (epochs - warmup)
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * progress)) / 2
