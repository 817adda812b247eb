"""Rows that several of the paper's tables have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timesformer.reproduce.experiment import Claim, Row, Training
from timesformer.reproduce.paper.models import ALL_IMAGES, HR, LONG

# Names in tables and in recipes, and the changes in miniature.
_FAMILY = {
    "TimeSformer": ("base", ()),
    "TimeSformer-HR": ("hr", HR),
    "TimeSformer-L": ("long", LONG),
}


def ablation(option: str, figures: Mapping[str, tuple[float, float]], folder: str) -> list[Row]:
    """A row for each value of an option of the model, with the paper's top-1 on Kinetics-400 and on SSv2."""
    return [
        Row(
            value,
            Training((f"model.{option}={value}",)),
            {"k400": k400, "ssv2": ssv2},
            full={column: f"{folder}/{column}_{value}" for column in ("k400", "ssv2")},
        )
        for value, (k400, ssv2) in figures.items()
    ]


def family(
    recipes: Mapping[str, str], top1: Mapping[str, Sequence[float]], top5: Mapping[str, Sequence[float]]
) -> list[Row]:
    """The base model, HR and L, trained from images.

    Args:
        recipes: by data set, with `{}` for `base`, `hr` and `long`.
        top1, top5: the paper's figures of the three, by data set.
    """
    return [
        Row(
            name,
            Training(settings, ALL_IMAGES),
            {column: values[number] for column, values in top1.items()},
            {column: values[number] for column, values in top5.items()},
            full={column: recipe.format(short) for column, recipe in recipes.items()},
        )
        for number, (name, (short, settings)) in enumerate(_FAMILY.items())
    ]


def long_is_better(column: str) -> Claim:
    """That L is ahead of the base."""
    return Claim(
        "TimeSformer-L is better than the base",
        lambda r: r.mean("TimeSformer-L", column) - r.mean("TimeSformer", column),
    )
