from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import timesformer
from tests.baselines.tiny import tiny as tiny_baseline
from timesformer.training.optimizer import Optimizers, learning_rate, make_optimizer
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
    optimizer.set_learning_rate(2.0)
    groups = optimizer.parts[0].param_groups
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    by_name = {name: of[id(parameter)] for name, parameter in model.named_parameters()}
    assert len(by_name) == len(of)
    assert by_name["head.weight"] == (2.0, 0.1)
    assert by_name["norm.weight"] == (2.0, 0.0)
    assert by_name["blocks.1.mlp.fc1.weight"] == (1.0, 0.1)
    assert by_name["blocks.0.temporal_fc.bias"] == (0.5, 0.0)
    assert by_name["patch_embed.proj.weight"] == (0.25, 0.1)
    assert by_name["cls_token"] == by_name["time_embed"] == by_name["pos_embed"] == (0.25, 0.0)


def test_the_paper_decays_everything() -> None:
    (optimizer,) = make_optimizer(tiny(), OptimizerRecipe()).parts
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    assert optimizer.param_groups[0]["nesterov"]


def test_muon_moves_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    model = tiny()
    muon, adamw = make_optimizer(model, OptimizerRecipe(name="muon", layer_decay=0.5)).parts
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    by_adamw = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert by_muon | by_adamw == set(names.values())
    assert not by_muon & by_adamw
    assert by_muon == {name for name in names.values() if name.startswith("blocks.") and name.endswith("weight")} - {
        name for name in names.values() if "norm" in name
    }


def test_state_goes_there_and_back() -> None:
    recipe = OptimizerRecipe(name="muon", lr=0.1)
    one, other = tiny(), tiny()
    other.load_state_dict(one.state_dict())
    first, second = make_optimizer(one, recipe), make_optimizer(other, recipe)

    def step(model: timesformer.TimeSformer, optimizer: Optimizers, seed: int) -> None:
        torch.manual_seed(seed)
        model.eval()(torch.randn(2, 3, 2, 16, 16)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step(one, first, 0)
    other.load_state_dict(one.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(one, first, 1)
    step(other, second, 1)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def groups_of(model: nn.Module, recipe: OptimizerRecipe) -> list[dict[str, Any]]:
    return [group for part in make_optimizer(model, recipe).parts for group in part.param_groups]


def test_options_are_the_recipes() -> None:
    for group in groups_of(tiny(), OptimizerRecipe(name="adamw", lr=0.3, momentum=0.7, beta2=0.8, weight_decay=0.2)):
        assert (group["lr"], group["betas"], group["weight_decay"]) == (0.3, (0.7, 0.8), 0.2)
    for momentum in (0.0, 0.6):
        for group in groups_of(tiny(), OptimizerRecipe(lr=0.3, momentum=momentum, weight_decay=0.2)):
            assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, momentum, 0.2)
            assert group["nesterov"] == (momentum > 0)
    scaled = groups_of(tiny(), OptimizerRecipe(name="muon", lr=0.3, layer_decay=0.5))
    assert {group["lr"] / group["lr_scale"] for group in scaled} == {0.3}
    assert {group["lr_scale"] for group in scaled} == {1, 0.5, 0.25, 0.125}
    assert {group["weight_decay"] for group in scaled} == {1e-4}


def test_frozen_parameters_are_not_moved() -> None:
    model = tiny()
    model.blocks[0].requires_grad_(False)
    moved = {id(parameter) for group in groups_of(model, OptimizerRecipe()) for parameter in group["params"]}
    assert moved == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(moved) < len(list(model.parameters()))


def test_a_model_without_blocks_is_moved_by_adamw_alone() -> None:
    for name, model in (("muon", nn.Linear(2, 3)), ("adamw", tiny())):
        (part,) = make_optimizer(model, OptimizerRecipe(name=name)).parts  # type: ignore[arg-type]
        assert isinstance(part, torch.optim.AdamW)
        assert sum(len(group["params"]) for group in part.param_groups) == len(list(model.parameters()))


def test_two_steps_of_gradient_descent_by_hand() -> None:
    """Nesterov's: v := m v + g, w := w - lr (g + m v), where g is the gradient and the decay times w."""
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    optimizer = make_optimizer(layer, OptimizerRecipe(lr=9.0, momentum=0.6, weight_decay=0.25))
    w, v = 2.0, 0.0
    for lr, gradient in ((0.1, 3.0), (0.2, -1.0)):
        optimizer.set_learning_rate(lr)
        layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        g = gradient + 0.25 * w
        v = 0.6 * v + g
        w -= lr * (g + 0.6 * v)
        assert layer.weight.item() == pytest.approx(w, rel=1e-5)
        optimizer.zero_grad()
        assert layer.weight.grad is None


def test_two_steps_of_adamw_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    recipe = OptimizerRecipe(name="adamw", lr=9.0, momentum=0.6, beta2=0.8, weight_decay=0.25)
    optimizer = make_optimizer(layer, recipe)
    w, mean, square = 2.0, 0.0, 0.0
    for count, (lr, gradient) in enumerate(((0.1, 3.0), (0.2, -1.0)), 1):
        optimizer.set_learning_rate(lr)
        layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        mean = 0.6 * mean + 0.4 * gradient
        square = 0.8 * square + 0.2 * gradient**2
        w -= lr * 0.25 * w
        w -= lr * (mean / (1 - 0.6**count)) / ((square / (1 - 0.8**count)) ** 0.5 + 1e-8)
        assert layer.weight.item() == pytest.approx(w, rel=1e-5)


def test_both_parts_are_stepped_saved_and_cleared() -> None:
    model = tiny()
    optimizer = make_optimizer(model, OptimizerRecipe(name="muon", lr=0.1))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for parameter, was in zip(model.parameters(), before, strict=True):
        assert not torch.equal(parameter, was)
    muon, adamw = optimizer.state_dict()
    matrices = sum(name.startswith("blocks.") and p.ndim == 2 for name, p in model.named_parameters())
    assert len(muon["state"]) == matrices
    assert len(adamw["state"]) == len(before) - matrices
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_warm_up_comes_before_the_steps_too() -> None:
    recipe = OptimizerRecipe(lr=0.4, warmup=0.2, warmup_lr=0.1, milestones=(5, 8))
    rates = [learning_rate(recipe, epoch, 10) for epoch in (0, 1, 2, 4.9, 5, 8)]
    assert rates == pytest.approx([0.1, 0.25, 0.4, 0.4, 0.04, 0.004])


@pytest.mark.parametrize(
    ("name", "levels"),
    [  # blocks of the stages: 1, 2, 1, 2, so that the head is level 7
        ("i3d_r50", {"pathway.conv1": 0, "pathway.bn1": 0, "pathway.layer1.0.conv2": 1, "pathway.layer2.0.bn1": 2,
                     "pathway.layer2.1.conv3": 3, "pathway.layer3.0.conv1": 4, "pathway.layer4.1.bn3": 6, "head": 7}),
        ("slowfast_r50", {"slow.conv1": 0, "fast.bn1": 0, "laterals.0.conv": 0, "laterals.1.bn": 1,
                          "laterals.3.conv": 4, "slow.layer2.1.conv3": 3, "fast.layer4.0.conv1": 5, "head": 7}),
        ("x3d_s", {"stem.0": 0, "stem.2": 0, "blocks.0.conv1": 1, "blocks.5.bn3": 6, "last.0": 7, "hidden": 7,
                   "head": 7}),
    ],
)  # fmt: skip
def test_layer_decay_of_baselines(name: str, levels: dict[str, int]) -> None:
    model = tiny_baseline(name)
    optimizer = make_optimizer(model, OptimizerRecipe(name="sgd", layer_decay=0.5))
    scale = {
        id(p): group["lr_scale"] for part in optimizer.parts for group in part.param_groups for p in group["params"]
    }
    found = {layer: scale[id(model.get_parameter(f"{layer}.weight"))] for layer in levels}
    assert found == {layer: 0.5 ** (7 - level) for layer, level in levels.items()}
    assert set(scale.values()) == {0.5**level for level in range(8)}


def test_layer_decay_of_layers_that_have_no_known_depth_is_refused() -> None:
    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"optimizer\.layer_decay=0\.5: .*encoder\.weight"):
        make_optimizer(Other(), OptimizerRecipe(layer_decay=0.5))
    make_optimizer(Other(), OptimizerRecipe())
