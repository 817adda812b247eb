"""What a model costs, counted from its definition: parameters and multiply-accumulates (Section 3 and Figure 3).

One multiply-accumulate (MAC) counts one. Biases, norms, softmax and activations are left out, as is usual.
"""

from __future__ import annotations

import torch

from timesformer.model.attention import Grid, Partition
from timesformer.model.timesformer import ModelConfig, TimeSformer


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters by part: `patch_embed`, `positions` and CLS, each attention step by name, `mlp`, `head` and norm."""
    with torch.device("meta"):
        model = TimeSformer(config)
    names = {prefix: step.name for prefix, step in config.steps}
    counts = dict.fromkeys(["patch_embed", "positions", *names.values(), "mlp", "head"], 0)
    for name, parameter in model.named_parameters():
        part, *rest = name.split(".")
        if part == "blocks":
            layer = rest[1]
            prefix = next((prefix for prefix in names if prefix and layer.startswith(prefix)), "")
            part = "mlp" if layer in ("norm2", "mlp") else names[prefix]
        elif part in ("cls_token", "pos_embed", "time_embed"):
            part = "positions"
        elif part == "norm":
            part = "head"
        counts[part] += parameter.numel()
    return counts


def count_macs(config: ModelConfig, grid: Grid | None = None) -> dict[str, int]:
    """MACs of one view by part: `patch_embed`, each attention step by name, `mlp`, `head`.

    Args:
        config: the model.
        grid: patch grid of the clip; the model's own by default.
    """
    grid = grid or config.grid
    dim, patches = config.embed_dim, grid["t"] * grid["h"] * grid["w"]
    tokens = patches + (grid["t"] if config.frames_apart else 1)
    counts = {"patch_embed": patches * config.in_channels * config.patch_size**2 * dim}
    for prefix, step in config.steps:
        if config.released_cls:
            assert isinstance(step, Partition)
            groups = step.num_groups(grid)
            inputs = patches + groups * step.with_cls
            pairs = inputs * inputs // groups
        else:
            inputs, pairs = tokens, step.comparisons(grid) + patches + tokens
        linear = (5 if prefix else 4) * dim**2  # qkv, projection, and a further step's fc
        counts[step.name] = config.depth * (inputs * linear + 2 * pairs * dim)
    hidden = int(dim * config.mlp_ratio)
    counts["mlp"] = config.depth * tokens * 2 * dim * hidden
    head = config.head_hidden_dim
    counts["head"] = dim * head + head * config.num_classes if head else dim * config.num_classes
    return counts
