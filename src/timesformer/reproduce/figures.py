"""The paper's figures that are no table: schemes, costs, time of inference, rollout, maps of features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from timesformer.explain.schemes import draw_schemes
from timesformer.model.attention import SCHEMES
from timesformer.model.variants import VARIANTS
from timesformer.profiling import draw_sweep, sweep
from timesformer.reproduce.experiment import Experiment, Results

Runner = Callable[[Experiment], Results]


def figure2(out: Path, run: Runner, command: str) -> str:
    """Which patches each scheme attends to."""
    draw_schemes(out / "figure2.png")
    return _section("figure2: What each scheme attends to", command, ["![Attention schemes](figure2.png)"])


def figure3(out: Path, run: Runner, command: str) -> str:
    """Multiply-accumulates of a view over frame size and clip length."""
    base, lines = VARIANTS["timesformer_base"], []
    for kind, values in (("size", (224, 336, 448, 560)), ("frames", (8, 32, 64, 96))):
        rows = sweep(base, kind, values)  # type: ignore[arg-type]
        draw_sweep(rows, kind, out / f"figure3_{kind}.png")  # type: ignore[arg-type]
        lines += ["| T MACs a view | " + " | ".join(f"{value} {kind}" for value in values) + " |"]
        lines += ["|---" * (1 + len(values)) + "|"]
        for scheme in SCHEMES:
            cells = [f"{row['macs_per_view'] / 1e12:.3f}" for row in rows if row["attention"] == scheme]
            lines.append(f"| {scheme} | " + " | ".join(cells) + " |")
        lines += ["", f"![Cost against {kind}](figure3_{kind}.png)", ""]
    return _section("figure3: Cost", command, ["Counted from the models; exact.", "", *lines])


def _section(title: str, command: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}", "", f"`{command}`", "", *lines]) + "\n"


FIGURES: dict[str, Callable[[Path, Runner, str], str]] = {"figure2": figure2, "figure3": figure3}
