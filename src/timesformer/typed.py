"""Plain values from a file or a command, checked against the types of a dataclass. No value names what is called.

Types are strict: a truth value is no number, `3.0` is no whole number, text is neither, and infinity and NaN are not
taken. What is wrong is one line: the key, the value, and what is allowed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from timesformer.ranges import shown

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Kind = TypeVar("Kind")

_ALLOWED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text: in quotes where it looks like something else",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys and values",
    "dataclass_type": "keys and values",
}


def build(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """A dataclass from its fields' values, as JSON and YAML bring them.

    Args:
        kind: with `__pydantic_config__ = STRICT`, as have dataclasses inside it.

    Raises:
        ValueError: a key that it does not have, or a value of another type.
    """
    _check_keys(values)
    try:
        checked: Kind = TypeAdapter(kind).validate_json(json.dumps(values))
    except ValidationError as error:
        raise ValueError(_first_problem(error, kind, values)) from error
    return checked


def check_option(kind: type[Any], name: str, value: Any) -> None:
    """See that a plain value has the type of a field of a dataclass: ValueError with what is allowed."""
    adapter = TypeAdapter(get_type_hints(kind)[name], config=ConfigDict(strict=True, allow_inf_nan=False))
    try:
        adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        raise ValueError(_first_problem(error, kind, value)) from error


def close_match(name: str, known: Collection[str], otherwise: str = "") -> str:
    """`: did you mean X?` with the known name that is most like another; or else other words."""
    close = difflib.get_close_matches(name, known, 1)
    return f": did you mean {close[0]}?" if close else otherwise


def _check_keys(values: Any, where: str = "") -> None:
    """Keys are text: JSON would turn others into text."""
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if not isinstance(key, str):
            raise ValueError(f"{where}the key {shown(key)} must be text")
        _check_keys(value, f"{where.removesuffix(': ')}{'.' if where else ''}{key}: ")


def _first_problem(error: ValidationError, kind: type[Any], values: Any) -> str:
    """The first of what is wrong, as one line."""
    problems = error.errors(include_url=False)
    lists = [problem for problem in problems if "tuple" in "".join(map(str, problem["loc"]))]
    problem = lists[0] if lists and isinstance(values, list | tuple) else problems[0]
    kind_of_problem, context = problem["type"], problem.get("ctx", {})
    if kind_of_problem == "value_error":  # raised by the dataclass itself, which names what it means
        return str(context["error"])
    path = [str(part) for part in problem["loc"] if not _is_member(str(part))]
    given = problem["input"]
    if kind_of_problem in ("missing", "too_long", "too_short"):  # in a list of so many
        if kind_of_problem == "missing":
            path.pop()
        length = context.get("max_length") or len(given) + 1
        return f"{_named(path)}={shown(_within(values, path))}: must be a list of {length}"
    if kind_of_problem == "unexpected_keyword_argument":
        fields = _fields(kind, path[:-1])
        return f"{_named(path)}={shown(given)}: there is no such key{close_match(path[-1], fields)}"
    if kind_of_problem == "literal_error":
        return f"{_named(path)}={shown(given)}: must be one of {context['expected'].replace(' or ', ', ')}"
    if kind_of_problem in _ALLOWED:
        verb = "hold" if _ALLOWED[kind_of_problem] == "keys and values" else "be"
        return f"{_named(path)}={shown(given)}: must {verb} {_ALLOWED[kind_of_problem]}"
    return f"{_named(path)}={shown(given)}: {problem['msg']}"


def _is_member(part: str) -> bool:
    """Whether a part of a place in a document is not in it, but a member of a union of types."""
    return part in ("int", "float", "str") or part.startswith("tuple[")


def _named(path: list[str]) -> str:
    return ".".join(path)


def _within(values: Any, path: list[str]) -> Any:
    for part in path:
        values = values[int(part) if isinstance(values, list | tuple) else part]
    return values


def _fields(kind: type[Any], path: list[str]) -> list[str]:
    """The names of the fields of a dataclass, or of the one that a path of fields leads to."""
    hints = get_type_hints(kind)
    return _fields(hints[path[0]], path[1:]) if path else list(hints)
