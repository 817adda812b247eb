"""Weights of an image Vision Transformer as the start of a video model (Section 4 of the paper)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from timesformer.model.attention import Grid
from timesformer.model.formats import read_json
from timesformer.model.hub import fetch_weights
from timesformer.model.tensors import WeightsError, is_of_another_task, read_tensors, without_prefix
from timesformer.model.timesformer import ModelConfig, TimeSformer
from timesformer.model.weights import WEIGHT_FILES, Resize, check_shapes, resize_space_positions, weights_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What became of the weights.

    Attributes:
        loaded: weights of the model that were set.
        left: weights of the model that stay as they were, and why.
        unused: weights of the source that have no place in the model, and why.
    """

    loaded: tuple[str, ...]
    left: dict[str, str]
    unused: dict[str, str]


@torch.no_grad()
def init_from_vit(model: TimeSformer, source: str | Path, *, resize: Resize = "bicubic") -> LoadReport:
    """Set a model's weights to those of an image ViT of the same width and depth.

    Each step of attention starts as the ViT's own; what comes on top of ViT (`fc` of the extra steps, positions in
    time) stays as it is, at zero in a new model. One of divided attention with `cls_attention="released"` then computes
    what the ViT does, its CLS averaged over frames in each block. The head is taken over where the number of classes is
    the same. Positions are resized, and kernels for RGB adapted to other numbers of channels: summed for one, else
    repeated and scaled by 3 / channels.

    Args:
        model: the model to set; changed in place.
        source: a file of weights (.pth, .safetensors) or a hub id of timm's, DeiT's, DINO's or transformers' ViT;
            or Google's .npz.
        resize: how positions become those of another grid.

    Returns:
        What was loaded, left and not used; what was not is also logged as a warning.

    Raises:
        WeightsError: the source can't be read, is no plain ViT, or has another width, depth, patch or (if it says so)
            number of heads. What a plain ViT has not (registers, a distillation token, other norms, rotary or relative
            positions) is refused by the name of the weight, as without it the image model computes something else.
    """
    path = Path(source)
    if path.is_dir():
        file = weights_file(path)
        if not file:
            raise WeightsError(f"{path}: no {' or '.join(WEIGHT_FILES)} in this folder")
        path = file
    elif not path.is_file():
        path = fetch_weights(source, WEIGHT_FILES)
    _check_config(path, model.config)
    try:
        vit = _read_vit(path, model.config.num_heads)
    except (LookupError, ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        raise WeightsError(f"{path}: its weights are not understood: {' '.join(str(error).split())}") from error
    unused = _unfit_head(vit, model.config.num_classes)

    own = model.state_dict()
    for name in sorted(vit.keys() - {_origin(name) for name in own}):
        if not is_of_another_task(name):
            raise WeightsError(f"{path}: the model has no place for its {name}")
    taken: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name in own:
        origin = _origin(name)
        if origin in vit and origin not in unused:
            taken[name] = vit[origin]
        elif name == "time_embed" or "_fc." in name:
            left[name] = "new: it comes on top of ViT"
        elif name.startswith(("head.", "norm.")):
            left[name] = unused.get(origin, "the source has none")
            if origin not in unused:
                logger.warning("%s: %s is left as it was: the source has none", path, name)
        else:
            raise WeightsError(f"{path}: it has no {origin}, which the model of {model.config.depth} blocks needs")
    for name in vit.keys() - {_origin(name) for name in taken} - unused.keys():
        unused[name] = "the model has no place for it"

    channels = model.config.in_channels
    taken["patch_embed.proj.weight"] = adapt_channels(taken["patch_embed.proj.weight"], channels)
    if "pos_embed" in taken:
        taken["pos_embed"] = _adapt_positions(path, taken["pos_embed"], model.config.grid, resize)
    check_shapes({**own, **taken}, model, str(path))
    model.load_state_dict({**own, **taken})
    for name, why in unused.items():
        logger.warning("%s: %s not loaded: %s", path, name, why)
    return LoadReport(tuple(taken), left, unused)


def _check_config(path: Path, config: ModelConfig) -> None:
    """Weights tell neither heads nor activation: see what a configuration beside them says, or say what was assumed."""
    file = path.parent / "config.json"
    about = read_json(file) if path.name in WEIGHT_FILES and file.is_file() else {}
    about = about if isinstance(about, dict) else {}
    if (activation := about.get("hidden_act", "gelu")) != "gelu":
        raise WeightsError(f"{path}: hidden_act={activation!r}: the model has gelu")
    heads = about.get("num_attention_heads")
    if heads is not None and heads != config.num_heads:
        raise WeightsError(f"{path}: it has {heads} heads, the model num_heads={config.num_heads}")
    if heads is None and path.suffix != ".npz" and config.num_heads * 64 != config.embed_dim:
        logger.warning("%s: taken to have num_heads=%d, as the model; it does not say", path, config.num_heads)


def _origin(name: str) -> str:
    """The ViT's weight that a weight of the model starts from."""
    return re.sub(r"(blocks\.\d+\.)[a-z]+_(attn|norm1)\.", r"\1\2.", name)


def _unfit_head(vit: dict[str, Tensor], num_classes: int) -> dict[str, str]:
    """Weights of a head that cannot be taken over, and why."""
    if any(name.startswith("pre_logits") for name in vit):
        return {name: "its head has a hidden layer" for name in vit if name.startswith(("head.", "pre_logits"))}
    heads = [name for name in vit if name.startswith("head.")]
    if "head.weight" in vit and vit["head.weight"].shape[0] != num_classes:
        return dict.fromkeys(heads, f"it has {vit['head.weight'].shape[0]} classes, the model {num_classes}")
    return {}


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """Kernels (D, C, P, P) for another number of channels, so that grey or repeated input gives the same."""
    own = kernel.shape[1]
    if own == channels:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    repeated = kernel.repeat(1, math.ceil(channels / own), 1, 1)[:, :channels]
    return repeated * (own / channels)


def _adapt_positions(path: Path, positions: Tensor, grid: Grid, resize: Resize) -> Tensor:
    """Positions of CLS and patches on the model's grid, whatever other tokens the ViT has positions for."""
    count, patches = positions.shape[1], grid["h"] * grid["w"]
    if count == 1 + patches and (grid["h"] == grid["w"] or math.isqrt(patches) ** 2 != patches):
        return positions
    # ViTs are trained on squares; before the patches comes the position of CLS, or none.
    side = math.isqrt(count)
    others = count - side * side
    if others > 1:
        raise WeightsError(f"{path}: {count} positions are not those of CLS and a square of patches")
    cls = positions[:, :1] if others else torch.zeros_like(positions[:, :1])
    square = torch.cat([cls, positions[:, others:]], dim=1)
    own = Grid(t=1, h=side, w=side)
    return square if grid["h"] == grid["w"] == side else resize_space_positions(square, own, grid, resize)


# --- Where the weights come from: all are brought to timm's names -----------------------------------------------------


def _read_vit(path: Path, num_heads: int) -> dict[str, Tensor]:
    weights, _ = read_tensors(path)
    if "embedding/kernel" in weights:
        weights = dict(_from_google(path, weights, num_heads))
    elif any(name.endswith("embeddings.cls_token") for name in weights):
        weights = dict(_from_transformers(without_prefix(weights, "embeddings.cls_token")))
    else:
        weights = without_prefix(weights)
    if any("temporal_" in name or "time_embed" in name for name in weights):
        raise WeightsError(f"{path}: no image ViT but a TimeSformer: load_model takes it")
    if "cls_token" not in weights or "patch_embed.proj.weight" not in weights:
        raise WeightsError(f"{path}: no image ViT: it has no cls_token and patch_embed.proj.weight")
    for name, dimensions in {"patch_embed.proj.weight": 4, "pos_embed": 3}.items():
        shape = tuple(weights[name].shape) if name in weights else (1,) * dimensions
        if len(shape) != dimensions or 0 in shape or (dimensions == 3 and shape[0] != 1):
            expected = "(width, channels, side, side)" if dimensions == 4 else "(1, positions, width)"
            raise WeightsError(f"{path}: weight {name}: {shape}, {expected} expected")
    return _fold_layer_scale(weights)


def _fold_layer_scale(vit: dict[str, Tensor]) -> dict[str, Tensor]:
    """A factor on each branch's output is the same as one on its last layer."""
    folded = {name: value for name, value in vit.items() if not re.search(r"\.ls[12]\.gamma$", name)}
    for name in vit.keys() - folded.keys():
        layer = name.replace("ls1.gamma", "attn.proj").replace("ls2.gamma", "mlp.fc2")
        folded[f"{layer}.weight"] = vit[name][:, None] * folded[f"{layer}.weight"]
        folded[f"{layer}.bias"] = vit[name] * folded[f"{layer}.bias"]
    return folded


def _from_google(path: Path, npz: dict[str, Tensor], num_heads: int) -> Iterator[tuple[str, Tensor]]:
    """Google's arrays: linear maps are (in, out), attention's (D, head, d), kernels (P, P, C, D)."""
    npz = dict(npz)
    yield "cls_token", npz.pop("cls")
    yield "pos_embed", npz.pop("Transformer/posembed_input/pos_embedding")
    yield "patch_embed.proj.weight", rearrange(npz.pop("embedding/kernel"), "p q c d -> d c p q")
    yield "patch_embed.proj.bias", npz.pop("embedding/bias")

    def linear(ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
        if f"{theirs}/kernel" in npz:
            yield f"{ours}.weight", npz.pop(f"{theirs}/kernel").T
            yield f"{ours}.bias", npz.pop(f"{theirs}/bias")

    def norm(ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{ours}.weight", npz.pop(f"{theirs}/scale")
        yield f"{ours}.bias", npz.pop(f"{theirs}/bias")

    for number in sorted({int(match[1]) for name in npz if (match := re.search(r"encoderblock_(\d+)/", name))}):
        block, theirs = f"blocks.{number}", f"Transformer/encoderblock_{number}"
        attn = f"{theirs}/MultiHeadDotProductAttention_1"
        heads = npz[f"{attn}/query/kernel"].shape[1]
        if heads != num_heads:
            raise WeightsError(f"{path}: it has {heads} heads, the model num_heads={num_heads}")
        for kind, pattern in (("kernel", "i head o -> (head o) i"), ("bias", "head o -> (head o)")):
            parts = [rearrange(npz.pop(f"{attn}/{part}/{kind}"), pattern) for part in ("query", "key", "value")]
            yield f"{block}.attn.qkv.{'weight' if kind == 'kernel' else 'bias'}", torch.cat(parts)
        yield f"{block}.attn.proj.weight", rearrange(npz.pop(f"{attn}/out/kernel"), "head i o -> o (head i)")
        yield f"{block}.attn.proj.bias", npz.pop(f"{attn}/out/bias")
        yield from norm(f"{block}.norm1", f"{theirs}/LayerNorm_0")
        yield from norm(f"{block}.norm2", f"{theirs}/LayerNorm_2")
        yield from linear(f"{block}.mlp.fc1", f"{theirs}/MlpBlock_3/Dense_0")
        yield from linear(f"{block}.mlp.fc2", f"{theirs}/MlpBlock_3/Dense_1")
    yield from norm("norm", "Transformer/encoder_norm")
    yield from linear("pre_logits.fc", "pre_logits")
    yield from linear("head", "head")
    yield from npz.items()  # what there is besides


_TRANSFORMERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.distillation_token": "dist_token",
    "layernorm": "norm",
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def _from_transformers(weights: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in weights.items():
        if match := re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(\w+)", name):
            parts = [weights[name.replace("query", part)] for part in ("query", "key", "value")]
            yield f"blocks.{match[1]}.attn.qkv.{match[2]}", torch.cat(parts)
        elif not re.search(r"attention\.attention\.(key|value)\.", name):
            stem, kind = re.fullmatch(r"(.+?)(\.weight|\.bias)?", name).groups("")  # type: ignore[union-attr]
            block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem)
            if block:
                yield f"blocks.{block[1]}.{_TRANSFORMERS.get(block[2], block[2])}{kind}", value
            else:
                yield _TRANSFORMERS.get(stem, stem) + kind, value
