"""Any of the paper's tables and figures by name: `timesformer reproduce`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from timesformer.files import replace_file
from timesformer.reproduce import figures
from timesformer.reproduce.experiment import Experiment, Results
from timesformer.reproduce.paper import EXPERIMENTS
from timesformer.reproduce.report import environment, markdown, write_report
from timesformer.reproduce.run import full_jobs, mini_jobs, run

TABLES = [f"table{number}" for number in range(1, 9)]
FIGURES = [f"figure{number}" for number in range(2, 9)]
ALL = [*TABLES, *FIGURES, "section4.7", "inference-time"]


@dataclass(frozen=True)
class Plan:
    """How experiments are done.

    Attributes:
        out: folder for data, parts and results.
        scale: `mini` or `full`.
        seeds: how often each part is done; None is 3 in miniature, 1 in full.
        data: a labelled folder of one's own, in miniature.
        full_data: the paper's data sets by name, in full.
        processes: trainings at a time; None is one a GPU, or without in miniature one a core.
        say: called with a line of progress.
    """

    out: Path
    scale: Literal["mini", "full"] = "mini"
    seeds: int | None = None
    data: Path | None = None
    full_data: Mapping[str, Path] = field(default_factory=dict)
    processes: int | None = None
    say: Callable[[str], None] = lambda line: None

    def run(self, experiment: Experiment) -> Results:
        """Do what is not done yet of an experiment."""
        seeds = range(self.seeds or (3 if self.scale == "mini" else 1))
        if self.scale == "mini":
            jobs = mini_jobs(experiment, self.out, seeds, self.data)
        else:
            jobs = full_jobs(experiment, self.full_data, self.out, seeds)
        return run(experiment, jobs, self.out, self.processes or self._usual_processes(), self.say)

    def _usual_processes(self) -> int:
        if torch.cuda.is_available():
            return torch.cuda.device_count()
        return len(os.sched_getaffinity(0)) if self.scale == "mini" else 1

    def command(self, name: str) -> str:
        """What to type for it."""
        words = ["timesformer", "reproduce", name, "--scale", self.scale]
        words += ["--seeds", str(self.seeds)] if self.seeds else []
        data = [str(self.data)] if self.data else [f"{name}={folder}" for name, folder in self.full_data.items()]
        return shlex.join([*words, *(["--data", *data] if data else [])])


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
        results = plan.run(experiment)
        write_report(experiment, results, plan.out, command)
        section = markdown(experiment, results, command)
    else:
        section = figures.FIGURES[name](plan.out, plan.run, command)
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
