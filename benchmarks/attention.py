"""Attention by two matrix products against PyTorch's fused kernel, forward and backward, on the CPU.

Why `timesformer.model.attention.attend` does not always call the fused kernel. Ratios above 1: the products are faster.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from machine import interleaved, write_result
from torch import Tensor

SHAPES = {  # groups, heads, tokens, width of a head
    "time, tiny model, 8 frames of 8x8 patches, batch 16": (1024, 3, 8, 64),
    "space, tiny model, 8 frames of 8x8 patches, batch 16": (128, 3, 65, 64),
    "space, base model, 8 frames of 14x14 patches, batch 1": (8, 12, 197, 64),
    "joint, base model, 8 frames of 14x14 patches, batch 1": (1, 12, 1569, 64),
}


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1) @ v


def main() -> None:
    ratios = {}
    for name, (groups, heads, tokens, width) in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            qkv = torch.randn(groups, tokens, 3, heads, width, dtype=dtype).permute(2, 0, 3, 1, 4).requires_grad_()

            def step(attention: object, qkv: Tensor = qkv) -> None:
                attention(*qkv.unbind(0)).sum().backward()  # type: ignore[operator]

            seconds = interleaved(
                {"fused": lambda: step(F.scaled_dot_product_attention), "products": lambda: step(products)}
            )
            ratios[f"{name}, {str(dtype).removeprefix('torch.')}"] = round(seconds["fused"] / seconds["products"], 2)
    write_result("attention", {"fused_over_products": ratios})


if __name__ == "__main__":
    main()
