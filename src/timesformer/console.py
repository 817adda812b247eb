"""What commands print: results on standard output, messages and progress on standard error, all of it harmless to show.

Names of files and classes come from others, and a terminal obeys what it is sent: see `timesformer.text.shown`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Any, NoReturn

from rich.console import Console

from timesformer.text import shown


class OutputClosed(Exception):
    """Whoever read the standard output has closed it, as `head` does."""


def say(*lines: object) -> None:
    """Print lines of a result on standard output. Raises OutputClosed where nobody reads them any more."""
    for line in lines:
        write_out(shown(line) + "\n")


def write_out(text: str) -> None:
    """Write text as it is to standard output; what its encoding lacks is escaped. Raises OutputClosed."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError as error:
        raise OutputClosed from error


def flush_out() -> None:
    """Send what was printed on its way. Raises OutputClosed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error


def drop_out() -> None:
    """Write what is still to come on standard output nowhere, so that nothing fails when Python shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class SafeConsole(Console):
    """A console that shows control characters of the texts that it prints as escapes.

    Brackets and colons are what they are, unless a text is printed with `markup=True`.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `rich.console.Console` does."""
        super().print(*(shown(each, lines=True) if isinstance(each, str) else each for each in objects), **options)

    def note(self, text: str) -> None:
        """Print what is worth knowing, but no error."""
        self.print(text, style="yellow", soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Be quiet from now on where nobody reads messages any more; for results, raise OutputClosed."""
        if not self.stderr:
            raise OutputClosed
        self.quiet = True


class SafeFormatter(logging.Formatter):
    """Messages of a log, each in a line, with control characters as escapes."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return shown(super().formatMessage(record))


class Parser(argparse.ArgumentParser):
    """A parser of arguments that keeps in mind which were given.

    Attributes:
        given: names (`dest`) of the arguments that were given, whether or not they have a default.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.given: set[str] = set()

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:  # called for what is given alone
        if action.option_strings:
            self.given.add(action.dest)
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        super().error(shown(message))
