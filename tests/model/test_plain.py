"""Models with layers that are not plain: what reads weights refuses them, and does not compute without the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import timesformer
from tests.model.test_timesformer import make
from timesformer.export import export_model
from timesformer.model.base import digest
from timesformer.predictor import VideoClassifier

CLIP = torch.zeros(1, 3, 4, 32, 32)


class LoRA(nn.Module):
    """A low-rank adapter around a layer, as everybody writes it."""

    def __init__(self, layer: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(rank, layer.in_features))
        self.up = nn.Parameter(torch.randn(layer.out_features, rank))

    @property
    def weight(self) -> Tensor:
        return self.layer.weight

    @property
    def bias(self) -> Tensor:
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.down.T @ self.up.T  # type: ignore[no-any-return]


class LoRALinear(nn.Linear):
    """The same as a subclass."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.sum(dim=-1, keepdim=True)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _in_place(make_layer: Callable[[nn.Linear], nn.Module], name: str) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        holder, _, last = name.rpartition(".")
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        setattr(model.get_submodule(holder), last, make_layer(layer))

    return change


def _subclass(layer: nn.Linear) -> nn.Module:
    new = LoRALinear(layer.in_features, layer.out_features)
    new.load_state_dict(layer.state_dict())
    return new


def _on(name: str, change: Callable[[Any], Any]) -> Callable[[nn.Module], None]:
    return lambda model: change(model.get_submodule(name)) and None


def _own_forward(layer: nn.Module) -> None:
    layer.forward = lambda x: 2 * x


def _no_bias(layer: nn.Linear) -> nn.Module:
    new = nn.Linear(layer.in_features, layer.out_features, bias=False)
    new.weight = layer.weight
    return new


ODD: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "adapter": ("blocks.0.attn.qkv", _in_place(LoRA, "blocks.0.attn.qkv")),
    "adapter of the head": ("head", _in_place(LoRA, "head")),
    "subclass": ("blocks.1.mlp.fc2", _in_place(_subclass, "blocks.1.mlp.fc2")),
    "parametrization": (
        "blocks.1.temporal_fc",
        _on("blocks.1.temporal_fc", lambda layer: parametrize.register_parametrization(layer, "weight", Doubled())),
    ),
    "spectral norm": ("blocks.0.attn.proj", _on("blocks.0.attn.proj", parametrizations.spectral_norm)),
    "old weight norm": ("blocks.0.attn.proj", _on("blocks.0.attn.proj", nn.utils.spectral_norm)),
    "hook": ("blocks.0", _on("blocks.0", lambda block: block.register_forward_hook(lambda *_: None))),
    "hook before": ("norm", _on("norm", lambda norm: norm.register_forward_pre_hook(lambda *_: None))),
    "hook on the whole": ("the model", lambda model: model.register_forward_hook(lambda *_: None)),
    "forward of its own": ("blocks.1.norm2", _on("blocks.1.norm2", _own_forward)),
    "no norm": ("blocks.0.norm1", lambda model: setattr(model.blocks[0], "norm1", nn.Identity())),
    "two layers in one place": (
        "blocks.0.mlp.fc1", _in_place(lambda layer: nn.Sequential(layer, nn.Identity()), "blocks.0.mlp.fc1"),
    ),
    "no bias": ("blocks.0.mlp.fc1", _in_place(_no_bias, "blocks.0.mlp.fc1")),
    "another eps": ("blocks.0.norm1", lambda model: setattr(model.blocks[0].norm1, "eps", 1e-3)),
    "other heads": ("blocks.0.attn", lambda model: setattr(model.blocks[0].attn, "num_heads", 6)),
    "another activation": ("blocks.0.mlp.act", lambda model: setattr(model.blocks[0].mlp, "act", nn.ReLU())),
    "one block fewer": ("blocks.1", lambda model: model.blocks.__delitem__(1)),
    "one more layer": ("blocks.0.adapter", lambda model: model.blocks[0].add_module("adapter", nn.Linear(2, 2))),
    "quantised": ("head", lambda model: setattr(model, "head", torch.ao.nn.quantized.dynamic.Linear(48, 5))),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change"), ODD.values(), ids=ODD)
def test_what_is_not_plain_is_refused_by_name(name: str, change: Callable[[Any], Any]) -> None:
    model = make()
    timesformer.prepare(model)  # is plain
    change(model)
    with pytest.raises(ValueError, match=rf"^{name}: .*can't be rewritten"):
        timesformer.prepare(model)


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"dtype": "int8", "calibration": [CLIP]}])
def test_so_is_it_whatever_it_is_prepared_for(options: dict[str, Any]) -> None:
    model = make()
    _in_place(LoRA, "blocks.0.attn.qkv")(model)
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv: tests\.model\.test_plain\.LoRA"):
        timesformer.prepare(model, **options)


def test_openvino_and_float8_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timesformer.create_model(
        "timesformer_tiny",
        num_classes=16,
        embed_dim=32,
        depth=1,
        num_heads=2,
        image_size=16,
        patch_size=8,
        num_frames=2,
    )
    model.blocks[0].register_forward_hook(lambda *_: None)
    for options in ({"dtype": "float8"}, {"backend": "openvino"}):
        with pytest.raises(ValueError, match=r"^blocks\.0: "):
            timesformer.prepare(model, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", ["adapter", "hook"])
def test_export_refuses_it_before_anything_is_written(odd: str, tmp_path: Path) -> None:
    model = make()
    name, change = ODD[odd]
    change(model)
    with pytest.raises(ValueError, match=rf"^{name}: .*can't be rewritten"):
        export_model(VideoClassifier(model, device="cpu"), tmp_path / "m.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_what_changes_nothing_is_let_pass() -> None:
    model = make(dropout=0.5)
    model.freeze(1)
    model.blocks[0].mlp.drop.p = 0.1  # type: ignore[union-attr, assignment]
    model.head.register_full_backward_hook(lambda *_: None)
    model.train()
    fast = timesformer.prepare(model)
    torch.testing.assert_close(fast(CLIP), model.eval()(CLIP), atol=1e-5, rtol=0)


# --- Names of models --------------------------------------------------------------------------------------------------


def test_models_that_compute_or_say_something_else_have_other_names() -> None:
    model, same = make(), make()
    assert digest(model) == digest(same)
    state = model.state_dict()
    others = []
    for options in ({"num_heads": 6}, {"order": "parallel"}, {"cls_attention": "equations"}):
        other = timesformer.TimeSformer(dataclasses.replace(model.config, **options))
        other.load_state_dict(state)
        others.append(other)
    for name, value in (
        ("multi_label", True),
        ("classes", tuple("abcde")),
        ("preprocessing", {"stride": 8}),
        ("preprocessing", {"stride": 8, "mean": [0.5] * 3}),
    ):
        other = make()
        setattr(other, name, value)
        others.append(other)
    assert len({digest(each) for each in (model, *others)}) == 1 + len(others)


def test_the_name_does_not_depend_on_how_it_was_stored(tmp_path: Path) -> None:
    model = make()
    model.classes = tuple("abcde")
    model.preprocessing = {"num_frames": 4, "stride": 8, "sampling": "clip", "image_size": 32, "mean": (0.5, 0.4, 0.3)}
    model.save_pretrained(tmp_path)
    assert digest(timesformer.load_model(tmp_path)) == digest(model)
