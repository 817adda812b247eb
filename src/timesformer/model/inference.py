"""The same function, sooner: a model rewritten for inference by exact algebra, its weights laid out for the machine.

- The scale and shift of each LayerNorm, and the `fc` behind each further attention step's projection, become part of
  the matrices beside them.
- Of the last block only CLS is wanted: there its query alone is asked, and its MLP alone is run.
- Divided attention keeps a copy of CLS with each frame, tokens as (b t) (1 + n) d: the step over space is a view, and
  the one over time a matter of strides; tokens are never moved.

The plain model is the definition: the prepared one is tested equal to it for every scheme and option.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from timesformer.model.attention import Attention, Grid, Neighbourhood, Partition, attend
from timesformer.model.base import VideoModel
from timesformer.model.linear import InferenceLinear
from timesformer.model.timesformer import Block, TimeSformer

Dtype = Literal["float32", "bfloat16"]


def prepare(model: TimeSformer, dtype: Dtype = "float32", *, compile: bool = False) -> Prepared:
    """A frozen model with the same outputs, computed faster.

    Args:
        model: what to prepare; it is left as it is.
        dtype: of weights and computation: `float32` (equal up to rounding) or `bfloat16`.
        compile: put it through `torch.compile` as well.

    Returns:
        A model for inference alone: clips (B, in_channels, F, H, W) in, float32 logits (B, num_classes) out.

    Raises:
        ValueError: an unknown dtype.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype={dtype!r} is not one of float32, bfloat16")
    prepared = Prepared(model, getattr(torch, dtype))
    if compile:
        prepared.compile()
    return prepared


class Prepared(VideoModel):
    """What `prepare` returns."""

    architecture = "timesformer"

    def __init__(self, model: TimeSformer, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = model.config
        self.classes, self.multi_label, self.preprocessing = model.classes, model.multi_label, model.preprocessing
        self.dtype = dtype
        self.per_frame = model.config.attention == "divided_space_time" and model.config.released_cls
        # The plain model's own embedding, final norm and head; its blocks are replaced.
        plain = copy.deepcopy(model).eval().requires_grad_(False).to(dtype)
        blocks = [block for block in model.blocks if isinstance(block, Block)]
        step = PerFrame if self.per_frame else Whole
        self.blocks = [PreparedBlock(block, dtype, step) for block in blocks]
        plain.blocks = nn.ModuleList()
        self.plain = plain

    @torch.inference_mode()
    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.plain.head(self._features(clip))
        return logits.float()

    @torch.inference_mode()
    def features(self, clip: Tensor) -> Tensor:
        return self._features(clip).float()

    def _features(self, clip: Tensor) -> Tensor:
        x, grid = self.plain.embed(clip.to(self.dtype))
        if self.per_frame:
            frames = rearrange(x[:, 1:], "b (t n) d -> (b t) n d", t=grid["t"])
            x = torch.cat([repeat(x[:, :1], "b 1 d -> (b t) 1 d", t=grid["t"]), frames], dim=1)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, grid)
        cls = last.cls(x, grid)
        return self.plain._normed_cls(cls[:, None], len(clip))


class PreparedBlock:
    """A block without the parameters of its norms, and without `fc`."""

    def __init__(self, block: Block, dtype: torch.dtype, kind: type[Step]) -> None:
        self.parallel = block.parallel
        self.steps = [kind(block, prefix, step, dtype) for prefix, step in block.steps]
        self.fc1 = _linear(*_behind_norm(block.norm2, block.mlp.fc1), dtype)
        self.fc2 = _linear(block.mlp.fc2.weight, block.mlp.fc2.bias, dtype)

    def __call__(self, x: Tensor, grid: Grid) -> Tensor:
        start = x
        for step in self.steps:
            x = step(start if self.parallel else x, x, grid)
        return self._mlp(x)

    def cls(self, x: Tensor, grid: Grid) -> Tensor:
        """What the block makes of CLS alone: (sequences, D), or for tokens by frame (clips, D)."""
        steps = [step for step in self.steps if step.moves_cls]
        if self.parallel:
            cls = steps[0].cls_of(x, grid)
            for step in steps:
                cls = step.cls(x, cls, grid)
            return self._mlp(cls)
        # Steps before the last that moves CLS change what its keys and values are; those after it change nothing.
        for step in self.steps:
            if step is steps[-1]:
                break
            x = step(x, x, grid)
        return self._mlp(steps[-1].cls(x, steps[-1].cls_of(x, grid), grid))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.fc2.add_to(x, self.fc1.gelu(_normalise(x)))


class Step:
    """An attention step, on tokens that are laid out in one way or another.

    Attributes:
        moves_cls: whether CLS takes part.
    """

    moves_cls = True

    def __init__(self, block: Block, prefix: str, neighbourhood: Neighbourhood, dtype: torch.dtype) -> None:
        attn = block.get_submodule(f"{prefix}attn")
        norm = block.get_submodule(f"{prefix}norm1")
        assert isinstance(attn, Attention)
        assert isinstance(norm, nn.LayerNorm)
        self.neighbourhood = neighbourhood
        self.num_heads = attn.num_heads
        weight, bias = _behind_norm(norm, attn.qkv)
        self.q, self.k, self.v = (_linear(*part, dtype) for part in zip(weight.chunk(3), bias.chunk(3), strict=True))
        weight, bias = attn.proj.weight.double(), attn.proj.bias.double()
        if prefix:
            fc = block.get_submodule(f"{prefix}fc")
            assert isinstance(fc, nn.Linear)
            weight, bias = fc.weight.double() @ weight, fc.weight.double() @ bias + fc.bias.double()
        self.out = _linear(weight, bias, dtype)

    def __call__(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        """`residual` and what the step makes of the tokens `x`, both (sequences, tokens, D)."""
        raise NotImplementedError

    def cls_of(self, x: Tensor, grid: Grid) -> Tensor:
        """CLS of each sequence, or for tokens by frame of each clip."""
        raise NotImplementedError

    def cls(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        """As a call, of CLS alone, whose `residual` is as `cls_of` gives it."""
        raise NotImplementedError


class Whole(Step):
    """A step on tokens as the plain model has them: CLS, then the patches as (t h w)."""

    def __call__(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        normed = _normalise(x)
        q, k, v = self.q(normed), self.k(normed), self.v(normed)
        if _is_all(self.neighbourhood, grid):
            mixed = attend(q, k, v, self.num_heads)
        else:
            cls = attend(q[:, :1], k, v, self.num_heads)
            mixed = torch.cat([cls, self.neighbourhood.attend(q[:, 1:], k, v, self.num_heads, grid)], dim=1)
        return self.out.add_to(residual, mixed)

    def cls_of(self, x: Tensor, grid: Grid) -> Tensor:
        return x[:, 0]

    def cls(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        normed = _normalise(x)
        mixed = attend(self.q(normed[:, :1]), self.k(normed), self.v(normed), self.num_heads)
        return self.out.add_to(residual, mixed[:, 0])


class PerFrame(Step):
    """A step of divided attention on tokens by frame, (b t) (1 + n) d, each frame with its copy of CLS."""

    def __init__(self, block: Block, prefix: str, neighbourhood: Neighbourhood, dtype: torch.dtype) -> None:
        super().__init__(block, prefix, neighbourhood, dtype)
        self.moves_cls = neighbourhood.name == "spatial"

    def __call__(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        normed = _normalise(x)
        q, k, v = self.q(normed), self.k(normed), self.v(normed)
        if self.moves_cls:
            out = self.out.add_to(residual, attend(q, k, v, self.num_heads))
            cls = rearrange(out[:, 0], "(b t) d -> b t d", t=grid["t"])
            cls.copy_(cls.mean(dim=1, keepdim=True).expand_as(cls))
        else:
            mixed = attend_over_time(q, k, v, self.num_heads, grid["t"])
            out = self.out.add_to(residual, mixed)
            out[:, 0] = residual[:, 0]
        return out

    def cls_of(self, x: Tensor, grid: Grid) -> Tensor:
        return x[:: grid["t"], 0]

    def cls(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        normed = _normalise(x)
        mixed = attend(self.q(normed[:, :1]), self.k(normed), self.v(normed), self.num_heads)
        mean = rearrange(mixed[:, 0], "(b t) d -> b t d", t=grid["t"]).mean(dim=1)
        return self.out.add_to(residual, mean)


def attend_over_time(q: Tensor, k: Tensor, v: Tensor, num_heads: int, t: int) -> Tensor:
    """Attention of each place of a frame to the same place in all frames: (b t) m d, and so the output.

    One batched product for all places and heads, read and written where they lie.
    """
    out = torch.empty_like(q)
    scale = (q.shape[-1] // num_heads) ** -0.5
    for clip in range(0, len(q), t):
        queries, keys, values, mixed = (
            x[clip : clip + t].view(t, x.shape[1] * num_heads, -1).transpose(0, 1) for x in (q, k, v, out)
        )
        scores = torch.baddbmm(queries.new_empty(()), queries, keys.transpose(1, 2), beta=0, alpha=scale)
        torch.bmm(scores.softmax(dim=-1), values, out=mixed)
    return out


def _is_all(neighbourhood: Neighbourhood, grid: Grid) -> bool:
    """Whether the step is attention of all tokens of a sequence to all."""
    return isinstance(neighbourhood, Partition) and neighbourhood.num_groups(grid) == 1


def _normalise(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _behind_norm(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer that take over the scale and shift of the norm before it."""
    weight = linear.weight.double()
    return weight * norm.weight.double(), linear.bias.double() + weight @ norm.bias.double()


def _linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> InferenceLinear:
    return InferenceLinear(weight.detach(), bias.detach(), dtype)
