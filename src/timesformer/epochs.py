"""The figures of a run's epochs, as training writes them into `metrics.jsonl`, a line of JSON an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timesformer.documents import parse_json, read_text

_WHAT_TO_DO = "remove the line, or move the file away"


def read_epochs(file: Path) -> list[dict[str, Any]]:
    """The epochs of a run's `metrics.jsonl`; none where there is no such file.

    A last line without its end is left out: its writer was cut off.

    Raises:
        OSError, ValueError: the file can't be read, or a line is no epoch; the message names it, and says what to do.
    """
    if not file.is_file():
        return []
    *lines, _ = read_text(file).split("\n")
    epochs: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            values = parse_json(line, f"{file}: line {number}")
        except ValueError as error:
            raise ValueError(f"{error}: {_WHAT_TO_DO}") from error
        if not isinstance(values, dict) or type(values.get("epoch")) is not int:
            raise ValueError(f"{file}: line {number}: has no number of an epoch: {_WHAT_TO_DO}")
        epochs.append(values)
    return epochs
