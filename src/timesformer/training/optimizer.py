"""The optimizer of a recipe, and the learning rate at each point of the run."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW, Muon, Optimizer

from timesformer.training.recipe import OptimizerRecipe

_POSITIONS = ("cls_token", "pos_embed", "time_embed")


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
    top = 1 + sum(name.startswith("blocks.") and name.count(".") == 1 for name, _ in model.named_modules())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim > 1 and name not in _POSITIONS
        decay = recipe.weight_decay if plain or recipe.decay_all else 0.0
        hidden_matrix = parameter.ndim == 2 and name.startswith("blocks.")
        scale = recipe.layer_decay ** (top - _level(name, top))
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
