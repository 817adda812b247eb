"""An experiment of the paper: rows that are trained and tested alike, and what the paper concludes from them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: its first column.
        settings: changes to the miniature recipe, as `key=value`.
        paper: the paper's top-1 in percent, by column.
        full: the recipe of each column at full scale.
    """

    name: str
    settings: tuple[str, ...]
    paper: Mapping[str, float]
    full: Mapping[str, str]


@dataclass(frozen=True)
class Claim:
    """A conclusion of the paper, and whether figures bear it out.

    Attributes:
        text: the conclusion.
        margin: from the results, by how many points it holds (at least `least`) or fails.
        least: points that the margin must reach.
    """

    text: str
    margin: Callable[[Results], float]
    least: float = 0.0


@dataclass(frozen=True)
class Experiment:
    """A table or a figure.

    Attributes:
        name: as the command knows it, such as `table1`.
        title: what it compares.
        columns: what each column's data are in miniature (a generated task), by the paper's data set.
        rows: its lines.
        claims: what the paper concludes.
    """

    name: str
    title: str
    columns: Mapping[str, str]
    rows: Sequence[Row]
    claims: Sequence[Claim] = field(default_factory=tuple)


@dataclass(frozen=True)
class Results:
    """Top-1 in percent, one figure a seed, by row and column."""

    scores: Mapping[tuple[str, str], Sequence[float]]

    def mean(self, row: str, column: str) -> float:
        return statistics.fmean(self.scores[row, column])

    def deviation(self, row: str, column: str) -> float:
        """Standard deviation over seeds; 0 for a single one."""
        scores = self.scores[row, column]
        return statistics.stdev(scores) if len(scores) > 1 else 0.0
