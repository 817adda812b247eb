"""Any of the paper's tables and figures by name: `timesformer reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from timesformer.files import write_text
from timesformer.lock import output_lock
from timesformer.outputs import check_output
from timesformer.reproduce import figures
from timesformer.reproduce.paper import EXPERIMENTS
from timesformer.reproduce.plan import Plan
from timesformer.reproduce.report import environment, write_report

TABLES = [f"table{number}" for number in range(1, 9)]
FIGURES = [f"figure{number}" for number in range(2, 9)]
NO_TRAINING = ("figure2", "figure3", "inference-time")  # which need no data, and have no seeds
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
        ValueError: data that the experiment needs are not given, or are not its own; or as `check_out`.
        OutputInUse: another process writes into the folder.
    """
    with output_lock(plan.out, folder=True):
        return _reproduce(name, plan)


def check_out(plan: Plan) -> None:
    """See that the folder of results can be written, is none of the data's, and has no page of somebody else's.

    Raises:
        ValueError: one of these things is not so.
    """
    inputs = [plan.data, *plan.full_data.values()]
    check_output(plan.out, "out", folder=True, inputs=[each for each in inputs if each])
    page = plan.out / "results.md"
    if page.exists() and not page.read_bytes().startswith(b"# Results\n\n- timesformer: "):
        raise ValueError(f"{page}: exists, and no experiment wrote it: move it, or name another folder")


def _reproduce(name: str, plan: Plan) -> str:
    check_out(plan)
    command = plan.command(name)
    if name in EXPERIMENTS:
        experiment = EXPERIMENTS[name]
        experiment = replace(experiment, notes=[*experiment.notes, *plan.notes()])
        section = write_report(experiment, plan.run(experiment), plan.out, command)
    else:
        section = figures.FIGURES[name](plan, command)
        write_text(plan.out / f"{name}.md", section)
    write_page(plan.out)
    return section


def write_page(out: Path) -> None:
    """Put the sections that there are together, in the paper's order, as `results.md`."""
    sections = [out / f"{name}.md" for name in dict.fromkeys([*ALL, *EXPERIMENTS])]
    head = ["# Results", "", *(f"- {name}: {value}" for name, value in environment().items()), ""]
    texts = [section.read_text(encoding="utf-8") for section in sections if section.exists()]
    write_text(out / "results.md", "\n".join([*head, *texts]))
