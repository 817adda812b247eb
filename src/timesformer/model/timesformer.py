"""TimeSformer: patches, positions, blocks of attention over space and time, a head (Section 3 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from timesformer.limits import limit
from timesformer.model.attention import RELEASED, SCHEMES, Attention, Grid, Neighbourhood, Partition
from timesformer.model.base import VideoConfig, VideoModel
from timesformer.model.layers import Linear, is_plain, is_watched
from timesformer.ranges import Range, counts, shown

LayerNorm = partial(nn.LayerNorm, eps=1e-6)

ORDERS = ("time_space", "space_time", "parallel")
POSITIONS = ("none", "space", "space_time")
CLS_RULES = ("released", "equations")


@dataclass(frozen=True)
class ModelConfig(VideoConfig):
    """What defines a TimeSformer; the defaults are the paper's base model.

    Clips of other lengths and sizes than the model's own are accepted: positions are resized. For `num_classes`,
    `num_frames`, `image_size` and `in_channels` see `VideoConfig`.

    Attributes:
        attention: the scheme (Table 1): `space_only`, `joint_space_time`, `divided_space_time`,
            `sparse_local_global` or `axial`.
        order: of the steps of divided attention (Section 4.7): `time_space`, `space_time`, or `parallel`, where both
            read the same input and their outputs are added.
        positions: learned positions that are added to the tokens (Table 4): `none`, `space` or `space_time`.
            `space_only` has no positions in time.
        cls_attention: what CLS attends to: `released`, as the published weights do, or `equations`, as Eqs. 6 and 11
            say (see `timesformer.model.attention`). `sparse_local_global` and `axial` always do the latter.
        patch_size: side P of a patch in pixels; divides the height and width of every clip.
        embed_dim: width D of a token.
        depth: number of blocks L.
        num_heads: attention heads A; divides `embed_dim`.
        mlp_ratio: width of the hidden layer of the MLP, in units of `embed_dim`.
        head_hidden_dim: width of the head's hidden layer; 0 makes the head one linear layer, as released.
        drop_path: chance that a residual branch is skipped in training, in the last block; rises linearly from 0.
        dropout: chance that an element of the MLP's hidden layer or of the features before the head is dropped.
    """

    attention: str = "divided_space_time"
    order: str = "time_space"
    positions: str = "space_time"
    cls_attention: str = "released"
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    head_hidden_dim: int = 0
    drop_path: float = 0.1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = {"attention": SCHEMES, "order": ORDERS, "positions": POSITIONS, "cls_attention": CLS_RULES}
        for name, values in allowed.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in values:
                raise ValueError(f"{name}={shown(getattr(self, name))} is not one of {', '.join(values)}")
        if self.order != "time_space" and self.attention != "divided_space_time":
            raise ValueError(f"order={self.order!r} is for attention='divided_space_time', not {self.attention!r}")
        width = limit("MAX_WIDTH")
        self.require(
            patch_size=counts(1, limit("MAX_IMAGE_SIZE")), embed_dim=counts(1, width), num_heads=counts(1, width),
            depth=counts(1, limit("MAX_BLOCKS")), head_hidden_dim=counts(0, width), mlp_ratio=Range(0, 64, above=True),
            drop_path=Range(0, 1, below=True), dropout=Range(0, 1, below=True),
        )  # fmt: skip
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim={self.embed_dim} must be a multiple of num_heads={self.num_heads}")
        if int(self.embed_dim * self.mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio={self.mlp_ratio!r} makes no hidden layer of embed_dim={self.embed_dim}")
        h, w = _patch_grid(*self.frame_size, self.patch_size)
        in_blocks = self.depth * self.embed_dim * (4 + 2 * self.mlp_ratio)
        outside = h * w + self.num_frames + self.in_channels * self.patch_size**2 + self.num_classes
        self.require_parameters(self.embed_dim * (in_blocks + outside) + self.head_hidden_dim * self.num_classes)

    @property
    def grid(self) -> Grid:
        """The patch grid of a clip of the model's own size."""
        return self.grid_of(self.num_frames, *self.frame_size)

    def grid_of(self, num_frames: int, height: int, width: int) -> Grid:
        """The patch grid of a clip of a size in pixels; ValueError where patches do not fit in."""
        h, w = _patch_grid(height, width, self.patch_size)
        return Grid(t=num_frames, h=h, w=w)

    @property
    def steps(self) -> list[tuple[str, Neighbourhood]]:
        """The attention steps of a block in turn, each with the prefix of its parameters' names."""
        *extra, last = SCHEMES[self.attention]
        steps = [(f"{step.name}_", step) for step in extra] + [("", last)]
        return steps[::-1] if self.order == "space_time" else steps

    @property
    def released_cls(self) -> bool:
        """Whether CLS attends by the rule `released`."""
        return self.cls_attention == "released" and self.attention in RELEASED

    @property
    def frames_apart(self) -> bool:
        """Whether each frame is a sequence of its own, with a CLS of its own, up to the last block."""
        return self.attention == "space_only" and self.released_cls


class TimeSformer(VideoModel):
    """The video Transformer of the paper. Parameter names are those of the released weights."""

    architecture = "timesformer"
    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, grid = config.embed_dim, config.grid
        self.patch_embed = PatchEmbed(config.in_channels, config.patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed: nn.Parameter | None = None
        self.time_embed: nn.Parameter | None = None
        if config.positions != "none":
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid["h"] * grid["w"], dim))
        if config.positions == "space_time" and config.attention != "space_only":
            self.time_embed = nn.Parameter(torch.zeros(1, grid["t"], dim))
        drop_paths = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList([Block(config, drop_path) for drop_path in drop_paths])
        self.norm = LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.head = _head(config)
        self._frozen: list[nn.Module] = []
        self._init_weights()

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if name.endswith("_fc"):  # a step that ViT does not have changes nothing at first
                    nn.init.zeros_(module.weight)
                else:
                    nn.init.trunc_normal_(module.weight, std=0.02)

    def freeze(self, blocks: int) -> None:
        """Let the embedding and the lowest blocks stay as they are in training; nothing is computed to change them.

        Args:
            blocks: how many, from 0 up (0 frees all); -1 is all, so that only the last norm and the head learn.

        Raises:
            ValueError: more blocks than there are.
        """
        if not -1 <= blocks <= len(self.blocks):
            raise ValueError(f"frozen_blocks={blocks} is not in -1..{len(self.blocks)}")
        self.requires_grad_(True)
        count = len(self.blocks) if blocks == -1 else blocks
        self._frozen = [self.patch_embed, *self.blocks[:count]] if count else []
        for module in self._frozen:
            module.requires_grad_(False).eval()
        for token in (self.cls_token, self.pos_embed, self.time_embed):
            if token is not None:
                token.requires_grad_(not count)

    def train(self, mode: bool = True) -> TimeSformer:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(clip)))
        return logits

    def features(self, clip: Tensor) -> Tensor:
        """The normalised CLS token (B, D) of clips (B, in_channels, F, H, W): the input of the head.

        Raises:
            ValueError: no floats, no clips, another number of axes or channels, or sides that are no multiples of the
                patch.
        """
        x, grid = self.embed(clip)
        *blocks, last = self.blocks
        for block in blocks:
            x = self._run(block, x, grid)
        cls_alone = (True,) if self.training and not is_watched(last) else ()
        return self._normed_cls(self._run(last, x, grid, *cls_alone), clip.shape[0])

    def tokens(self, clip: Tensor) -> Tensor:
        """Tokens after the last block, before the final norm: (B, 1 + T*H'*W', D), CLS first, patches as (t h w).

        With `config.frames_apart`, where frames are sequences of their own, (B*T, 1 + H'*W', D).
        """
        x, grid = self.embed(clip)
        for block in self.blocks:
            x = self._run(block, x, grid)
        return x

    def intermediate(self, clip: Tensor, blocks: Sequence[int] = (-1,), *, norm: bool = True) -> list[Tokens]:
        """What the model computes on the way, for those who build on it: CLS, patches and frames after some blocks.

        Args:
            clip: as in `forward`.
            blocks: which blocks, from 0; negative ones count from the end.
            norm: apply the final LayerNorm, as the head's input has.

        Returns:
            One `Tokens` for each of `blocks`, in that order.

        Raises:
            ValueError: a block that the model does not have.
        """
        depth = len(self.blocks)
        for block in blocks:
            if not -depth <= block < depth:
                raise ValueError(f"block {block} is not one of the model's: {-depth} to {depth - 1}")
        wanted = [block % depth for block in blocks]
        x, grid = self.embed(clip)
        found: dict[int, Tokens] = {}
        for number, layer in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            x = self._run(layer, x, grid)
            if number in wanted:
                cls = self._normed_cls(x, len(clip)) if norm else self._cls(x, len(clip))
                patches = x[:, 1:].reshape(len(clip), -1, grid["h"], grid["w"], x.shape[-1])
                found[number] = Tokens(cls, self.norm(patches) if norm else patches)
        return [found[number] for number in wanted]

    def _run(self, block: nn.Module, x: Tensor, grid: Grid, cls_alone: bool = False) -> Tensor:
        recompute = self.activation_checkpointing and torch.is_grad_enabled() and block not in self._frozen
        out: Tensor = block(x, grid, cls_alone, recompute)
        return out

    def _cls(self, x: Tensor, num_clips: int) -> Tensor:
        return reduce(x[:, 0], "(b t) d -> b d", "mean", b=num_clips)

    def _normed_cls(self, x: Tensor, num_clips: int) -> Tensor:
        normed: Tensor = self.norm(self._cls(x, num_clips))
        return normed

    def embed(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """The input tokens of the first block (Eq. 1), and the grid of each sequence of them."""
        self.config.require_clips(clip)
        b, _, t, height, width = clip.shape
        grid = self.config.grid_of(t, height, width)
        x = self.patch_embed(rearrange(clip, "b c t h w -> (b t) c h w"))
        cls: Tensor = self.cls_token
        if self.pos_embed is not None:
            x = x + self._space_positions(grid["h"], grid["w"])
            cls = cls + self.pos_embed[:, :1]
        x = rearrange(x, "(b t) n d -> b t n d", b=b)
        if self.time_embed is not None:
            x = x + rearrange(self._time_positions(t), "1 t d -> 1 t 1 d")
        if self.config.frames_apart:
            grid["t"] = 1
        x = rearrange(x, "b (s t) n d -> (b s) (t n) d", t=grid["t"])
        return torch.cat([repeat(cls, "1 1 d -> b 1 d", b=x.shape[0]), x], dim=1), grid

    def _space_positions(self, h: int, w: int) -> Tensor:
        """Positions (1, h*w, D) of the patches of a frame, resized (nearest) when the grid is not the model's own."""
        assert self.pos_embed is not None
        positions, own = self.pos_embed[:, 1:], self.config.grid
        if (h, w) == (own["h"], own["w"]):
            return positions
        planes = rearrange(positions, "1 (h w) d -> 1 d h w", h=own["h"])
        return rearrange(F.interpolate(planes, (h, w), mode="nearest"), "1 d h w -> 1 (h w) d")

    def _time_positions(self, t: int) -> Tensor:
        """Positions (1, t, D) of the frames, resized (nearest) when there are more or fewer than the model's own."""
        assert self.time_embed is not None
        if t == self.config.num_frames:
            return self.time_embed
        line = rearrange(self.time_embed, "1 t d -> 1 d t")
        return rearrange(F.interpolate(line, t, mode="nearest"), "1 d t -> 1 t d")


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of clips at one depth of the model.

    Attributes:
        cls: (B, D), the classification token; where frames are apart, its mean over frames.
        patches: (B, T, H', W', D).
    """

    cls: Tensor
    patches: Tensor

    @property
    def frames(self) -> Tensor:
        """Each frame's mean over its patches: (B, T, D)."""
        return reduce(self.patches, "b t h w d -> b t d", "mean")


class Block(nn.Module):
    """The attention steps of the scheme in turn, then the MLP; each pre-normalised, with a residual (Eqs. 4 to 9).

    ViT's own step is `norm1`, `attn`; each further step `X` of the scheme has `X_norm1`, `X_attn` and `X_fc`.
    """

    def __init__(self, config: ModelConfig, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.steps = config.steps
        self.parallel = config.order == "parallel"
        self.released_cls = config.released_cls
        for prefix, _ in sorted(self.steps, key=lambda step: not step[0]):  # ViT's own last, whatever their order
            self.add_module(f"{prefix}norm1", LayerNorm(dim))
            self.add_module(f"{prefix}attn", Attention(dim, config.num_heads))
            if prefix:
                self.add_module(f"{prefix}fc", nn.Linear(dim, dim))
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid, cls_alone: bool = False, recompute: bool = False) -> Tensor:
        """Tokens (B, 1 + N, D) after the block; with `cls_alone` (B, 1, D), for a last block.

        With `recompute` the backward pass computes each attention step, and the MLP, once more from its input.
        """
        run: Callable[..., Tensor] = partial(checkpoint, use_reentrant=False) if recompute else _call
        start = x
        for number, (prefix, step) in enumerate(self.steps, 1):
            source = start if self.parallel else x
            alone = cls_alone and number == len(self.steps) and self._moves_cls(step)
            x = run(self._after_step, prefix, step, source, x, grid, alone)
        if cls_alone:
            x = x[:, :1]
        return run(self._after_mlp, x)

    def _after_step(
        self, prefix: str, step: Neighbourhood, source: Tensor, x: Tensor, grid: Grid, cls_alone: bool
    ) -> Tensor:
        update: Tensor = self.drop_path(self.update(prefix, step, source, grid, cls_alone=cls_alone))
        return (x[:, :1] if cls_alone else x) + update

    def _after_mlp(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out

    def update(self, prefix: str, step: Neighbourhood, x: Tensor, grid: Grid, *, cls_alone: bool = False) -> Tensor:
        """What an attention step adds to the tokens `x`, or to CLS alone."""
        norm, attn = self.get_submodule(f"{prefix}norm1"), self.get_submodule(f"{prefix}attn")
        fc = self.get_submodule(f"{prefix}fc") if prefix else nn.Identity()
        assert isinstance(attn, Attention)
        options: dict[str, Any] = {"cls_alone": True} if cls_alone else {}
        many = x[..., 0].numel() > x.shape[-1] and not cls_alone  # more than the rows of a matrix
        if self.training and many and is_plain(attn.proj) and is_plain(fc):
            options["then"], fc = fc, nn.Identity()

        def layer(tokens: Tensor) -> Tensor:
            out: Tensor = fc(attn(norm(tokens), **options))
            return out

        if self.released_cls:
            assert isinstance(step, Partition)
            return step.apply(layer, x, grid)
        updated: Tensor = fc(attn.within(step, grid, norm(x), **options))
        return updated

    def _moves_cls(self, step: Neighbourhood) -> bool:
        return not self.released_cls or (isinstance(step, Partition) and step.with_cls)


def _call(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    return function(*inputs)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.drop(self.act(self.fc1(x))))
        return out


class PatchEmbed(nn.Module):
    """One linear map of the pixels of each P x P patch: (B, C, H, W) to (B, H/P * W/P, D)."""

    def __init__(self, in_channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        patches: Tensor = self.proj(frames)
        return rearrange(patches, "b d h w -> b (h w) d")


class DropPath(nn.Module):
    """Stochastic depth: in training, a sample's branch is dropped with chance `p`, the others scaled by 1/(1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.p
        return x * (keep / (1 - self.p)).to(x.dtype)


def _head(config: ModelConfig) -> nn.Module:
    dim, hidden = config.embed_dim, config.head_hidden_dim
    if not config.num_classes:
        return nn.Identity()
    if not hidden:
        return nn.Linear(dim, config.num_classes)
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, config.num_classes))


def _patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    if height % patch or width % patch or height < patch or width < patch:
        raise ValueError(f"frames of {height}x{width} px: height and width must be multiples of patch_size={patch}")
    return height // patch, width // patch
