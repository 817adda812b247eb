"""What each scheme attends to, drawn from the model itself (Figure 2 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from timesformer.files import PICTURES, save_figure
from timesformer.model.attention import SCHEMES, Grid
from timesformer.model.timesformer import Block, ModelConfig
from timesformer.outputs import check_output

Place = tuple[int, int, int]
COLOURS = {
    "joint": "#8e5bb5", "spatial": "#e8b100", "temporal": "#2ca02c", "local": "#17a2a2", "global": "#d62728",
    "width": "#f28e2b", "height": "#d62728",
}  # fmt: skip
OTHER = "#7f7f7f"  # steps that are not the package's own
QUERY = "#1f4fd8"


def attended(config: ModelConfig, query: Place, grid: Grid) -> dict[str, NDArray[np.bool_]]:
    """Which patches a patch attends to, found by trying: does the query's output move when a token does?

    Args:
        config: the model; only its scheme, order and rule for CLS matter.
        query: frame, row and column of the patch.
        grid: the patch grid of the clip.

    Returns:
        For each attention step of a block, by name, in turn: bool (T, H, W).
    """
    narrow = config.replace(embed_dim=16, num_heads=2)
    t, h, w = grid["t"], grid["h"], grid["w"]
    generator = torch.Generator().manual_seed(0)
    block = Block(narrow, drop_path=0).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    tokens = torch.randn(1, 1 + t * h * w, 16, dtype=torch.float64, generator=generator).requires_grad_()
    place = 1 + (query[0] * h + query[1]) * w + query[2]
    found = {}
    for prefix, step in narrow.steps:
        if narrow.frames_apart:
            clip = torch.cat([tokens[:, :1].expand(t, -1, -1), tokens[0, 1:].view(t, h * w, 16)], dim=1)
            update = block.update(prefix, step, clip, Grid(t=1, h=h, w=w))[:, 1:].flatten(0, 1)[place - 1]
        else:
            update = block.update(prefix, step, tokens, grid)[0, place]
        (moves,) = torch.autograd.grad(update.sum(), tokens)
        found[step.name] = (moves[0, 1:].abs().amax(dim=-1) > 0).view(t, h, w).numpy()
    return found


def draw_schemes(
    file: Path, *, grid: Grid | None = None, query: Place | None = None, schemes: Sequence[str] = tuple(SCHEMES)
) -> None:
    """Draw, for a query patch in each scheme, the patches it attends to in each step of a block.

    Args:
        file: PNG, SVG or PDF.
        grid: patch grid of the clip, by default 5 frames of 8 x 8.
        query: frame, row and column of the patch, by default in the middle.
        schemes: which ones.

    Raises:
        ValueError: the query lies outside the grid, or the file has another suffix.
    """
    check_output(file, "out", suffixes=PICTURES)
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    grid = grid or Grid(t=5, h=8, w=8)
    query = query or (grid["t"] // 2, grid["h"] // 2, grid["w"] // 2)
    sizes = (grid["t"], grid["h"], grid["w"])
    if min(sizes) < 1:
        raise ValueError(f"grid of {sizes} patches (frames, rows, columns): each must be at least 1")
    if not all(0 <= place < size for place, size in zip(query, sizes, strict=True)):
        raise ValueError(f"query={query} is outside the grid of {sizes} patches (frames, rows, columns)")
    t, h, w = sizes
    figure = Figure(figsize=(2.2 * len(schemes), 2.2 * t * h / w + 1.1), layout="constrained")
    axes = figure.subplots(t, len(schemes), squeeze=False)
    for column, scheme in enumerate(schemes):
        steps = attended(ModelConfig(attention=scheme), query, grid)
        for frame in range(t):
            plot = axes[frame, column]
            plot.set(xlim=(0, w), ylim=(h, 0), xticks=[], yticks=[], aspect="equal")
            for row in range(h):
                for col in range(w):
                    seen = [COLOURS.get(name, OTHER) for name, where in steps.items() if where[frame, row, col]]
                    if (frame, row, col) == query:
                        seen = [QUERY]
                    for part, colour in enumerate(seen or ["#eeeeee"]):
                        share = 1 / max(len(seen), 1)
                        plot.add_patch(Rectangle((col + part * share, row), share, 1, color=colour, lw=0))
                    plot.add_patch(Rectangle((col, row), 1, 1, fill=False, edgecolor="white", lw=1))
            if column == 0:
                plot.set_ylabel(f"frame {frame - query[0]:+d}" if frame != query[0] else "frame t")
        handles = [Patch(color=QUERY, label="query")]
        handles += [Patch(color=COLOURS.get(name, OTHER), label={"joint": "all"}.get(name, name)) for name in steps]
        axes[0, column].set_title(scheme.replace("_", " "), fontsize=9)
        axes[-1, column].legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=7, frameon=False, ncols=4,
            handlelength=1, columnspacing=0.7,
        )  # fmt: skip
    save_figure(file, figure)
