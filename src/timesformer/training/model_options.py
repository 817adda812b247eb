"""The `model` of a recipe: a name, and options that the architecture of this name has, as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from timesformer.model.timesformer import ModelConfig
from timesformer.models import NAMES, configuration, configuration_of
from timesformer.ranges import shown
from timesformer.typed import check_option, close_match

USUAL = "timesformer_base"
# Recipes give them whatever the model: one that has no such option is made without, with a warning.
WHERE_KNOWN = ("drop_path",)


def check_model_options(options: Mapping[str, Any], *, whole: bool) -> None:
    """See that every option of a model is one of its architecture's, with a value that it allows: ValueError.

    Args:
        options: the model's `name`, `timesformer_base` where there is none, and its options.
        whole: whether the options are all that the model is made from, not changes to a trained one. Without a name
            these may be of any architecture.
    """
    if not isinstance(options, Mapping):
        raise ValueError(f"model={shown(options)}: must hold keys and values")
    name = options.get("name", USUAL)
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"model.name={shown(name)} is not one of {', '.join(NAMES)}")
    any_of_them = not whole and "name" not in options
    kinds = list(dict.fromkeys(map(configuration_of, NAMES))) if any_of_them else [configuration_of(name)]
    rest = {option: value for option, value in options.items() if option != "name"}
    for option, value in rest.items():
        if not isinstance(option, str):
            raise ValueError(f"model: the key {shown(option)} must be text")
        if not _is_plain(value):
            raise ValueError(f"model.{option}={shown(value)}: must be one value or a flat list of them")
        kind = next((kind for kind in kinds if option in _options(kind)), None)
        if kind is None and option in WHERE_KNOWN:
            kind = ModelConfig
        if kind is None:
            known = {each: None for kind in kinds for each in _options(kind)}
            who = "no model has an option" if any_of_them else f"{name} has no option"
            close = close_match(option, known, f", only {', '.join(known)}")
            raise ValueError(f"model.{option}={shown(value)}: {who} {option!r}{close}")
        try:
            check_option(kind, option, value)
        except ValueError as error:
            raise ValueError(f"model.{option}{error}") from error
    if whole:
        try:
            configuration(name, **{option: value for option, value in rest.items() if _is_taken(option, name)})
        except ValueError as error:
            raise ValueError(f"model: {error}") from error


def _is_taken(option: str, name: str) -> bool:
    return option not in WHERE_KNOWN or option in _options(configuration_of(name))


def _options(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _is_plain(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return all(each is None or isinstance(each, str | int | float) for each in values)
