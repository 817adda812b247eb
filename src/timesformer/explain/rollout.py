"""What the output token is made of: attention rollout and its kin (Figure 7 of the paper).

Attention rollout (Abnar and Zuidema, 2020): every attention step mixes tokens by a matrix A, its heads fused, and adds
the residual; rollout takes the step for (A + I), its rows scaled to sum 1, and multiplies the steps of all blocks.
Only the row of the output token is wanted, so it is carried from the last step to the first: a row times a matrix is
the gradient of a step's weighted sum with regard to its values. The model's own code for each scheme and each rule of
CLS computes that sum, so that what is rolled out is what the model does, and no matrix of all tokens by all tokens is
ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer.model.attention import Attention, Grid, Mix, Neighbourhood, Partition, attend
from timesformer.model.timesformer import Block, TimeSformer

Fusion = Literal["mean", "max", "min"]


@torch.inference_mode(False)
def rollout(model: TimeSformer, clip: Tensor, *, heads: Fusion = "mean") -> Tensor:
    """The share of each patch in the output token, by attention rollout.

    Args:
        model: in evaluation mode.
        clip: normalised clips (B, in_channels, F, H, W).
        heads: how the heads of a step are fused; `mean` needs least memory.

    Returns:
        Shares (B, T, H', W') of the patch grid, each 0 or more; with what is CLS's own they sum to 1 for a clip.

    Raises:
        ValueError: an unknown fusion.
    """
    if heads not in ("mean", "max", "min"):
        raise ValueError(f"heads={heads!r} is not one of mean, max, min")
    num_heads = model.config.num_heads
    fuse = _Fuse(partial(_fused, num_heads=num_heads, how=heads)) if heads != "mean" else _mean(num_heads)
    return _carry(model, clip.clone() if clip.is_inference() else clip, fuse)


@torch.inference_mode(False)
def class_relevance(model: TimeSformer, clip: Tensor, classes: Sequence[int]) -> Tensor:
    """The share of each patch in the score of a class, by gradient-weighted attention (Chefer et al., 2021).

    As rollout, but a head's attention counts as far as more of it would raise the class's logit: A is the mean over
    heads of the positive part of gradient times attention, and a step is A + I as it is.

    Args:
        model: in evaluation mode.
        clip: normalised clips (B, in_channels, F, H, W).
        classes: the class of each clip that is asked for.

    Returns:
        Shares (B, T, H', W') of the patch grid, each 0 or more, that sum to 1 for a clip.
    """
    clip = clip.clone() if clip.is_inference() else clip.detach()
    with torch.enable_grad(), _mixtures(model) as mixtures:
        wanted = torch.tensor(classes, device=clip.device)[:, None]
        score = model(clip.requires_grad_()).gather(1, wanted).sum()
    gradients = torch.autograd.grad(score, mixtures, allow_unused=True)
    moved = [
        torch.zeros_like(mixture) if gradient is None else gradient
        for mixture, gradient in zip(mixtures, gradients, strict=True)
    ]
    fuse = _Fuse(partial(_relevant, num_heads=model.config.num_heads), scaled=False)
    shares = _carry(model, clip.detach(), fuse, moved)
    return shares / shares.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)


@torch.inference_mode(False)
def attention_of(
    model: TimeSformer, clip: Tensor, block: int, step: str, query: tuple[int, int, int] | None = None
) -> Tensor:
    """What one patch, or CLS, attends to in one step of one block.

    Args:
        model: in evaluation mode.
        clip: normalised clips (B, in_channels, F, H, W).
        block: number of the block, from 0.
        step: name of the step, such as `temporal` or `spatial`.
        query: frame, row and column of the patch; None is CLS, of whose copies it is the mean.

    Returns:
        Weights (B, heads, T, H', W') of the patches; with that of CLS they sum to 1.

    Raises:
        ValueError: a block, step or patch that there is not.
    """
    names = [neighbourhood.name for _, neighbourhood in model.config.steps]
    if not 0 <= block < len(model.blocks) or step not in names:
        raise ValueError(
            f"block={block}, step={step!r}: there are blocks 0..{len(model.blocks) - 1}, steps {', '.join(names)}"
        )
    with torch.no_grad():
        inputs, grid = _inputs(model, clip.clone() if clip.is_inference() else clip)
        sequences, x = len(inputs[block]) // len(clip), inputs[block]
        t, h, w = query or (0, 0, 0)
        if not (0 <= t < grid["t"] * sequences and 0 <= h < grid["h"] and 0 <= w < grid["w"]):
            raise ValueError(f"query={query} is outside {grid['t'] * sequences} x {grid['h']} x {grid['w']} patches")
        heads, layer = model.config.num_heads, _blocks(model)[block]
        place, tokens = names.index(step), x
        for (prefix, neighbourhood), _ in zip(layer.steps, range(place), strict=False):
            tokens = tokens if layer.parallel else tokens + layer.update(prefix, neighbourhood, tokens, grid)
        row = torch.zeros(*x.shape[:2], heads, dtype=x.dtype, device=x.device)
        if query is None:
            row[:, 0] = 1 / sequences
        else:
            within = ((t % grid["t"]) * grid["h"] + h) * grid["w"] + w
            row[t // grid["t"] :: sequences, 1 + within] = 1
        prefix, neighbourhood = layer.steps[place]
        weights, _ = _times(row, layer, prefix, neighbourhood, tokens, grid, partial(attend, num_heads=heads))
    pattern = "(b s) (t h w) head -> b head (s t) h w"
    return rearrange(weights[:, 1:], pattern, b=len(clip), **grid)


@dataclass(frozen=True)
class _Fuse:
    """How the heads of a step become one matrix.

    Attributes:
        mix: sums of values (groups, keys, columns) by that matrix's weights.
        columns: of the values.
        scaled: whether the rows of A + I are scaled to sum 1.
    """

    mix: Mix
    columns: int = 1
    scaled: bool = True


def _mean(num_heads: int) -> _Fuse:
    """The mean of the heads, each of which has a column of its own: PyTorch's own attention, however large."""
    return _Fuse(partial(attend, num_heads=num_heads), columns=num_heads)


def _weights(q: Tensor, k: Tensor, num_heads: int) -> Tensor:
    """Attention (groups, heads, queries, keys)."""
    q, k = (rearrange(x, "g n (head d) -> g head n d", head=num_heads) for x in (q, k))
    weights: Tensor = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return weights


def _fused(q: Tensor, k: Tensor, v: Tensor, num_heads: int, how: Fusion) -> Tensor:
    weights = _weights(q, k, num_heads)
    fused = weights.amax(dim=1) if how == "max" else weights.amin(dim=1)
    return fused @ v


def _relevant(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """Of queries with the gradient of what they give, and keys with their values: both twice as wide."""
    q, gradient = q.chunk(2, dim=-1)
    k, values = k.chunk(2, dim=-1)
    gradient, values = (rearrange(x, "g n (head d) -> g head n d", head=num_heads) for x in (gradient, values))
    relevance: Tensor = (_weights(q, k, num_heads) * (gradient @ values.transpose(-1, -2))).clamp(min=0).mean(dim=1)
    return relevance @ v


def _carry(model: TimeSformer, clip: Tensor, fuse: _Fuse, gradients: Sequence[Tensor] = ()) -> Tensor:
    """Carry the row of the output token through all blocks to the patches: (B, T, H', W')."""
    with torch.no_grad():
        inputs, grid = _inputs(model, clip)
        *befores, last = inputs
        row = torch.zeros(last.shape[:2], dtype=last.dtype, device=last.device)
        row[:, 0] = len(clip) / len(last)  # where frames are apart, the mean of their CLS
        left = list(gradients)
        for block, x in zip(reversed(_blocks(model)), reversed(befores), strict=True):
            ours = [left.pop() for _ in block.steps][::-1] if left else [None] * len(block.steps)
            row = _through(block, x, row, grid, fuse, ours)
    return rearrange(row[:, 1:], "(b s) (t h w) -> b (s t) h w", b=len(clip), **grid)


def _inputs(model: TimeSformer, clip: Tensor) -> tuple[list[Tensor], Grid]:
    """The tokens before each block and after the last."""
    x, grid = model.embed(clip)
    inputs = [x]
    for block in model.blocks:
        inputs.append(block(inputs[-1], grid))
    return inputs, grid


def _blocks(model: TimeSformer) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def _through(
    block: Block, x: Tensor, row: Tensor, grid: Grid, fuse: _Fuse, gradients: Sequence[Tensor | None]
) -> Tensor:
    """Carry a row (B, N) of the output of a block to its input `x` (B, N, D)."""
    steps: list[Callable[[Tensor], tuple[Tensor, Tensor]]] = []
    for (prefix, step), gradient in zip(block.steps, gradients, strict=True):
        steps.append(partial(_fused_times, fuse, block, prefix, step, x, grid, gradient))
        if not block.parallel:
            x = x + block.update(prefix, step, x, grid)
    if block.parallel:  # both steps read the block's input: the matrix is the sum of theirs and I
        if fuse.scaled:
            row = row / (1 + sum(times(row)[1] for times in steps))
        return row + sum(times(row)[0] for times in steps)
    for times in reversed(steps):
        if fuse.scaled:
            row = row / (1 + times(row)[1])
        row = row + times(row)[0]
    return row


def _fused_times(
    fuse: _Fuse,
    block: Block,
    prefix: str,
    step: Neighbourhood,
    x: Tensor,
    grid: Grid,
    gradient: Tensor | None,
    row: Tensor,
) -> tuple[Tensor, Tensor]:
    """A row (B, N) times a step's matrix, heads fused, and the sums (B, N) of that matrix."""
    spread = row[..., None].expand(-1, -1, fuse.columns) / fuse.columns
    out, sums = _times(spread, block, prefix, step, x, grid, fuse.mix, gradient)
    return out.sum(dim=-1), sums.mean(dim=-1)


@torch.enable_grad()
def _times(
    row: Tensor,
    block: Block,
    prefix: str,
    step: Neighbourhood,
    x: Tensor,
    grid: Grid,
    mix: Mix,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rows (B, N, C) times a step's matrices, and the sums (B, N, C) of these: 1, or 0 where a token takes no part.

    `gradient` is that of the step's mixture of values, as the step groups them. Where CLS has a copy in each of several
    groups, whose outputs are averaged, it is that of a copy's output, a share of that of the average.
    """
    norm, attn = block.get_submodule(f"{prefix}norm1"), block.get_submodule(f"{prefix}attn")
    assert isinstance(attn, Attention)
    with torch.no_grad():
        q, k, v = attn.qkv(norm(x)).chunk(3, dim=-1)
    keys = k if gradient is None else torch.cat([k, v], dim=-1)
    values = torch.ones_like(row).requires_grad_()
    if block.released_cls:
        assert isinstance(step, Partition)

        def layer(tokens: Tensor) -> Tensor:
            q, k, v = tokens.split([x.shape[-1], keys.shape[-1], values.shape[-1]], dim=-1)
            return mix(q if of_outputs is None else torch.cat([q, of_outputs], dim=-1), k, v)

        of_outputs = gradient if gradient is None else _of_averages(gradient, step, grid)
        mixed = step.apply(layer, torch.cat([q, keys, values], dim=-1), grid)
    else:
        q = q if gradient is None else torch.cat([q, gradient], dim=-1)
        mixed = torch.cat([mix(q[:, :1], keys, values), step.attend(q[:, 1:], keys, values, mix, grid)], dim=1)
    (out,) = torch.autograd.grad(mixed, values, row)
    return out, mixed.detach()


def _of_averages(gradient: Tensor, step: Partition, grid: Grid) -> Tensor:
    """The gradient (groups, tokens, D) with that of the average of CLS's copies in place of that of each copy."""
    if not step.with_cls:
        return gradient
    return torch.cat([gradient[:, :1] * step.num_groups(grid), gradient[:, 1:]], dim=1)


@contextmanager
def _mixtures(model: TimeSformer) -> Iterator[list[Tensor]]:
    """A list that the inputs of all projections behind attention are put into, step by step, as the model runs."""
    found: list[Tensor] = []

    def keep(projection: nn.Module, inputs: tuple[Tensor]) -> None:
        found.append(inputs[0])

    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    hooks = [attention.proj.register_forward_pre_hook(keep) for attention in attentions]
    checkpointing, model.activation_checkpointing = model.activation_checkpointing, False
    try:
        yield found
    finally:
        model.activation_checkpointing = checkpointing
        for hook in hooks:
            hook.remove()
