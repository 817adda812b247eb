"""The same function, sooner: a model rewritten for inference by exact algebra, its weights laid out for the machine.

- The scale and shift of each LayerNorm, and the `fc` behind each further attention step's projection, become part of
  the matrices beside them.
- Of the last block only CLS is wanted: there its MLP alone is run, and its attention needs nobody's keys and values, as
  q (K x) = (q K) x, and a mixture of V x is V times a mixture of x.
- Divided attention keeps a copy of CLS with each frame, tokens as (b t) (1 + n) d: the step over space is a view, and
  the one over time a matter of strides; tokens are never moved.

The plain model is the definition: the prepared one is tested equal to it for every scheme and option.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from timesformer.model.attention import Attention, Grid, Mix, Neighbourhood, Partition, attend
from timesformer.model.base import FrozenModel, VideoModel, digest
from timesformer.model.layers import has_bfloat16, has_float8
from timesformer.model.linear import Float8Linear, Int8Linear, Linear, PackedLinear, PlainLinear, mlp, project
from timesformer.model.locality import (
    attend_over_time,
    frame_parts,
    in_parts,
    place_parts,
    row_parts,
)
from timesformer.model.plain import require_plain
from timesformer.model.timesformer import Block, ModelConfig, TimeSformer
from timesformer.model.tracing import is_traced

Dtype = Literal["float32", "bfloat16", "float8", "int8"]
Backend = Literal["torch", "openvino"]


def prepare(
    model: TimeSformer,
    dtype: Dtype = "float32",
    *,
    backend: Backend = "torch",
    compile: bool = False,
    calibration: Iterable[Tensor] = (),
) -> VideoModel:
    """A frozen model with the same outputs, computed faster, on the device that the model is on.

    Args:
        model: what to prepare; it is left as it is.
        dtype: of weights and computation: `float32` (equal up to rounding), `bfloat16`, or 8 bits for weights and
            inputs of the blocks' linear layers: on a CPU `int8` (attention is bfloat16, the rest float32), on a GPU
            of compute capability 8.9 or later `float8` (the rest bfloat16; on a CPU it is slow, and for tests).
        backend: what computes: `torch`, or on a CPU `openvino` (`pip install 'timesformer[openvino]'`).
        compile: put it through `torch.compile` as well.
        calibration: for `int8`, normalised clips (B, in_channels, F, H, W), a few dozen of the kind to be classified.

    Returns:
        A model for inference alone: clips (B, in_channels, F, H, W) in, float32 logits (B, num_classes) out.

    Raises:
        ValueError: an unknown dtype or backend, choices that do not go together, another model, or one with layers
            that are not plain (adapters, hooks, parametrizations, other kinds of layers), by their name.
        ImportError: the backend is not installed.
    """
    if not isinstance(model, TimeSformer):
        raise ValueError(f"what is prepared is a TimeSformer, not {type(model).__name__}")
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype={dtype!r} is not one of {', '.join(get_args(Dtype))}")
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r} is not one of {', '.join(get_args(Backend))}")
    require_plain(model)
    device = model.cls_token.device
    if device.type != "cpu" and (dtype == "int8" or backend == "openvino"):
        raise ValueError(f"dtype={dtype!r}, backend={backend!r}: for a model on a CPU, not on {device.type}")
    if compile and (dtype == "int8" or backend == "openvino"):
        raise ValueError(f"compile=True is for backend='torch' and not for int8: backend={backend!r}, dtype={dtype!r}")
    if dtype == "float8":
        _check_float8(model, device, backend)
    clips = list(calibration)
    if dtype == "int8" and not clips:
        raise ValueError("dtype='int8' needs calibration: normalised clips of the kind to be classified")
    fast = _rewritten(model, dtype, backend, compile, clips)
    fast.made_of = f"{digest(model)}, {dtype}, {backend}"
    return fast


def _rewritten(model: TimeSformer, dtype: Dtype, backend: Backend, compile: bool, clips: list[Tensor]) -> FrozenModel:
    if backend == "openvino":
        from timesformer.model.openvino import OnOpenVINO

        return OnOpenVINO(model, dtype, clips)
    if dtype == "int8":
        prepared = Prepared(model, torch.float32, PlainLinear)
        _calibrate(prepared, clips)
        return prepared
    if dtype == "float8":
        prepared = Prepared(model, torch.bfloat16, Float8Linear)
    else:
        packed = not compile and model.cls_token.device.type == "cpu" and torch.backends.mkldnn.is_available()
        packed = packed and (dtype == "float32" or has_bfloat16())
        prepared = Prepared(model, getattr(torch, dtype), PackedLinear if packed else PlainLinear)
    if compile:
        prepared.compile()
    return prepared


def _check_float8(model: TimeSformer, device: torch.device, backend: Backend) -> None:
    if backend != "torch":
        raise ValueError(f"dtype='float8' is for backend='torch', not {backend!r}")
    if not has_float8(device):
        raise ValueError(f"dtype='float8': for a GPU of compute capability 8.9 or later, or a CPU, not this {device}")
    for name, weight in model.blocks.named_parameters():
        if (size := weight.shape[0]) % 16:
            raise ValueError(f"dtype='float8' needs sizes that are multiples of 16: blocks.{name} has {size}")


class Prepared(FrozenModel):
    """What `prepare` returns for the backend `torch`."""

    architecture = "timesformer"
    config: ModelConfig

    def __init__(self, model: TimeSformer, dtype: torch.dtype, linear: Callable[[Tensor, Tensor], Linear]) -> None:
        super().__init__(model)
        self.dtype = dtype
        self.per_frame = model.config.attention == "divided_space_time" and model.config.released_cls
        kind = PerFrame if self.per_frame else Whole

        def make(weight: Tensor, bias: Tensor) -> Linear:
            return linear(weight.detach().to(dtype), bias.detach().to(dtype))

        *blocks, last = [block for block in model.blocks if isinstance(block, Block)]
        self.blocks = [PreparedBlock(block, kind, make) for block in blocks]
        self.last = LastBlock(last, kind, make, dtype)
        # The plain model's own embedding, final norm and head.
        self.plain = copy.deepcopy(model).eval().requires_grad_(False).to(dtype)
        self.plain.blocks = nn.ModuleList()
        self.head = self.plain.head

    @torch.inference_mode()
    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.head(self._features(clip))
        return logits.float()

    @torch.inference_mode()
    def features(self, clip: Tensor) -> Tensor:
        return self._features(clip).float()

    def _features(self, clip: Tensor) -> Tensor:
        self.config.require_clips(clip)  # before whole numbers become floats
        x, grid = self.plain.embed(clip.to(self.dtype))
        if self.per_frame:
            frames = rearrange(x[:, 1:], "b (t n) d -> (b t) n d", t=grid["t"])
            x = torch.cat([repeat(x[:, :1], "b 1 d -> (b t) 1 d", t=grid["t"]), frames], dim=1)
        for block in self.blocks:
            x = block(x, grid)
        cls = self.last(x, copies=grid["t"] if self.per_frame else 1, grid=grid)
        return self.plain._normed_cls(cls[:, None], clip.shape[0])

    def linears(self) -> Iterator[tuple[Any, str]]:
        """The linear layers of the blocks, each as what holds it and the name there."""
        for step in [step for block in self.blocks for step in block.steps] + self.last.steps:
            yield from ((step, name) for name in ("q", "k", "v", "out"))
        for attention in self.last.attentions:
            yield from ((attention, name) for name in ("q", "out"))
        for block in (*self.blocks, self.last):
            yield from ((block, name) for name in ("fc1", "fc2"))


def _calibrate(prepared: Prepared, clips: list[Tensor]) -> None:
    """Put layers in 8 bits in the place of plain ones, for the range of inputs that clips bring them."""
    plain: list[PlainLinear] = [getattr(*place) for place in prepared.linears()]
    for layer in plain:
        layer.watched = True
    for clip in clips:
        prepared(clip)
    for place, layer in zip(prepared.linears(), plain, strict=True):
        for_attention = place[1] in ("q", "k", "v")
        dtype = torch.bfloat16 if for_attention else torch.float32
        setattr(*place, Int8Linear(layer.weight, layer.bias, *layer.range, dtype))


MakeLinear = Callable[[Tensor, Tensor], Linear]


class PreparedBlock:
    """A block without the parameters of its norms, and without `fc`."""

    def __init__(self, block: Block, kind: type[Step], linear: MakeLinear) -> None:
        self.parallel = block.parallel
        self.steps = [kind(block, prefix, step, linear) for prefix, step in block.steps]
        self.fc1 = linear(*_behind_norm(block.norm2, block.mlp.fc1))
        self.fc2 = linear(block.mlp.fc2.weight, block.mlp.fc2.bias)

    def __call__(self, x: Tensor, grid: Grid) -> Tensor:
        start = x.clone() if self.parallel else None  # `x` may be written over
        for step in self.steps:
            x = step(x if start is None else start, x, grid)
        rows = x.flatten(0, 1)
        return in_parts(self._mlp, row_parts(rows), rows, rows).view(x.shape)

    def _mlp(self, x: Tensor, residual: Tensor) -> Tensor:
        return mlp(residual, _normalise(x), self.fc1, self.fc2)


class LastBlock:
    """What the last block makes of CLS."""

    def __init__(self, block: Block, kind: type[Step], linear: MakeLinear, dtype: torch.dtype) -> None:
        moving = [place for place, (_, step) in enumerate(block.steps) if kind.moves_cls(step)]
        # Steps before the last that moves CLS change what it attends to, unless all read the block's input; those
        # after it change nothing.
        full = [] if block.parallel else block.steps[: moving[-1]]
        self.steps = [kind(block, prefix, step, linear) for prefix, step in full]
        asked = [block.steps[place][0] for place in (moving if block.parallel else moving[-1:])]
        self.attentions = [CLSAttention(block, prefix, linear, dtype) for prefix in asked]
        self.fc1 = linear(*_behind_norm(block.norm2, block.mlp.fc1))
        self.fc2 = linear(block.mlp.fc2.weight, block.mlp.fc2.bias)

    def __call__(self, x: Tensor, copies: int, grid: Grid) -> Tensor:
        """CLS (sequences / copies, D), of which each of as many sequences has a copy."""
        for step in self.steps:
            x = step(x, x, grid)
        normed, cls = _normalise(x), x[::copies, 0]
        for attention in self.attentions:
            cls = attention(normed, cls, copies)
        return mlp(cls, _normalise(cls), self.fc1, self.fc2)


class Step:
    """An attention step, on tokens that are laid out in one way or another."""

    @staticmethod
    def moves_cls(neighbourhood: Neighbourhood) -> bool:
        """Whether CLS takes part in such a step."""
        return True

    def __init__(self, block: Block, prefix: str, neighbourhood: Neighbourhood, linear: MakeLinear) -> None:
        attn, weight, bias = _qkv(block, prefix)
        self.neighbourhood = neighbourhood
        self.num_heads = attn.num_heads
        self.q, self.k, self.v = (linear(*part) for part in zip(weight.chunk(3), bias.chunk(3), strict=True))
        self.out = linear(*_out(block, prefix))

    def __call__(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        """`residual` and what the step makes of the tokens `x`, both (sequences, tokens, D).

        May write over `residual`.
        """
        raise NotImplementedError


class Whole(Step):
    """A step on tokens as the plain model has them: CLS, then the patches as (t h w)."""

    def __call__(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        normed = _normalise(x)
        q, k, v = project(normed, self.q, self.k, self.v)
        if _is_all(self.neighbourhood, grid):
            mixed = attend(q, k, v, self.num_heads)
        else:
            cls = attend(q[:, :1], k, v, self.num_heads)
            mix = partial(attend, num_heads=self.num_heads)
            mixed = torch.cat([cls, self.neighbourhood.attend(q[:, 1:], k, v, mix, grid)], dim=1)
        return self.out.add_to(residual, mixed)


class PerFrame(Step):
    """A step of divided attention on tokens by frame, (b t) (1 + n) d, each frame with its copy of CLS."""

    @staticmethod
    def moves_cls(neighbourhood: Neighbourhood) -> bool:
        return neighbourhood.name == "spatial"

    def __call__(self, x: Tensor, residual: Tensor, grid: Grid) -> Tensor:
        if self.moves_cls(self.neighbourhood):
            mix = partial(attend, num_heads=self.num_heads)
            out = in_parts(partial(self._step, mix), frame_parts(x), x, residual)
            mean = rearrange(out[:, :1], "(b t) 1 d -> b t 1 d", t=grid["t"]).mean(dim=1)
            cls = repeat(mean, "b 1 d -> (b t) 1 d", t=grid["t"])
        else:
            mix = partial(attend_over_time, num_heads=self.num_heads, t=grid["t"])
            cls = residual[:, :1].clone()
            out = in_parts(partial(self._step, mix), place_parts(x, grid["t"]), x, residual)
        if is_traced():  # which in-place changes are not for
            return torch.cat([cls, out[:, 1:]], dim=1)
        out[:, :1] = cls
        return out

    def _step(self, mix: Mix, x: Tensor, residual: Tensor) -> Tensor:
        q, k, v = project(_normalise(x), self.q, self.k, self.v)
        return self.out.add_to(residual, mix(q, k, v))


class CLSAttention:
    """Attention of CLS alone to its sequence, without keys and values of the tokens there."""

    def __init__(self, block: Block, prefix: str, linear: MakeLinear, dtype: torch.dtype) -> None:
        attn, weight, bias = _qkv(block, prefix)
        self.num_heads = attn.num_heads
        q, k, v = weight.chunk(3)
        q_bias, _, v_bias = bias.chunk(3)  # that of keys adds the same to all scores
        out, out_bias = _out(block, prefix)  # with that of values in it: behind a mean OpenVINO's int8 gets it wrong
        self.q, self.out = linear(q, q_bias), linear(out, out_bias + out @ v_bias)
        by_head = "(head d) c -> head d c"
        self.k, self.v = (rearrange(x.detach().to(dtype), by_head, head=self.num_heads) for x in (k, v))

    def __call__(self, normed: Tensor, residual: Tensor, copies: int) -> Tensor:
        """`residual` (B, D) and what the step makes of CLS in sequences (B copies) N D, the mean over its copies."""
        q = rearrange(self.q(normed[:, 0]).to(normed.dtype), "s (head d) -> head s d", head=self.num_heads)
        asked = rearrange(q @ self.k, "head s c -> s head c") * self.k.shape[1] ** -0.5
        mixed = (asked @ normed.transpose(1, 2)).softmax(dim=-1) @ normed
        values = rearrange(mixed, "s head c -> head s c") @ self.v.transpose(1, 2)
        out = rearrange(values, "head (b t) d -> b t (head d)", t=copies).mean(dim=1)
        return self.out.add_to(residual, out)


def _is_all(neighbourhood: Neighbourhood, grid: Grid) -> bool:
    """Whether the step is attention of all tokens of a sequence to all."""
    return isinstance(neighbourhood, Partition) and neighbourhood.num_groups(grid) == 1


def _normalise(x: Tensor) -> Tensor:
    scale = shift = None
    if x.device.type == "cpu" and x.dtype == torch.float32 and not is_traced():
        # PyTorch takes three times as long without them.
        scale, shift = x.new_ones(x.shape[-1]), x.new_zeros(x.shape[-1])
    return F.layer_norm(x, x.shape[-1:], scale, shift, eps=1e-6)


def _qkv(block: Block, prefix: str) -> tuple[Attention, Tensor, Tensor]:
    """The attention of a step, with weight and bias of its queries, keys and values behind the norm."""
    attn, norm = block.get_submodule(f"{prefix}attn"), block.get_submodule(f"{prefix}norm1")
    assert isinstance(attn, Attention)
    assert isinstance(norm, nn.LayerNorm)
    return attn, *_behind_norm(norm, attn.qkv)


def _out(block: Block, prefix: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a step's projection, and of the `fc` behind it in one."""
    proj = block.get_submodule(f"{prefix}attn.proj")
    assert isinstance(proj, nn.Linear)
    weight, bias = proj.weight.double(), proj.bias.double()
    if prefix:
        fc = block.get_submodule(f"{prefix}fc")
        assert isinstance(fc, nn.Linear)
        weight, bias = fc.weight.double() @ weight, fc.weight.double() @ bias + fc.bias.double()
    return weight, bias


def _behind_norm(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer that take over the scale and shift of the norm before it."""
    weight = linear.weight.double()
    return weight * norm.weight.double(), linear.bias.double() + weight @ norm.bias.double()
