from __future__ import annotations

import math

import pytest
import torch

import timesformer
from timesformer.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from timesformer.training.recipe import OptimizerRecipe


def tiny() -> timesformer.TimeSformer:
    return timesformer.create_model(
        num_classes=3, image_size=16, patch_size=8, embed_dim=12, depth=2, num_heads=3, num_frames=2
    )


def test_steps_are_the_papers() -> None:
    recipe = OptimizerRecipe()
    rates = [learning_rate(recipe, epoch, 15) for epoch in (0, 10.99, 11, 13.99, 14, 14.99)]
    assert rates == pytest.approx([0.005, 0.005, 0.0005, 0.0005, 0.00005, 0.00005])


def test_warmup_then_cosine() -> None:
    recipe = OptimizerRecipe(schedule="cosine", lr=1.0, warmup=1 / 11, warmup_lr=0.1, min_lr=0.2)
    assert learning_rate(recipe, 0, 110) == pytest.approx(0.1)
    assert learning_rate(recipe, 5, 110) == pytest.approx(0.55)
    assert learning_rate(recipe, 10, 110) == pytest.approx(1.0)
    assert learning_rate(recipe, 60, 110) == pytest.approx(0.6)
    assert learning_rate(recipe, 35, 110) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(recipe, 110, 110) == pytest.approx(0.2)


def test_layer_decay_and_what_is_not_decayed() -> None:
    model = tiny()
    recipe = OptimizerRecipe(name="adamw", lr=1.0, weight_decay=0.1, decay_all=False, layer_decay=0.5)
    optimizer = make_optimizer(model, recipe)
    set_learning_rate(optimizer, 2.0)
    of = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: of[id(parameter)] for name, parameter in model.named_parameters()}
    assert len(by_name) == len(of)
    assert by_name["head.weight"] == (2.0, 0.1)
    assert by_name["norm.weight"] == (2.0, 0.0)
    assert by_name["blocks.1.mlp.fc1.weight"] == (1.0, 0.1)
    assert by_name["blocks.0.temporal_fc.bias"] == (0.5, 0.0)
    assert by_name["patch_embed.proj.weight"] == (0.25, 0.1)
    assert by_name["cls_token"] == by_name["time_embed"] == by_name["pos_embed"] == (0.25, 0.0)


def test_the_paper_decays_everything() -> None:
    optimizer = make_optimizer(tiny(), OptimizerRecipe())
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    assert optimizer.param_groups[0]["nesterov"]
