"""Completion of the command line in shells, by the package shtab: `timesformer --print-completion bash`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

_FILES = ("MODEL", "SRC", "VIDEO", "FILE")  # what is a file or folder as often as a name


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that makes a shell complete the commands, options and file names of a parser.

    Raises:
        ImportError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise ImportError("--print-completion needs the extra: pip install 'timesformer[completion]'") from error
    for action in _actions(parser):
        if action.type is Path or action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return script


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
