"""An experiment of the paper: rows that are trained and tested alike, and what the paper concludes from them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from timesformer.evaluation.protocols import Clips
from timesformer.typed import STRICT

# What stands for the paper's data in miniature: scenes that one frame shows, motions that only their order tells, and
# long videos whose steps lie far apart.
TASKS = {"k400": "appearance", "k600": "appearance", "ssv2": "motion", "howto100m": "steps"}


@dataclass(frozen=True)
class Training:
    """What is trained in miniature.

    Attributes:
        settings: changes to the recipe, as `key=value`.
        images: share of the generated images on which an image ViT of the same width is trained first, to start from
            its weights; 0 is none.
        recipe: what is changed.
    """

    settings: tuple[str, ...] = ()
    images: float = 0.0
    recipe: str = "mini"


@dataclass(frozen=True)
class Test:
    """How a trained model is tested.

    Attributes:
        clips, crops: the views of a video.
        image_size: side of a frame in pixels, where it is not the model's own.
    """

    clips: Clips = 1
    crops: int = 1
    image_size: int | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table, or one point of a curve.

    Attributes:
        name: its first column.
        mini: what is trained in miniature; without it the row is in full scale alone.
        paper: the paper's top-1 in percent, by data set.
        top5: the paper's top-5 in percent, by data set.
        full: the recipe for each data set at full scale.
        test: how it is tested in miniature.
        full_test: how it is tested at full scale.
        hours: of training in the paper, on one V100.
        quoted: whose figures they are, where the paper quotes them.
        tera_macs: multiply-accumulates a video that the paper quotes, where there is no model here to count.
        curve, x: the curve that the row is a point of, and where.
    """

    name: str
    mini: Training | None = None
    paper: Mapping[str, float] = field(default_factory=dict)
    top5: Mapping[str, float] = field(default_factory=dict)
    full: Mapping[str, str] = field(default_factory=dict)
    test: Test = Test()
    full_test: Test = Test(crops=3)
    hours: float | None = None
    quoted: str = ""
    tera_macs: float | None = None
    curve: str = ""
    x: float | None = None


@dataclass(frozen=True)
class Claim:
    """A conclusion of the paper, and whether figures bear it out.

    Attributes:
        text: the conclusion.
        margin: from the results, by how many points it holds; KeyError where they don't tell. None where the miniature
            could not contradict it, so that it is not tested.
        least: points that the margin must exceed.
        why_not: why there is no margin.
    """

    text: str
    margin: Callable[[Results], float] | None
    least: float = 0.0
    why_not: str = ""


@dataclass(frozen=True)
class Experiment:
    """A table or a figure.

    Attributes:
        name: as the command knows it, such as `table1`.
        title: what it compares.
        columns: the paper's data sets that have a stand-in here (see `TASKS`).
        rows: its lines.
        claims: what the paper concludes.
        notes: what a reader of the results must know.
        x_label: what curves are drawn over, if the rows are points of curves.
        timed: whether seconds are part of the comparison, for which parts must have the machine to themselves.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    claims: Sequence[Claim] = ()
    notes: Sequence[str] = ()
    x_label: str = ""
    timed: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one training, and the test of its model, came to.

    Attributes:
        top1, top5: in percent.
        videos: that were tested.
        parameters: of the model.
        macs: multiply-accumulates a view.
        train_seconds: of the training, on one process.
        view_seconds: of the model for one view, on one process.
    """

    top1: float
    top5: float
    videos: int
    parameters: int
    macs: int
    train_seconds: float
    view_seconds: float

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Results:
    """Outcomes, one a seed, by row and column."""

    outcomes: Mapping[tuple[str, str], Sequence[Outcome]]

    def scores(self, row: str, column: str) -> list[float]:
        """Top-1 in percent, one a seed."""
        return [outcome.top1 for outcome in self.outcomes[row, column]]

    def mean(self, row: str, column: str) -> float:
        return statistics.fmean(self.scores(row, column))

    def deviation(self, row: str, column: str) -> float:
        """Standard deviation over seeds; 0 for a single one."""
        scores = self.scores(row, column)
        return statistics.stdev(scores) if len(scores) > 1 else 0.0

    def by_seed(self) -> list[Results]:
        """The results of each seed alone."""
        return [
            Results({place: [outcome] for place, outcome in zip(self.outcomes, seed, strict=True)})
            for seed in zip(*self.outcomes.values(), strict=True)
        ]
