"""Attention rollout against the product of whole matrices, formed from the definition of each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

import timesformer
from tests.model.test_attention import dense_mask
from timesformer.explain.rollout import rollout
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
    """Attention (N, N) with its heads averaged; rows without a key are zero."""
    q, k = (rearrange(x, "n (head d) -> head n d", head=heads) for x in (q, k))
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return logits.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0).mean(0)


def matrix(block: Any, prefix: str, step: Any, x: Tensor, grid: Grid) -> Tensor:
    """The attention (1 + patches, 1 + patches) of one step on tokens (1 + patches, D), from its definition."""
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
        rows.append(softmax(q, k, alone, attn.num_heads)[0])
    result[0] = torch.stack(rows).mean(0)
    return result


def dense_rollout(model: timesformer.TimeSformer, clip: Tensor) -> Tensor:
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
                matrices.append(matrix(block, prefix, step, x if block.parallel else inner, grid))
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


def test_rollout_leaves_the_model_as_it_was() -> None:
    model = make({"attention": "divided_space_time"})
    with torch.inference_mode():
        rollout(model, torch.randn(1, 3, 4, 24, 24, dtype=torch.float64))
    assert all(parameter.grad is None for parameter in model.parameters())
