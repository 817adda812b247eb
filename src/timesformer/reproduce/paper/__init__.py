"""The paper's tables and figures that train models: what is trained, the paper's figures, and its conclusions."""

from __future__ import annotations

from timesformer.reproduce.experiment import Experiment
from timesformer.reproduce.paper import (
    budget,
    figure4,
    figure5,
    figure6,
    section47,
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
    table7,
    table8,
)

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        table1, table2, table3, table4, table5, table6, table7, table8, figure4, figure5, figure6, section47, budget,
    )
}  # fmt: skip
