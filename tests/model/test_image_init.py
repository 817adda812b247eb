"""Image ViTs as the start of a video model: from every source, and what the model then computes."""

from __future__ import annotations

import argparse
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import timesformer
from tests.model.test_timesformer import SMALL
from timesformer.model import hub
from timesformer.model.attention import SCHEMES
from timesformer.model.tensors import WeightsError

Weights = dict[str, Tensor]
DIM, HEADS, PATCH = 48, 3, 8


def vit_weights(classes: int = 5, positions: int = 17, channels: int = 3) -> Weights:
    """Random weights by timm's names, of a ViT with two blocks."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM), "pos_embed": (1, positions, DIM),
        "patch_embed.proj.weight": (DIM, channels, PATCH, PATCH), "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,), "norm.bias": (DIM,), "head.weight": (classes, DIM), "head.bias": (classes,),
    }  # fmt: skip
    for block in ("blocks.0.", "blocks.1."):
        layers = {
            "attn.qkv": (3 * DIM, DIM),
            "attn.proj": (DIM, DIM),
            "mlp.fc1": (4 * DIM, DIM),
            "mlp.fc2": (DIM, 4 * DIM),
        }
        for name, (outs, ins) in layers.items():
            shapes |= {f"{block}{name}.weight": (outs, ins), f"{block}{name}.bias": (outs,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}{name}.weight": (DIM,), f"{block}{name}.bias": (DIM,)}
    return {name: 0.2 * torch.randn(shape) for name, shape in shapes.items()}


def vit_features(w: Weights, frames: Tensor) -> Tensor:
    """The ViT's own definition on the frames (T, C, H, W) of a clip, its CLS averaged over them after each step."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (DIM,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    patches = F.conv2d(frames, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH)
    x = torch.cat([w["cls_token"].expand(len(frames), 1, DIM), patches.flatten(2).transpose(1, 2)], 1) + w["pos_embed"]
    for block in ("blocks.0", "blocks.1"):
        q, k, v = (
            linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        )
        weights = (q @ k.transpose(-1, -2) / (DIM // HEADS) ** 0.5).softmax(-1)
        x = x + linear(f"{block}.attn.proj", (weights @ v).transpose(1, 2).flatten(2))
        x = torch.cat([x[:, :1].mean(0, keepdim=True).expand(len(x), 1, DIM), x[:, 1:]], dim=1)
        x = x + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))))
    return norm("norm", x)[:1, 0]


def new(**options: Any) -> timesformer.TimeSformer:
    torch.manual_seed(1)
    return timesformer.create_model("timesformer_tiny", **{**SMALL, **options}).eval()


def write(weights: Weights, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("scheme", ["divided_space_time", "space_only"])
@pytest.mark.parametrize("frames", [1, 4])
def test_before_training_it_computes_what_the_vit_does(scheme: str, frames: int, tmp_path: Path) -> None:
    """By divided attention exactly the recurrence with CLS averaged; by space only as well for a single frame."""
    weights = vit_weights()
    model = new(attention=scheme)
    report = timesformer.init_from_vit(model, write(weights, tmp_path / "vit.safetensors"))
    clip = torch.randn(1, 3, frames, 32, 32)
    expected = vit_features(weights, clip[0].transpose(0, 1))
    if scheme == "divided_space_time" or frames == 1:
        torch.testing.assert_close(model.features(clip), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(clip), F.linear(expected, weights["head.weight"], weights["head.bias"]))
    assert not report.unused
    assert set(report.left) == {name for name in model.state_dict() if "_fc" in name or name == "time_embed"}
    assert set(report.loaded) | set(report.left) == set(model.state_dict())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_step_of_every_scheme_starts_as_the_vits(scheme: str, tmp_path: Path) -> None:
    weights = vit_weights()
    model = new(attention=scheme)
    timesformer.init_from_vit(model, write(weights, tmp_path / "vit.pth"))
    state = model.state_dict()
    for number in range(2):
        for prefix, _ in model.config.steps:
            for part in ("attn.qkv.weight", "attn.proj.bias", "norm1.weight"):
                assert torch.equal(state[f"blocks.{number}.{prefix}{part}"], weights[f"blocks.{number}.{part}"])
            assert not prefix or state[f"blocks.{number}.{prefix}fc.weight"].abs().max() == 0


def test_transformers_vit_with_one_frame_gives_its_features(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=DIM, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=4 * DIM, image_size=32,
        patch_size=PATCH, num_labels=5, layer_norm_eps=1e-6,
    )  # fmt: skip
    vit = transformers.ViTForImageClassification(config).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    vit.save_pretrained(tmp_path / "vit")
    model = new()
    report = timesformer.init_from_vit(model, tmp_path / "vit")
    assert not report.unused
    frame = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(frame[:, :, None]), vit(frame).logits, atol=1e-5, rtol=0)


def google(weights: Weights, heads: int = HEADS) -> dict[str, np.ndarray]:
    """The same ViT as Google's arrays."""
    a = {name: value.numpy() for name, value in weights.items()}
    npz = {
        "cls": a["cls_token"], "Transformer/posembed_input/pos_embedding": a["pos_embed"],
        "embedding/kernel": a["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": a["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": a["norm.weight"], "Transformer/encoder_norm/bias": a["norm.bias"],
        "head/kernel": a["head.weight"].T, "head/bias": a["head.bias"],
    }  # fmt: skip
    for n in range(2):
        ours, theirs = f"blocks.{n}", f"Transformer/encoderblock_{n}"
        attn = f"{theirs}/MultiHeadDotProductAttention_1"
        for number, part in enumerate(("query", "key", "value")):
            rows = slice(number * DIM, (number + 1) * DIM)
            npz[f"{attn}/{part}/kernel"] = a[f"{ours}.attn.qkv.weight"][rows].T.reshape(DIM, heads, -1)
            npz[f"{attn}/{part}/bias"] = a[f"{ours}.attn.qkv.bias"][rows].reshape(heads, -1)
        npz[f"{attn}/out/kernel"] = a[f"{ours}.attn.proj.weight"].T.reshape(heads, -1, DIM)
        npz[f"{attn}/out/bias"] = a[f"{ours}.attn.proj.bias"]
        for name, number in (("norm1", 0), ("norm2", 2)):
            npz[f"{theirs}/LayerNorm_{number}/scale"] = a[f"{ours}.{name}.weight"]
            npz[f"{theirs}/LayerNorm_{number}/bias"] = a[f"{ours}.{name}.bias"]
        for name, number in (("fc1", 0), ("fc2", 1)):
            npz[f"{theirs}/MlpBlock_3/Dense_{number}/kernel"] = a[f"{ours}.mlp.{name}.weight"].T
            npz[f"{theirs}/MlpBlock_3/Dense_{number}/bias"] = a[f"{ours}.mlp.{name}.bias"]
    return npz


def test_googles_arrays(tmp_path: Path) -> None:
    weights = vit_weights()
    np.savez(tmp_path / "vit.npz", **google(weights))
    model = new()
    timesformer.init_from_vit(model, tmp_path / "vit.npz")
    frame = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model.features(frame[:, :, None]), vit_features(weights, frame), atol=1e-5, rtol=0)
    np.savez(tmp_path / "vit.npz", **google(weights, heads=6))
    with pytest.raises(WeightsError, match="it has 6 heads, the model num_heads=3"):
        timesformer.init_from_vit(new(), tmp_path / "vit.npz")
    with_pre_logits = {**google(weights), "pre_logits/kernel": np.eye(DIM), "pre_logits/bias": np.zeros(DIM)}
    np.savez(tmp_path / "vit.npz", **with_pre_logits)
    report = timesformer.init_from_vit(new(), tmp_path / "vit.npz")
    assert report.unused["head.weight"] == report.left["head.weight"] == "its head has a hidden layer"


@pytest.mark.parametrize("wrapping", ["dino", "dino_full"])
def test_other_vits(wrapping: str, tmp_path: Path) -> None:
    """DINO's backbone without a head, and with all that its training saves."""
    weights = {name: value for name, value in vit_weights().items() if not name.startswith("head.")}
    content: dict[str, Any] = dict(weights)
    if wrapping == "dino_full":
        student = {f"module.backbone.{name}": torch.zeros_like(value) for name, value in weights.items()}
        teacher = {f"backbone.{name}": value for name, value in weights.items()} | {"head.mlp.0.weight": torch.ones(2)}
        content = {"student": student, "teacher": teacher, "args": argparse.Namespace(lr=1), "epoch": 3}
    model = new(num_classes=7)
    torch.save(content, tmp_path / "vit.pth")
    report = timesformer.init_from_vit(model, tmp_path / "vit.pth")
    frame = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model.features(frame[:, :, None]), vit_features(weights, frame), atol=1e-5, rtol=0)
    assert report.unused.keys() == {"dino": set(), "dino_full": {"head.mlp.0.weight"}}[wrapping]


FOREIGN = (
    "dist_token", "register_tokens", "reg_token", "norm_pre.weight", "fc_norm.weight", "rope.periods",
    "rel_pos_bias.relative_position_bias_table", "attn_pool.latent", "blocks.0.gamma_1", "blocks.1.attn.q_norm.weight",
    "blocks.0.attn.relative_position_bias_table", "blocks.0.mlp.w12.weight", "blocks.0.attn.q_bias",
    "blocks.0.attn.rope.freqs", "blocks.0.mlp.norm.weight", "something_new",
)  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_plain_vit_has_not_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Without it the image model itself would compute something else."""
    file = write({**vit_weights(), name: torch.randn(DIM)}, tmp_path / "vit.pth")
    model = new()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"vit\.pth: the model has no place for its {re.escape(name)}"):
        timesformer.init_from_vit(model, file)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_swiglu_is_named_rather_than_what_it_stands_for(tmp_path: Path) -> None:
    weights = {name.replace("fc1", "w12").replace("fc2", "w3"): value for name, value in vit_weights().items()}
    with pytest.raises(WeightsError, match=r"the model has no place for its blocks\.0\.mlp\.w12\.bias"):
        timesformer.init_from_vit(new(), write(weights, tmp_path / "vit.pth"))


@pytest.mark.parametrize(
    "name", ["mask_token", "pooler.dense.weight", "decoder_pos_embed", "fc.weight", "lm_head.bias"]
)
def test_heads_of_other_tasks_are_left_out(name: str, tmp_path: Path) -> None:
    report = timesformer.init_from_vit(new(), write({**vit_weights(), name: torch.randn(DIM)}, tmp_path / "vit.pth"))
    assert report.unused == {name: "the model has no place for it"}


def test_another_activation_beside_the_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_act": "quick_gelu"}')
    write(vit_weights(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="hidden_act='quick_gelu': the model has gelu"):
        timesformer.init_from_vit(new(), tmp_path)


def test_layer_scale_is_folded_into_the_layer_before_it(tmp_path: Path) -> None:
    weights = vit_weights()
    scales = {f"blocks.{n}.ls{k}.gamma": torch.rand(DIM) for n in range(2) for k in (1, 2)}
    model = new()
    timesformer.init_from_vit(model, write({**weights, **scales}, tmp_path / "vit.pth"))
    for n in range(2):
        for k, layer in ((1, "attn.proj"), (2, "mlp.fc2")):
            gamma = scales[f"blocks.{n}.ls{k}.gamma"]
            weights[f"blocks.{n}.{layer}.weight"] *= gamma[:, None]
            weights[f"blocks.{n}.{layer}.bias"] *= gamma
    frame = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model.features(frame[:, :, None]), vit_features(weights, frame), atol=1e-5, rtol=0)


def test_channels(tmp_path: Path) -> None:
    file = write(vit_weights(), tmp_path / "vit.pth")
    grey = torch.randn(1, 1, 1, 32, 32)
    expected = new(), new(in_channels=1), new(in_channels=6)
    for model in expected:
        timesformer.init_from_vit(model, file)
    rgb, one, six = expected
    torch.testing.assert_close(one.features(grey), rgb.features(grey.expand(1, 3, 1, 32, 32)), atol=1e-5, rtol=0)
    torch.testing.assert_close(six.features(grey.expand(1, 6, 1, 32, 32)), one.features(grey), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("positions", "image_size"), [(17, 64), (17, (32, 64)), (17, (16, 64)), (26, 32), (16, 32)])
def test_positions_of_another_grid(positions: int, image_size: Any, tmp_path: Path) -> None:
    weights = vit_weights(positions=positions)
    model = new(image_size=image_size)
    timesformer.init_from_vit(model, write(weights, tmp_path / "vit.pth"))
    first = weights["pos_embed"][:, :1] if positions != 16 else torch.zeros(1, 1, DIM)
    assert model.pos_embed is not None
    assert torch.equal(model.pos_embed[:, :1], first)
    if positions == 16:  # timm's `no_embed_class`
        assert torch.equal(model.pos_embed[:, 1:], weights["pos_embed"])
    else:
        side = int((positions - 1) ** 0.5)
        planes = weights["pos_embed"][0, 1:].T.reshape(1, DIM, side, side)
        sizes = (model.config.grid["h"], model.config.grid["w"])
        expected = F.interpolate(planes, sizes, mode="bicubic", align_corners=False)[0].flatten(1).T
        torch.testing.assert_close(model.pos_embed[0, 1:], expected)


def test_what_is_not_loaded_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write({**vit_weights(classes=1000), "mask_token": torch.zeros(1)}, tmp_path / "vit.pth")
    with caplog.at_level(logging.WARNING):
        timesformer.init_from_vit(new(), file)
    assert "vit.pth: head.weight not loaded: it has 1000 classes, the model 5" in caplog.text
    assert "vit.pth: mask_token not loaded: the model has no place for it" in caplog.text


def test_wrong_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(vit_weights(), tmp_path / "vit.pth")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"embed_dim": 96}, r"weight blocks.0.attn.proj.bias: \(48,\) in the file, \(96,\) in the model"),
        ({"depth": 3}, "it has no blocks.2.norm1.weight, which the model of 3 blocks needs"),
        ({"depth": 1}, r"the model has no place for its blocks\.1\."),
        ({"patch_size": 16}, r"patch_embed.proj.weight: \(48, 3, 8, 8\) in the file, \(48, 3, 16, 16\) in the model"),
    ]
    for options, message in cases:
        with pytest.raises(WeightsError, match=f"vit.pth: .*{message}"):
            timesformer.init_from_vit(new(**options), file)
    write({**vit_weights(), "blocks.0.attn.q_norm.weight": torch.ones(16)}, file)
    with pytest.raises(WeightsError, match=r"the model has no place for its blocks.0.attn.q_norm.weight"):
        timesformer.init_from_vit(new(), file)
    write(vit_weights(positions=15), file)
    with pytest.raises(WeightsError, match="15 positions are not those of CLS and a square of patches"):
        timesformer.init_from_vit(new(), file)
    with pytest.raises(WeightsError, match="nowhere: no such file or folder, nor the id"):
        timesformer.init_from_vit(new(), "nowhere")
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    with pytest.raises(WeightsError, match="timm/nothing: no file or folder here"):
        timesformer.init_from_vit(new(), "timm/nothing")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(WeightsError, match=r"no model.safetensors or pytorch_model.bin in this folder"):
        timesformer.init_from_vit(new(), tmp_path)


def test_nothing_is_changed_by_a_source_that_does_not_fit(tmp_path: Path) -> None:
    model = new(depth=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError):
        timesformer.init_from_vit(model, write(vit_weights(), tmp_path / "vit.pth"))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
