"""How experiments are done: in miniature or in full, on which data, and where to."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from timesformer.reproduce.experiment import Experiment, Results
from timesformer.reproduce.run import Job, full_jobs, mini_jobs, run
from timesformer.video.datasets import splits


@dataclass(frozen=True)
class Plan:
    """How experiments are done: at which scale, on which data, where to.

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

    def jobs(self, experiment: Experiment) -> list[Job]:
        """What an experiment consists of. Raises ValueError where its data are not given, or are not its own."""
        seeds = range(self.seeds or (3 if self.scale == "mini" else 1))
        if self.scale == "mini":
            return mini_jobs(experiment, self.out, seeds, self.data)
        return full_jobs(experiment, self.full_data, self.out, seeds)

    def run(self, experiment: Experiment) -> Results:
        """Do what is not done yet of an experiment."""
        jobs, processes = self.jobs(experiment), self.processes or self._usual_processes()
        self.say(f"{experiment.name}: {len(jobs)} parts, {processes} at a time, in {self.out}")
        return run(experiment, jobs, self.out, processes, self.say)

    def _usual_processes(self) -> int:
        if torch.cuda.is_available():
            return torch.cuda.device_count()
        return len(os.sched_getaffinity(0)) if self.scale == "mini" else 1

    def notes(self) -> list[str]:
        """What a reader must know of videos of one's own."""
        given = [self.data] if self.data else list(self.full_data.values())
        return [
            f"{folder.name} has no splits: a fifth of each class, the same for all models, is held out to test on."
            for folder in given
            if not splits(folder)
        ]

    def command(self, name: str) -> str:
        """What to type for it."""
        words = ["timesformer", "reproduce", name, "--scale", self.scale]
        words += ["--seeds", str(self.seeds)] if self.seeds else []
        data = [str(self.data)] if self.data else [f"{name}={folder}" for name, folder in self.full_data.items()]
        return shlex.join([*words, *(["--data", *data] if data else [])])
