"""Attention rollout against the product of whole matrices, formed from the definition of each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

import timesformer
from tests.model.test_attention import dense_mask
from timesformer.explain.rollout import attention_of, class_relevance, rollout
from timesformer.model.attention import Grid

MODELS: list[dict[str, Any]] = [
    {"attention": "space_only"},
    {"attention": "joint_space_time"},
    {"attention": "divided_space_time"},
    {"attention": "divided_space_time", "order": "space_time"},
    {"attention": "divided_space_time", "order": "parallel"},
    {"attention": "sparse_local_global"},
    {"attention": "axial"},
]
MODELS += [{**options, "cls_attention": "equations"} for options in MODELS[:4]]


def make(options: dict[str, Any]) -> timesformer.TimeSformer:
    torch.manual_seed(0)
    model = timesformer.create_model(
        "timesformer_tiny", depth=3, embed_dim=24, num_heads=3, image_size=24, patch_size=8, num_frames=4, **options
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def softmax(q: Tensor, k: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Attention (heads, N, N); rows without a key are zero."""
    q, k = (rearrange(x, "n (head d) -> head n d", head=heads) for x in (q, k))
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return logits.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0)


def matrix(block: Any, prefix: str, step: Any, x: Tensor, grid: Grid) -> Tensor:
    """The attention (heads, 1 + patches, 1 + patches) of a step on tokens (1 + patches, D), from its definition."""
    attn = block.get_submodule(f"{prefix}attn")
    q, k, _ = attn.qkv(block.get_submodule(f"{prefix}norm1")(x)).chunk(3, -1)
    mask = dense_mask(step.name, grid)
    if not block.released_cls:
        return softmax(q, k, mask, attn.num_heads)
    if step.name == "temporal":  # CLS takes no part
        mask[0], mask[:, 0] = False, False
        return softmax(q, k, mask, attn.num_heads)
    result = softmax(q, k, mask, attn.num_heads)
    groups = {tuple(row.nonzero().flatten().tolist()) for row in mask[1:, 1:]}
    rows = []
    for group in groups:  # a copy of CLS in each, their outputs averaged
        alone = torch.zeros_like(mask)
        alone[0, [0, *(1 + patch for patch in group)]] = True
        rows.append(softmax(q, k, alone, attn.num_heads)[:, 0])
    result[:, 0] = torch.stack(rows).mean(0)
    return result


def dense_rollout(model: timesformer.TimeSformer, clip: Tensor, heads: str = "mean") -> Tensor:
    sequences, grid = model.embed(clip)
    shares = []
    for x in sequences:
        product = torch.eye(len(x), dtype=x.dtype)
        for block in model.blocks:
            assert isinstance(block, torch.nn.Module)
            eye = torch.eye(len(x), dtype=x.dtype)
            inner = x
            matrices = []
            for prefix, step in block.steps:
                each = matrix(block, prefix, step, x if block.parallel else inner, grid)
                matrices.append({"mean": each.mean(0), "max": each.amax(0), "min": each.amin(0)}[heads])
                inner = inner + block.update(prefix, step, (x if block.parallel else inner)[None], grid)[0]
            for mixed in [sum(matrices)] if block.parallel else matrices:
                total = mixed + eye
                product = total / total.sum(-1, keepdim=True) @ product
            x = block(x[None], grid)[0]
        shares.append(product[0, 1:] * len(clip) / len(sequences))
    return rearrange(torch.stack(shares), "(b s) (t h w) -> b (s t) h w", b=len(clip), **grid)


@pytest.mark.parametrize("options", MODELS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("size", [(4, 24, 24), (3, 16, 40)])
def test_rollout_is_the_product_of_whole_matrices(options: dict[str, Any], size: tuple[int, int, int]) -> None:
    model = make(options)
    clip = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = dense_rollout(model, clip)
    shares = rollout(model, clip)
    assert shares.shape == expected.shape == (2, size[0], size[1] // 8, size[2] // 8)
    torch.testing.assert_close(shares, expected, atol=1e-12, rtol=0)
    assert (shares > 0).all()
    assert (shares.flatten(1).sum(1) < 1).all()


@pytest.mark.parametrize("heads", ["max", "min"])
@pytest.mark.parametrize("options", [MODELS[1], MODELS[-2], MODELS[5]])
def test_other_fusions_of_heads(options: dict[str, Any], heads: Any) -> None:
    """Where CLS has one copy; of several copies the mean of the fused ones is taken, not the fused mean."""
    model = make(options)
    clip = torch.randn(1, 3, 4, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        expected = dense_rollout(model, clip, heads)
    torch.testing.assert_close(rollout(model, clip, heads=heads), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("options", MODELS, ids=lambda options: "-".join(map(str, options.values())))
def test_the_attention_of_one_token(options: dict[str, Any]) -> None:
    model = make(options)
    clip = torch.randn(2, 3, 4, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        sequences, grid = model.embed(clip)
        block = model.blocks[0]
        x, apart = sequences[-1], model.config.frames_apart
        prefix, step = block.steps[0]
        expected = matrix(block, prefix, step, x, grid)
        frame = 0 if apart else 3
        whole = expected[:, 1 + (frame * 3 + 1) * 3 + 2, 1:].reshape(3, grid["t"], 3, 3)
    found = attention_of(model, clip, 0, step.name, (3, 1, 2))
    assert found.shape == (2, 3, 4, 3, 3)
    torch.testing.assert_close(found[1, :, -grid["t"] :], whole, atol=1e-12, rtol=0)
    if not apart:
        cls = attention_of(model, clip, 0, step.name)[1]
        torch.testing.assert_close(cls, expected[:, 0, 1:].reshape(3, 4, 3, 3), atol=1e-12, rtol=0)


def test_later_steps_read_what_earlier_ones_gave() -> None:
    model = make({"attention": "divided_space_time"})
    clip = torch.randn(1, 3, 4, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        x, grid = model.embed(clip)
        x = model.blocks[0](x, grid)
        block = model.blocks[1]
        (first, time), (second, space) = block.steps
        moved = x + block.update(first, time, x, grid)
        expected = matrix(block, second, space, moved[0], grid)[:, 1 + 9, 1:].reshape(3, 4, 3, 3)
    torch.testing.assert_close(attention_of(model, clip, 1, "spatial", (1, 0, 0))[0], expected, atol=1e-12, rtol=0)
    for block, step, query in ((3, "spatial", None), (0, "width", None), (0, "spatial", (4, 0, 0))):
        with pytest.raises(ValueError, match=r"block=|query="):
            attention_of(model, clip, block, step, query)


def dense_relevance(model: timesformer.TimeSformer, clip: Tensor, target: int) -> Tensor:
    """Gradient-weighted rollout by its definition, of one clip: every step is one matrix of all tokens for each head.

    The model is computed from these matrices, so that the gradient of the score with regard to an entry is that of what
    one token takes from another, CLS from a patch too, whatever copies of CLS the model has.
    """
    sequences, grid = model.embed(clip)
    kept: list[list[Tensor]] = []
    found = []
    for x in sequences:
        matrices = []
        for block in model.blocks:
            start = x
            for prefix, step in block.steps:
                tokens = start if block.parallel else x
                attn = block.get_submodule(f"{prefix}attn")
                whole = matrix(block, prefix, step, tokens, grid)
                whole.retain_grad()
                matrices.append(whole)
                values = attn.qkv(block.get_submodule(f"{prefix}norm1")(tokens)).chunk(3, -1)[2]
                mixed = whole @ rearrange(values, "n (head d) -> head n d", head=attn.num_heads)
                moved = attn.proj(rearrange(mixed, "head n d -> n (head d)"))
                fc = dict(block.named_modules()).get(f"{prefix}fc")
                moved = fc(moved) if fc is not None else moved
                if block.released_cls and step.name == "temporal":  # CLS takes no part, nor does a bias reach it
                    moved = torch.cat([torch.zeros_like(moved[:1]), moved[1:]])
                x = x + moved
            x = x + block.mlp(block.norm2(x))
        kept.append(matrices)
        found.append(x[0])
    cls = torch.stack(found).mean(0)
    logits = model.head(model.norm(cls[None]))[0]
    torch.testing.assert_close(logits, model(clip)[0], atol=1e-9, rtol=0)  # it is the model
    logits[target].backward()
    shares = []
    for matrices in kept:
        row = torch.zeros(len(matrices[0][0]), dtype=clip.dtype)
        row[0] = 1 / len(sequences)
        for whole in reversed(matrices):
            assert whole.grad is not None
            row = row + row @ (whole * whole.grad).clamp(min=0).mean(0).detach()
        shares.append(row[1:])
    patches = torch.stack(shares)
    return rearrange(patches / patches.sum(), "s (t h w) -> (s t) h w", **grid)


SEQUENTIAL = [options for options in MODELS if options.get("order") != "parallel"]


@pytest.mark.parametrize("options", SEQUENTIAL, ids=lambda options: "-".join(map(str, options.values())))
def test_class_relevance_is_gradient_times_attention(options: dict[str, Any]) -> None:
    model = make({**options, "num_classes": 5})
    clip = torch.randn(1, 3, 4, 24, 24, dtype=torch.float64)
    expected = dense_relevance(model, clip, 3)
    model.zero_grad()
    found = class_relevance(model, clip, [3])
    torch.testing.assert_close(found[0], expected, atol=1e-10, rtol=0)
    assert (class_relevance(model, clip, [1]) - found).abs().max() > 1e-3


@pytest.mark.parametrize("options", MODELS, ids=lambda options: "-".join(map(str, options.values())))
def test_class_relevance_of_every_scheme(options: dict[str, Any]) -> None:
    model = make({**options, "num_classes": 5})
    clip = torch.randn(2, 3, 4, 24, 24, dtype=torch.float64)
    shares = class_relevance(model, clip, [0, 4])
    assert shares.shape == (2, 4, 3, 3)
    torch.testing.assert_close(shares.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64))
    alone = class_relevance(model, clip[1:], [4])
    torch.testing.assert_close(shares[1:], alone)


def test_rollout_leaves_the_model_as_it_was() -> None:
    model = make({"attention": "divided_space_time"})
    with torch.inference_mode():
        rollout(model, torch.randn(1, 3, 4, 24, 24, dtype=torch.float64))
        class_relevance(model, torch.randn(1, 3, 4, 24, 24, dtype=torch.float64), [0])
    with pytest.raises(ValueError, match="heads='median' is not one of mean, max, min"):
        rollout(model, torch.randn(1, 3, 4, 24, 24, dtype=torch.float64), heads="median")  # type: ignore[arg-type]
    assert all(parameter.grad is None for parameter in model.parameters())
