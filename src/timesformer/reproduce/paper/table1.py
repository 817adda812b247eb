"""Table 1: the five attention schemes."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Results
from timesformer.reproduce.paper.rows import ablation

_PAPER = {
    "space_only": (76.9, 36.6),
    "joint_space_time": (77.4, 58.5),
    "divided_space_time": (78.0, 59.5),
    "sparse_local_global": (75.9, 56.3),
    "axial": (73.5, 56.2),
}


def _gap(results: Results, column: str) -> float:
    return results.mean("divided_space_time", column) - results.mean("space_only", column)


def _lead(results: Results, column: str) -> float:
    others = [name for name in _PAPER if name != "divided_space_time"]
    return results.mean("divided_space_time", column) - max(results.mean(name, column) for name in others)


EXPERIMENT = Experiment(
    "table1",
    "Attention schemes",
    ("k400", "ssv2"),
    ablation("attention", _PAPER, "table1"),
    [
        Claim("Where order decides, space-only attention is far below divided", lambda r: _gap(r, "ssv2"), least=20),
        Claim(
            "Where one frame suffices, space-only is close to divided: within 5 points", lambda r: 5 - _gap(r, "k400")
        ),
        Claim("Divided attention is the best of the five where order decides", lambda r: _lead(r, "ssv2")),
        Claim("Divided attention is the best of the five where one frame suffices", lambda r: _lead(r, "k400")),
    ],
)
