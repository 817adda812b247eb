"""What an experiment came to: our figures beside the paper's, and which of its conclusions hold here."""

from __future__ import annotations

import csv
import math
import platform
from pathlib import Path
from typing import Any

import torch

from timesformer import __version__
from timesformer.files import replace_file, save_figure, write_json
from timesformer.reproduce.experiment import Experiment, Results


def columns_of(experiment: Experiment, results: Results) -> dict[str, str]:
    """The columns that there are results of, and what their data are."""
    there = dict.fromkeys(column for _, column in results.scores)
    return {column: experiment.columns.get(column, column) for column in there}


def verdicts(experiment: Experiment, results: Results) -> list[dict[str, Any]]:
    """Each claim with the margin, in points, by which it holds here or does not."""
    found = []
    for claim in experiment.claims:
        margin = claim.margin(results)
        found.append({"claim": claim.text, "points": margin, "at_least": claim.least, "holds": margin >= claim.least})
    return found


def markdown(experiment: Experiment, results: Results, command: str) -> str:
    """The experiment as a section of a page."""
    columns = columns_of(experiment, results)
    seeds = len(next(iter(results.scores.values())))
    head = ["", *(cell for column, task in columns.items() for cell in (f"{task}, here", f"{column}, paper"))]
    lines = [f"## {experiment.name}: {experiment.title}", "", f"`{command}`", ""]
    lines += [f"Top-1 in percent, mean ± standard deviation over {seeds} seeds.", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in experiment.rows:
        cells = [row.name]
        for column in columns:
            cells.append(f"{results.mean(row.name, column):.1f} ± {results.deviation(row.name, column):.1f}")
            cells.append(f"{row.paper[column]:.1f}" if column in row.paper else "–")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| the paper's conclusion | here | points |", "|---|---|---|"]
    for verdict in verdicts(experiment, results):
        asked = f" (at least {verdict['at_least']:.0f} asked)" if verdict["at_least"] else ""
        holds = "holds" if verdict["holds"] else "does not hold"
        lines.append(f"| {verdict['claim']} | {holds} | {verdict['points']:+.1f}{asked} |")
    return "\n".join(lines) + "\n"


def write_report(experiment: Experiment, results: Results, out: Path, command: str) -> None:
    """Write the experiment as NAME.md, .csv, .json and .png into a folder."""
    columns = columns_of(experiment, results)
    with replace_file(out / f"{experiment.name}.md") as file:
        file.write_text(markdown(experiment, results, command), encoding="utf-8")
    with replace_file(out / f"{experiment.name}.csv") as file, file.open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines)
        rows.writerow(["row", "column", "data", "seed", "top1", "paper"])
        for row in experiment.rows:
            for column, task in columns.items():
                for seed, score in enumerate(results.scores[row.name, column]):
                    rows.writerow([row.name, column, task, seed, f"{score:.4f}", row.paper.get(column, "")])
    versions = {"timesformer": __version__, "torch": torch.__version__, "python": platform.python_version()}
    scores = {f"{row}, {columns[column]}": list(values) for (row, column), values in results.scores.items()}
    write_json(
        out / f"{experiment.name}.json",
        {"command": command, "versions": versions, "top1": scores, "claims": verdicts(experiment, results)},
    )
    draw(experiment, results, out / f"{experiment.name}.png")


def draw(experiment: Experiment, results: Results, file: Path) -> None:
    """Bars of our figures, with their deviation, and the paper's as marks."""
    from matplotlib.figure import Figure

    columns = columns_of(experiment, results)
    figure = Figure(figsize=(1.3 * len(experiment.rows) + 3, 3.4 * len(columns)), layout="constrained")
    for axes, (column, task) in zip(figure.subplots(len(columns), squeeze=False)[:, 0], columns.items(), strict=True):
        names = [row.name for row in experiment.rows]
        means = [results.mean(name, column) for name in names]
        deviations = [results.deviation(name, column) for name in names]
        axes.bar(names, means, yerr=deviations, capsize=4, color="#7aa6d6", label=f"{task}, here")
        paper = [row.paper.get(column, math.nan) for row in experiment.rows]
        if not all(map(math.isnan, paper)):
            axes.plot(names, paper, "D", color="#b03a2e", label=f"{column}, paper")
        axes.set_ylim(0, 105)
        axes.set_ylabel("top-1 (%)")
        axes.tick_params(axis="x", labelrotation=15)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(f"{experiment.name}: {experiment.title}")
    save_figure(file, figure)
