"""Any of the paper's tables and figures by name: `timesformer reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from timesformer.files import replace_file
from timesformer.reproduce import figures
from timesformer.reproduce.paper import EXPERIMENTS
from timesformer.reproduce.plan import Plan
from timesformer.reproduce.report import environment, write_report

TABLES = [f"table{number}" for number in range(1, 9)]
FIGURES = [f"figure{number}" for number in range(2, 9)]
ALL = [*TABLES, *FIGURES, "section4.7", "inference-time"]


def names_of(names: Sequence[str]) -> list[str]:
    """The experiments that are meant, `all` being those of the paper. Raises ValueError for an unknown one."""
    known = list(dict.fromkeys([*ALL, *EXPERIMENTS]))
    for name in names:
        if name not in [*known, "all"]:
            raise ValueError(f"experiment {name!r} is not one of {', '.join(known)}, all")
    return list(dict.fromkeys(each for name in names for each in (ALL if name == "all" else [name])))


def reproduce(name: str, plan: Plan) -> str:
    """Do an experiment, write its files, and return its section of `results.md`.

    Raises:
        ValueError: data that the experiment needs are not given, or are not its own.
    """
    command = plan.command(name)
    if name in EXPERIMENTS:
        experiment = EXPERIMENTS[name]
        experiment = replace(experiment, notes=[*experiment.notes, *plan.notes()])
        section = write_report(experiment, plan.run(experiment), plan.out, command)
    else:
        section = figures.FIGURES[name](plan, command)
        with replace_file(plan.out / f"{name}.md") as file:
            file.write_text(section, encoding="utf-8")
    write_page(plan.out)
    return section


def write_page(out: Path) -> None:
    """Put the sections that there are together, in the paper's order, as `results.md`."""
    sections = [out / f"{name}.md" for name in dict.fromkeys([*ALL, *EXPERIMENTS])]
    head = ["# Results", "", *(f"- {name}: {value}" for name, value in environment().items()), ""]
    with replace_file(out / "results.md") as file:
        texts = [section.read_text(encoding="utf-8") for section in sections if section.exists()]
        file.write_text("\n".join([*head, *texts]), encoding="utf-8")
