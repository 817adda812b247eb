from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import nn

import timesformer
from timesformer.model.attention import SCHEMES
from timesformer.model.timesformer import DropPath

SMALL: dict[str, Any] = {
    "num_classes": 5, "num_frames": 4, "image_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3,
}  # fmt: skip


def make(**options: Any) -> timesformer.TimeSformer:
    torch.manual_seed(0)
    model = timesformer.create_model("timesformer_tiny", **{**SMALL, **options}).eval()
    for parameter in model.parameters():  # new layers that start at zero would hide mistakes
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def naive_attention(model: Any, prefix: str, block: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention of one block over all tokens (n, d), `mask` (n, n) saying which attend to which."""
    attn = getattr(block, f"{prefix}attn")
    h = getattr(block, f"{prefix}norm1")(x)
    q, k, v = rearrange(attn.qkv(h), "n (qkv head d) -> qkv head n d", qkv=3, head=attn.num_heads)
    scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
    out = attn.proj(rearrange(scores.softmax(-1) @ v, "head n d -> n (head d)"))
    return getattr(block, f"{prefix}fc")(out) if prefix else out


@pytest.mark.parametrize(("frames", "height", "width"), [(4, 32, 32), (3, 24, 40), (1, 16, 8)])
def test_divided_attention_is_the_dense_definition(frames: int, height: int, width: int) -> None:
    """Every token written out: the same patch in all frames, then all patches of the frame with a CLS of its own."""
    model = make()
    clip = torch.randn(1, 3, frames, height, width)
    tokens, grid = model.embed(clip)
    assert grid == {"t": frames, "h": height // 8, "w": width // 8}
    patches = grid["h"] * grid["w"]
    frame = torch.arange(frames).repeat_interleave(patches)
    place = torch.arange(patches).repeat(frames)
    x = tokens[0]
    for block in model.blocks:
        cls, p = x[:1], x[1:]
        p = p + naive_attention(model, "temporal_", block, p, place[:, None] == place[None, :])
        # A copy of CLS joins each frame; the copies stand first.
        owner = torch.cat([torch.arange(frames), frame])
        update = naive_attention(model, "", block, torch.cat([cls.repeat(frames, 1), p]), owner[:, None] == owner)
        x = torch.cat([cls + update[:frames].mean(0, keepdim=True), p + update[frames:]])
        x = x + block.mlp(block.norm2(x))
    torch.testing.assert_close(model.tokens(clip)[0], x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", SCHEMES)
def test_clips_of_other_sizes_and_lengths(attention: str) -> None:
    model = make(attention=attention)
    for frames, height, width in ((4, 32, 32), (1, 32, 32), (7, 32, 32), (2, 64, 16), (3, 40, 56)):
        assert model(torch.randn(2, 3, frames, height, width)).shape == (2, 5)


@pytest.mark.parametrize("attention", SCHEMES)
def test_samples_of_a_batch_do_not_touch(attention: str) -> None:
    model = make(attention=attention)
    clips = torch.randn(3, 3, 4, 32, 32)
    torch.testing.assert_close(model(clips)[1:2], model(clips[1:2]), atol=1e-5, rtol=1e-5)


def test_only_space_only_is_blind_to_the_order_of_frames() -> None:
    clip = torch.randn(1, 3, 4, 32, 32)
    for attention in SCHEMES:
        model = make(attention=attention)
        moved = (model(clip) - model(clip.flip(2))).abs().max()
        assert (moved < 1e-5) == (attention == "space_only"), attention


def test_non_square_models() -> None:
    model = make(image_size=(16, 40))
    assert model.pos_embed.shape == (1, 1 + 2 * 5, 48)
    assert model(torch.randn(1, 3, 4, 16, 40)).shape == (1, 5)
    with torch.no_grad():
        model.pos_embed.normal_()
    # The same number of patches in another shape is another grid: positions must be resized, not reinterpreted.
    assert not torch.equal(model._space_positions(5, 2), model.pos_embed[:, 1:])


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = timesformer.create_model("timesformer_tiny", num_classes=400)
    parameters = dict(model.named_parameters())
    assert model.time_embed is not None
    assert model.time_embed.abs().max() == 0
    for name, value in parameters.items():
        if name.endswith("_fc.weight") or (name.endswith("bias") and "patch_embed" not in name):
            assert value.abs().max() == 0, name
        elif "norm" in name:
            assert value.min() == value.max() == 1, name
        elif name != "time_embed" and "patch_embed" not in name:
            assert value.std().item() == pytest.approx(0.02, rel=0.15), name
    assert [round(block.drop_path.p, 4) for block in model.blocks] == [round(0.1 * i / 11, 4) for i in range(12)]


def test_new_divided_model_ignores_time_attention() -> None:
    """The new step's last layer is zero, so that a model from image weights starts as the image model."""
    model = timesformer.create_model("timesformer_tiny", **SMALL).eval()
    clip = torch.randn(1, 3, 4, 32, 32)
    before = model(clip)
    for block in model.blocks:
        torch.nn.init.normal_(block.temporal_attn.proj.weight)
    torch.testing.assert_close(model(clip), before)


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 3, 2)
    out = drop(x)
    kept = out[:, 0, 0] > 0
    assert torch.equal(out, x * kept[:, None, None] / 0.75)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert drop.eval()(x) is x


def test_activation_checkpointing_changes_nothing() -> None:
    clip = torch.randn(2, 3, 4, 32, 32)
    gradients = []
    for checkpointing in (False, True):
        model = make(drop_path=0.5).train()
        model.activation_checkpointing = checkpointing
        torch.manual_seed(1)
        model(clip).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("cls_attention", ["released", "equations"])
@pytest.mark.parametrize(
    ("attention", "order"),
    [*((scheme, "time_space") for scheme in SCHEMES), ("divided_space_time", "space_time"),
     ("divided_space_time", "parallel")],
)  # fmt: skip
def test_what_training_leaves_out_changes_nothing(attention: str, order: str, cls_attention: str) -> None:
    """Training folds matrices, and its last block goes on with CLS alone."""
    model = make(attention=attention, order=order, cls_attention=cls_attention, drop_path=0.0)
    clip = torch.randn(2, 3, 4, 32, 32)
    expected, found = model(clip), model.train()(clip)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    weights = torch.randn_like(expected)
    for name, mine, its in zip(
        dict(model.named_parameters()),
        torch.autograd.grad(found, list(model.parameters()), weights),
        torch.autograd.grad(expected, list(model.parameters()), weights),
        strict=True,
    ):
        assert (mine - its).norm() <= 1e-4 * (1e-3 + its.norm()), name


def test_layers_that_others_put_in_are_used_in_training() -> None:
    """As adapters do, which keep a layer and add to it."""

    class Adapted(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + x.sum(dim=-1, keepdim=True)

    for name in ("attn.qkv", "temporal_attn.proj", "temporal_fc"):
        model = make(drop_path=0.0)
        for block in model.blocks:
            parent, _, child = name.rpartition(".")
            owner = block.get_submodule(parent)
            setattr(owner, child, Adapted(getattr(owner, child)))
        clip = torch.randn(2, 3, 4, 32, 32)
        torch.testing.assert_close(model.train()(clip), model.eval()(clip), atol=1e-4, rtol=1e-4)


def test_no_head() -> None:
    model = make(num_classes=0)
    clip = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(model(clip), model.features(clip))


@pytest.mark.parametrize(("positions", "place_matters", "order_matters"), [
    ("none", False, False), ("space", True, False), ("space_time", True, True),
])  # fmt: skip
def test_positions(positions: str, place_matters: bool, order_matters: bool) -> None:
    """Table 4: what a model without positions cannot tell apart."""
    model = make(positions=positions, attention="joint_space_time")
    clip = torch.randn(1, 3, 4, 32, 32)
    patches = rearrange(clip, "b c t (h p) (w q) -> b c t (h w) p q", p=8, q=8)
    moved = rearrange(patches.flip(3), "b c t (h w) p q -> b c t (h p) (w q)", h=4)
    assert ((model(moved) - model(clip)).abs().max() > 1e-5) == place_matters
    assert ((model(clip.flip(2)) - model(clip)).abs().max() > 1e-5) == order_matters
    names = dict(model.named_parameters())
    assert ("pos_embed" in names, "time_embed" in names) == (positions != "none", positions == "space_time")
    for scheme in SCHEMES:
        assert make(positions=positions, attention=scheme)(torch.randn(2, 3, 3, 40, 16)).shape == (2, 5)


def test_head_with_a_hidden_layer() -> None:
    model = make(head_hidden_dim=20)
    clip = torch.randn(2, 3, 4, 32, 32)
    hidden = torch.nn.functional.gelu(model.features(clip) @ model.head[0].weight.T + model.head[0].bias)
    torch.testing.assert_close(model(clip), hidden @ model.head[2].weight.T + model.head[2].bias)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_number_of_channels(channels: int) -> None:
    assert make(in_channels=channels)(torch.randn(1, channels, 4, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_computed_on_the_way(scheme: str) -> None:
    model = make(attention=scheme)
    clip = torch.randn(2, 3, 3, 32, 40)
    first, last = model.intermediate(clip, [0, -1])
    assert first.cls.shape == (2, 48)
    assert first.patches.shape == (2, 3, 4, 5, 48)
    torch.testing.assert_close(last.cls, model.features(clip))
    torch.testing.assert_close(last.frames, last.patches.mean(dim=(2, 3)))
    tokens = model.tokens(clip).reshape(2, -1, 48)
    torch.testing.assert_close(model.intermediate(clip, norm=False)[0].patches[1, 2, 3, 4], tokens[1, -1])
    one_block = make(attention=scheme, depth=1)
    one_block.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("blocks.1.")})
    torch.testing.assert_close(first.cls, one_block.features(clip))
    with pytest.raises(ValueError, match="block 2 is not one of the model's: -2 to 1"):
        model.intermediate(clip, [2])


def test_every_name_makes_its_model() -> None:
    sizes = {
        "tiny": (192, 12, 3, 8, 224), "small": (384, 12, 6, 8, 224), "base": (768, 12, 12, 8, 224),
        "large": (1024, 24, 16, 8, 224), "hr": (768, 12, 12, 16, 448), "long": (768, 12, 12, 96, 224),
    }  # fmt: skip
    for name, (dim, depth, heads, frames, side) in sizes.items():
        with torch.device("meta"):
            config = timesformer.create_model(f"timesformer_{name}", patch_size=32).config
        assert (config.embed_dim, config.depth, config.num_heads) == (dim, depth, heads)
        assert (config.num_frames, config.image_size, config.patch_size) == (frames, side, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "axial", "order": "parallel"}, "order='parallel' is for attention='divided_space_time'"),
        ({"order": "both"}, "order='both' is not one of time_space, space_time, parallel"),
        ({"positions": "time"}, "positions='time' is not one of none, space, space_time"),
        ({"cls_attention": "paper"}, "cls_attention='paper' is not one of released, equations"),
        ({"head_hidden_dim": -1}, "head_hidden_dim=-1 must be a whole number from 0 up"),
        ({"attention": "divided"}, "attention='divided' is not one of space_only, joint_space_time"),
        ({"patch_size": 7}, "height and width must be multiples of patch_size=7"),
        ({"image_size": (32, 36)}, "frames of 32x36 px"),
        ({"num_heads": 5}, "embed_dim=48 must be a multiple of num_heads=5"),
        ({"num_frames": 0}, "num_frames=0 must be a whole number from 1 up"),
        ({"depth": "two"}, "depth='two' must be a whole number"),
        ({"image_size": 64.5}, "image_size=64.5 must be one or two whole numbers"),
        ({"image_size": (32, 32, 32)}, "must be one or two whole numbers"),
        ({"drop_path": 1.0}, r"drop_path=1.0 must be a number from 0 below 1"),
        ({"drop_path": "a"}, "drop_path='a' must be a number"),
        ({"mlp_ratio": -1}, "mlp_ratio=-1 must be a number above 0"),
        ({"mlp_ratio": "abc"}, "mlp_ratio='abc' must be a number above 0"),
        ({"attention": [1]}, "attention=.1. is not one of"),
        ({"num_classes": -1}, "num_classes=-1 must be a whole number from 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timesformer.create_model("timesformer_tiny", **{**SMALL, **options})


def test_wrong_names() -> None:
    with pytest.raises(ValueError, match="model 'vit' is not one of timesformer_tiny"):
        timesformer.create_model("vit")
    with pytest.raises(ValueError, match="model option 'classes' is not one of num_classes"):
        timesformer.create_model("timesformer_tiny", classes=3)


@pytest.mark.parametrize("shape", [(3, 4, 32, 32), (1, 1, 4, 32, 32), (0, 3, 4, 32, 32), (1, 3, 4, 30, 32)])
def test_wrong_clips(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 3, F, H, W\)|must be multiples of patch_size=8"):
        make()(torch.randn(shape))


def test_clips_that_were_not_normalised() -> None:
    with pytest.raises(ValueError, match=r"clip of torch.uint8: expected normalised floats"):
        make()(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8))
