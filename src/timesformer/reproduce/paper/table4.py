"""Table 4: positions that are added to the tokens."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment
from timesformer.reproduce.paper.rows import ablation

_PAPER = {"none": (75.4, 45.8), "space": (77.8, 52.5), "space_time": (78.0, 59.5)}

EXPERIMENT = Experiment(
    "table4",
    "Positions",
    ("k400", "ssv2"),
    ablation("positions", _PAPER, "table4"),
    [
        Claim(
            "Where order decides, positions in space are better than none",
            lambda r: r.mean("space", "ssv2") - r.mean("none", "ssv2"),
        ),
        Claim(
            "Where order decides, positions in space and time are better than in space alone",
            lambda r: r.mean("space_time", "ssv2") - r.mean("space", "ssv2"),
        ),
        Claim(
            "Where one frame suffices, positions in space are better than none",
            lambda r: r.mean("space", "k400") - r.mean("none", "k400"),
        ),
        Claim(
            "Where one frame suffices, positions in space and time are better than in space alone",
            lambda r: r.mean("space_time", "k400") - r.mean("space", "k400"),
        ),
    ],
)
