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
ratios are of medians, and hold for the machine that is named. Times are there to give an idea only. On a GPU nothing
has been measured yet; `python benchmarks/gpu.py` does it.
"""


def main() -> None:
    files = [file for name in ORDER for file in sorted((HERE / "results").glob(f"{name}*.json"))]
    sections = [section(json.loads(file.read_text()), file.stem.split("_")[0]) for file in files]
    PAGE.write_text("\n".join([HEAD, *sections]), encoding="utf-8")


def section(result: dict[str, Any], script: str) -> str:
    machine = result.pop("machine")
    command = result.pop("command")
    about = (ast.get_docstring(ast.parse((HERE / f"{script}.py").read_text())) or "").split("\n\n    python")[0]
    title, *rest = about.split("\n\n", 1)
    what = ", ".join(f"{key} {value}" for key, value in result.items() if not isinstance(value, dict))
    here = ", ".join(f"{key} {value}" for key, value in machine.items())
    lines = [f"## {title.removesuffix('.')}", "", *rest, "", f"`{command}`", "", f"{what}  " if what else "", here, ""]
    for name, value in result.items():
        if isinstance(value, dict):
            lines += [f"**{name.replace('_', ' ')}**", "", *table(value), ""]
    return "\n".join(line for line, before in zip(lines, ["x", *lines], strict=False) if line or before)


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
