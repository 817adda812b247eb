"""The optimizer of a recipe, and the learning rate at each point of the run."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from timesformer.training.recipe import OptimizerRecipe

_POSITIONS = ("cls_token", "pos_embed", "time_embed")


def make_optimizer(model: nn.Module, recipe: OptimizerRecipe) -> Optimizer:
    """An optimizer whose parameter groups hold `lr_scale` (layer decay) and their own weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    top = 1 + sum(name.startswith("blocks.") and name.count(".") == 1 for name, _ in model.named_modules())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim > 1 and name not in _POSITIONS
        decay = recipe.weight_decay if plain or recipe.decay_all else 0.0
        groups[recipe.layer_decay ** (top - _level(name, top)), decay].append(parameter)
    options: list[dict[str, Any]] = [
        {"params": parameters, "lr": recipe.lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    if recipe.name == "adamw":
        return AdamW(options, betas=(recipe.momentum, recipe.beta2), fused=True)
    return SGD(options, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def _level(name: str, top: int) -> int:
    """Depth of a parameter: 0 for the embeddings, 1 for the first block, `top` for the final norm and the head."""
    part, *rest = name.split(".")
    if part == "blocks":
        return 1 + int(rest[0])
    return 0 if part in (*_POSITIONS, "patch_embed") else top


def learning_rate(recipe: OptimizerRecipe, epoch: float, epochs: int) -> float:
    """The learning rate at a point of the run, such as epoch 1.5 of 15."""
    warmup = recipe.warmup * epochs
    if epoch < warmup:
        return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * epoch / warmup
    if recipe.schedule == "steps":
        return recipe.lr * 0.1 ** sum(epoch >= milestone for milestone in recipe.milestones)
    progress = (epoch - warmup) / (epochs - warmup)
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
