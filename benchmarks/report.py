"""`docs/performance.md` from the results that there are.

python benchmarks/report.py
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
ORDER = (
    "inference", "gpu", "agreement", "training", "scaling", "schemes", "decode", "pipeline", "timeline", "serve",
    "bulk", "distributed", "faults", "fuzz", "attention",
)  # fmt: skip
HEAD = """# Performance

Written by `python benchmarks/report.py` from [`benchmarks/results`](../benchmarks/results). Each result is made by the
command that stands with it. What is compared ran in turn, in one process or, for memory, each in a process of its own;
ratios are of medians, and hold for the machine that is named. Times are there to give an idea only.
"""
NO_GPU = "On a GPU nothing has been measured yet; `python benchmarks/gpu.py` does it.\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in ORDER}
    for name in ORDER:
        for file in sorted((HERE / "results").glob(f"{name}*.json")):
            found[name][file.stem.removeprefix(name).removeprefix("_").replace("_", " ")] = json.loads(file.read_text())
    sections = [section(name, results) for name, results in found.items() if results]
    return "\n".join([HEAD, *([] if found["gpu"] else [NO_GPU]), *sections])


def section(script: str, results: dict[str, dict[str, Any]]) -> str:
    """What a script has found; figures of its several runs, each with its name, stand beside one another."""
    about = (ast.get_docstring(ast.parse((HERE / f"{script}.py").read_text())) or "").split("\n\n    python")[0]
    title, *rest = about.split("\n\n", 1)
    lines = [f"## {title.removesuffix('.')}", "", *rest, ""]
    for name, result in results.items():
        told = {key: value for key, value in result.items() if key != "command" and not isinstance(value, dict)}
        what = ", ".join(f"{key} {value}" for key, value in (told | result["machine"]).items())
        lines += [f"- {name}: `{result['command']}`: {what}" if len(results) > 1 else f"`{result['command']}`: {what}"]
    lines.append("")
    keys = dict.fromkeys(key for result in results.values() for key, value in result.items() if isinstance(value, dict))
    for key in (key for key in keys if key != "machine"):
        runs = {name: result[key] for name, result in results.items() if key in result}
        lines += [
            f"**{key.replace('_', ' ')}**",
            "",
            *table(beside(runs) if len(runs) > 1 else apart(*runs.values())),
            "",
        ]
    return "\n".join(line for line, before in zip(lines, ["x", *lines], strict=False) if line or before)


def beside(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of several runs, by their names, then by run."""
    names = dict.fromkeys(name for run in runs.values() for name in run)
    return {name: {run: values[name] for run, values in runs.items() if name in values} for name in names}


def apart(values: dict[str, Any]) -> dict[str, Any]:
    """Figures named `row, column` or `row: column` by row and column, where all are there and columns few."""
    if any(isinstance(value, dict) for value in values.values()):
        return values
    for split in (
        lambda name: name.rsplit(", ", 1),
        lambda name: name.split(", ", 1)[::-1],
        lambda name: name.rsplit(": ", 1),
    ):
        places = [tuple(split(name)) for name in values]
        if any(len(place) < 2 for place in places):
            continue
        rows, columns = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
        if len(rows) * len(columns) == len(values) and 1 < len(columns) <= 4:
            figures = dict(zip(places, values.values(), strict=True))
            return {row: {column: figures[row, column] for column in columns} for row in rows}
    return values


def table(values: dict[str, Any]) -> list[str]:
    """A line for each name; a column for each name within, if there are any."""
    if not all(isinstance(value, dict) for value in values.values()):
        return ["| | |", "|---|---|", *(f"| {name} | {cell(value)} |" for name, value in values.items())]
    columns = list(dict.fromkeys(column for row in values.values() for column in row))
    rows = [[name, *(cell(row.get(column, "–")) for column in columns)] for name, row in values.items()]
    return [
        f"| {' | '.join(['', *columns])} |",
        "|---" * (1 + len(columns)) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def cell(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {cell(inner)}" for name, inner in value.items()) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


if __name__ == "__main__":
    main()
