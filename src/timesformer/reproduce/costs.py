"""What the rows of the paper's tables cost at full scale: counted from the models of their recipes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from timesformer import models
from timesformer.profiling import count
from timesformer.reproduce.experiment import Row
from timesformer.training.recipe import load_recipe

CLASSES = {"k400": 400, "k600": 600, "ssv2": 174, "diving48": 48, "howto100m": 1059}


@dataclass(frozen=True)
class Cost:
    """Of a model at full scale.

    Attributes:
        parameters: their number.
        macs: multiply-accumulates a view.
        views: of a video in testing; None where they cover it, however long it is.
    """

    parameters: int
    macs: int
    views: int | None


def full_cost(row: Row) -> Cost | None:
    """The cost of a row's first recipe, if it has any."""
    if not row.full:
        return None
    column, recipe = next(iter(row.full.items()))
    test = row.full_test
    views = None if test.clips == "cover" else test.clips * test.crops
    return Cost(*_count(recipe, CLASSES[column], test.image_size), views)


@lru_cache
def _count(recipe: str, num_classes: int, image_size: int | None) -> tuple[int, int]:
    options = dict(load_recipe(recipe).model)
    with torch.device("meta"):
        model = models.create(options.pop("name", "timesformer_base"), **options, num_classes=num_classes)
    return count(model, image_size)
