"""Attention rollout: how much of each patch reaches the output (Abnar and Zuidema, 2020; Figure 7 of the paper).

Every attention step mixes tokens by a matrix A, its heads averaged, and adds the residual; rollout takes the step for
(A + I), its rows scaled to sum 1, and multiplies the steps of all blocks. Only the row of the output token is wanted,
so it is carried from the last step to the first: row times matrix is the gradient of a step's weighted sum with regard
to its values. The model's own code for each scheme and each rule of CLS computes that sum, so that what is rolled out
is what the model does, and no matrix of all tokens by all tokens is ever formed.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from timesformer.model.attention import Attention, Grid, Neighbourhood, Partition, attend
from timesformer.model.timesformer import Block, TimeSformer


@torch.inference_mode(False)
def rollout(model: TimeSformer, clip: Tensor) -> Tensor:
    """The share of each patch in the output token, by attention rollout.

    Args:
        model: in evaluation mode.
        clip: normalised clips (B, in_channels, F, H, W).

    Returns:
        Shares (B, T, H', W') of the patch grid, each 0 or more; with what is CLS's own they sum to 1 for a clip.
    """
    with torch.no_grad():
        x, grid = model.embed(clip.clone() if clip.is_inference() else clip)
        inputs: list[Tensor] = []
        for block in model.blocks:
            inputs.append(x)
            x = block(x, grid)
        row = torch.zeros(x.shape[:2], dtype=x.dtype, device=x.device)
        row[:, 0] = len(clip) / len(x)  # where frames are apart, the mean of their CLS
        for block, tokens in zip(reversed(model.blocks), reversed(inputs), strict=True):
            assert isinstance(block, Block)
            row = _through_block(block, tokens, row, grid)
    return rearrange(row[:, 1:], "(b s) (t h w) -> b (s t) h w", b=len(clip), **grid)


def _through_block(block: Block, x: Tensor, row: Tensor, grid: Grid) -> Tensor:
    """Carry a row (B, N) of the output of a block with input `x` (B, N, D) to that input."""
    before: list[Tensor] = []  # each step's input
    for prefix, step in block.steps:
        before.append(x)
        if not block.parallel:
            x = x + block.update(prefix, step, x, grid)
    steps = list(zip(block.steps, before, strict=True))
    if block.parallel:  # both steps read the block's input: the matrix is the sum of theirs and I
        parts = [_weighted(block, prefix, step, tokens, row, grid) for (prefix, step), tokens in steps]
        sums = 1 + sum(sums for _, sums in parts)
        scaled = row / sums
        return scaled + sum(_weighted(block, prefix, step, x, scaled, grid)[0] for (prefix, step), x in steps)
    for (prefix, step), tokens in reversed(steps):
        _, sums = _weighted(block, prefix, step, tokens, row, grid)
        scaled = row / (1 + sums)
        row = scaled + _weighted(block, prefix, step, tokens, scaled, grid)[0]
    return row


@torch.enable_grad()
def _weighted(
    block: Block, prefix: str, step: Neighbourhood, x: Tensor, row: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """A row (B, N) times a step's matrix, and the sums (B, N) of the matrix's rows: 1, or 0 for a token left out."""
    norm, attn = block.get_submodule(f"{prefix}norm1"), block.get_submodule(f"{prefix}attn")
    assert isinstance(attn, Attention)
    dim, heads = x.shape[-1], attn.num_heads
    with torch.no_grad():
        q, k, _ = attn.qkv(norm(x)).chunk(3, dim=-1)
    values = torch.ones(*x.shape[:2], heads, dtype=x.dtype, device=x.device, requires_grad=True)
    if block.released_cls:
        assert isinstance(step, Partition)

        def mix(tokens: Tensor) -> Tensor:
            return attend(tokens[..., :dim], tokens[..., dim : 2 * dim], tokens[..., 2 * dim :], heads)

        mixed = step.apply(mix, torch.cat([q, k, values], dim=-1), grid)
    else:
        cls = attend(q[:, :1], k, values, heads)
        mixed = torch.cat([cls, step.attend(q[:, 1:], k, values, heads, grid)], dim=1)
    cotangent = row[..., None].expand(-1, -1, heads) / heads
    (out,) = torch.autograd.grad(mixed, values, cotangent)
    return out.sum(dim=-1), mixed.detach().mean(dim=-1)
