"""JSON and YAML from somebody else, read into plain values: nothing is imported or run, all of it is bounded.

A document may be too large, too deep, or repeat itself by YAML aliases until no memory holds it; it may also name
code for a parser to import (`class_path`). All of that is refused here, before anything else looks at the document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

from timesformer.limits import limit

_NAMES_OF_CODE = ("class_path", "_target_")  # keys whose values other parsers import
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_WORD = re.compile(r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_NOTHING = re.compile(r"(?:~|null|Null|NULL|)$")

# The latter are what the constructors of tags raise on values that are none, such as `!!int ''`.
_NOT_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Numbers as YAML 1.2 has them (`1e-4` is one, `010` and `1:30` are not), words as YAML 1.1; dates are text."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # not those of YAML 1.1, which the base class has


class _Dumper(yaml.SafeDumper):
    """Text that either of YAML 1.1 and `_Loader` would take for something else is written in quotes."""


_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}bool", _WORD, list("yYnNtTfFoO"))
_Loader.add_implicit_resolver(f"{_TAG}null", _NOTHING, ["~", "n", "N", ""])
_Dumper.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


def read_json(path: Path, *, max_bytes: int | None = None) -> Any:
    """The content of a JSON file. Raises OSError if it can't be read, ValueError as `parse_json`."""
    return parse_json(_read(path, max_bytes), str(path), max_bytes=max_bytes)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises OSError if it can't be read, ValueError as `parse_yaml`."""
    return parse_yaml(_read(path, limit("MAX_YAML_BYTES")), str(path))


def read_text(path: Path) -> str:
    """The content of a text file. Raises OSError if it can't be read, ValueError if it is too large or no UTF-8."""
    content = _read(path, None)
    _check_size(content, str(path), None)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8: {error}") from error


def dump_yaml(value: Any) -> str:
    """A value as YAML that `parse_yaml` reads as the same."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def parse_json(text: str | bytes, where: str, *, max_bytes: int | None = None) -> Any:
    """The value of a JSON document.

    Args:
        where: names the document in errors.
        max_bytes: of the document, where other than `MAX_DOCUMENT_BYTES`; it then bounds the number of values too.

    Raises:
        ValueError: it is no JSON, is larger or deeper than the limits allow, or names code to be imported.
    """
    _check_size(text, where, max_bytes)
    _check_marks(text, where, max_bytes)
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"{where}: is not JSON: {error}") from error
    _check_values(value, where, _most_values(max_bytes))
    return value


def parse_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML document of plain values. Aliases count as if they were written out.

    Raises:
        ValueError: it is no YAML, holds other than plain values, is larger or deeper than the limits allow, or names
            code to be imported.
    """
    _check_size(text, where, limit("MAX_YAML_BYTES"), "MAX_YAML_BYTES")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):  # before it is loaded, as loading recurs
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > limit("MAX_DOCUMENT_DEPTH"):
                raise RecursionError
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<":  # can double a mapping in every line
                raise ValueError("merge keys (<<) are not taken: write the values out")
        value = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise _too_deep(where) from None
    except _NOT_YAML as error:
        raise ValueError(f"{where}: is not YAML of plain values: {' '.join(str(error).split())}") from error
    _check_values(value, where, limit("MAX_YAML_VALUES"), "MAX_YAML_VALUES")
    return value


def _read(path: Path, max_bytes: int | None) -> bytes:
    largest = max_bytes or limit("MAX_DOCUMENT_BYTES")
    with path.open("rb") as file:
        return file.read(largest + 1)


def _check_size(text: str | bytes, where: str, max_bytes: int | None, name: str = "MAX_DOCUMENT_BYTES") -> None:
    largest = max_bytes or limit(name)
    if len(text) > largest:
        variable = f" (TIMESFORMER_{name})" if largest == limit(name) else ""
        raise ValueError(f"{where}: has more than {largest} bytes, the most that such a document may have{variable}")


def _check_marks(text: str | bytes, where: str, max_bytes: int | None) -> None:
    """See that a JSON document has no more commas and brackets than it may have values, before any is made."""
    most = _most_values(max_bytes)
    marks = (",", "[", "{")
    count = sum(text.count(mark) if isinstance(text, str) else text.count(mark.encode()) for mark in marks)
    if count > most:
        raise _too_many(where, most, "MAX_DOCUMENT_VALUES")


def _most_values(max_bytes: int | None) -> int:
    return max(limit("MAX_DOCUMENT_VALUES"), max_bytes or 0)


def _check_values(value: Any, where: str, most: int, name: str = "MAX_DOCUMENT_VALUES") -> None:
    """Walk through a document with its aliases written out. A walk that a limit ends is short, whatever it is in."""
    deepest = limit("MAX_DOCUMENT_DEPTH")
    open_branches: list[Iterator[Any]] = [iter((value,))]
    count = 0
    while open_branches:
        for each in open_branches[-1]:
            count += 1
            if count > most:
                raise _too_many(where, most, name)
            if isinstance(each, dict):
                if named := next((name for name in _NAMES_OF_CODE if name in each), None):
                    raise ValueError(f"{where}: the key {named!r} names code to be run, which is never allowed")
                branch = iter(each.values())
            elif isinstance(each, list | tuple):
                branch = iter(each)
            elif each is None or isinstance(each, str | int | float):
                continue
            else:  # by a tag of YAML, such as !!binary
                raise ValueError(f"{where}: holds a value of the type {type(each).__name__}, not only plain values")
            if len(open_branches) > deepest:
                raise _too_deep(where)
            open_branches.append(branch)
            break
        else:
            open_branches.pop()


def _too_many(where: str, most: int, name: str) -> ValueError:
    return ValueError(f"{where}: has more than {most} values (TIMESFORMER_{name})")


def _too_deep(where: str) -> ValueError:
    return ValueError(
        f"{where}: lists and mappings lie more than {limit('MAX_DOCUMENT_DEPTH')} deep in each other "
        "(TIMESFORMER_MAX_DOCUMENT_DEPTH)"
    )
