"""JSON and YAML from somebody else, read into plain values: nothing is imported or run, and nothing grows without bound.

A document may be too large, too deep, or repeat itself by YAML aliases until no memory holds it; it may also name
code for a parser to import (`class_path`). All of that is refused here, before anything else looks at the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from timesformer.limits import limit

_NAMES_OF_CODE = ("class_path", "_target_")  # keys by which parsers of configurations are told what to import


def read_json(path: Path, *, max_bytes: int | None = None) -> Any:
    """The content of a JSON file. Raises OSError if it can't be read, ValueError as `parse_json`."""
    return parse_json(_read(path, max_bytes), str(path), max_bytes=max_bytes)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises OSError if it can't be read, ValueError as `parse_yaml`."""
    return parse_yaml(_read(path, limit("MAX_YAML_BYTES")), str(path))


def parse_json(text: str | bytes, where: str, *, max_bytes: int | None = None) -> Any:
    """The value of a JSON document.

    Args:
        where: names the document in errors.
        max_bytes: of the document, where other than `MAX_DOCUMENT_BYTES`; it then bounds the number of values too.

    Raises:
        ValueError: it is no JSON, is larger or deeper than the limits allow, or names code to be imported.
    """
    _check_size(text, where, max_bytes)
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"{where}: is not JSON: {error}") from error
    _check_values(value, where, max_bytes)
    return value


def parse_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML document of plain values. Aliases count as if they were written out.

    Raises:
        ValueError: it is no YAML, holds other than plain values, is larger or deeper than the limits allow, or names
            code to be imported.
    """
    _check_size(text, where, limit("MAX_YAML_BYTES"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):  # before it is loaded, as loading recurs
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > limit("MAX_DOCUMENT_DEPTH"):
                raise RecursionError
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<":  # can double a mapping in every line
                raise ValueError("merge keys (<<) are not taken: write the values out")
        value = yaml.load(text, Loader=loader)
    except RecursionError:
        raise _too_deep(where) from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{where}: is not YAML of plain values: {' '.join(str(error).split())}") from error
    _check_values(value, where, None)
    return value


def _read(path: Path, max_bytes: int | None) -> bytes:
    largest = max_bytes or limit("MAX_DOCUMENT_BYTES")
    with path.open("rb") as file:
        return file.read(largest + 1)


def _check_size(text: str | bytes, where: str, max_bytes: int | None) -> None:
    largest = max_bytes or limit("MAX_DOCUMENT_BYTES")
    if len(text) > largest:
        raise ValueError(f"{where}: has more than {largest} bytes, the most that such a document may have")


def _check_values(value: Any, where: str, max_bytes: int | None) -> None:
    """Walk through a document with its aliases written out. A walk that a limit ends is short, whatever it is in."""
    most = max(limit("MAX_DOCUMENT_VALUES"), max_bytes or 0)
    deepest = limit("MAX_DOCUMENT_DEPTH")
    open_branches: list[Iterator[Any]] = [iter((value,))]
    count = 0
    while open_branches:
        for each in open_branches[-1]:
            count += 1
            if count > most:
                raise ValueError(f"{where}: has more than {most} values (TIMESFORMER_MAX_DOCUMENT_VALUES)")
            if isinstance(each, dict):
                if named := next((name for name in _NAMES_OF_CODE if name in each), None):
                    raise ValueError(f"{where}: the key {named!r} names code to be run, which is never allowed")
                branch = iter(each.values())
            elif isinstance(each, list | tuple):
                branch = iter(each)
            else:
                continue
            if len(open_branches) > deepest:
                raise _too_deep(where)
            open_branches.append(branch)
            break
        else:
            open_branches.pop()


def _too_deep(where: str) -> ValueError:
    return ValueError(
        f"{where}: lists and mappings lie more than {limit('MAX_DOCUMENT_DEPTH')} deep in each other "
        "(TIMESFORMER_MAX_DOCUMENT_DEPTH)"
    )
