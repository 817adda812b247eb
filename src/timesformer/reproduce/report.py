"""What an experiment came to: our figures beside the paper's, and which of its conclusions hold here."""

from __future__ import annotations

import math
import os
import platform
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from timesformer import __version__
from timesformer.files import save_figure, write_csv, write_json, write_text
from timesformer.reproduce.costs import full_cost
from timesformer.reproduce.experiment import TASKS, Claim, Experiment, Results, Row

MOTION_NOTE = (
    "The recipe and the `motion` videos were made for each other: settings were changed until divided attention "
    "learned the task, as seen on the videos that are tested here, and the moving shapes fade on one side, so that "
    "time attention sees a motion within one patch. What divided attention reaches on `motion` shows that such a "
    "model can learn it; it is no fair comparison of schemes."
)


def columns_of(experiment: Experiment, results: Results) -> dict[str, str]:
    """The data sets that there are results of, or figures of the paper's, and what stands for each here."""
    there = {column for _, column in results.outcomes}
    quoted = {column for row in experiment.rows for column in row.paper}
    own = sorted(there - quoted - set(experiment.columns))
    return {column: TASKS.get(column, column) for column in [*experiment.columns, *sorted(quoted), *own]}


def verdicts(experiment: Experiment, results: Results) -> list[dict[str, Any]]:
    """Each claim with the points by which it holds here, their deviation over seeds, and what that comes to."""
    return [_verdict(claim, results) for claim in experiment.claims]


def _verdict(claim: Claim, results: Results) -> dict[str, Any]:
    told = {"claim": claim.text, "at_least": claim.least}
    if claim.margin is None:
        return {**told, "holds": None, "verdict": f"not tested here: {claim.why_not}"}
    try:
        points = claim.margin(results)
        by_seed = [claim.margin(seed) for seed in results.by_seed()]
    except KeyError:
        return {**told, "holds": None, "verdict": "not tested here"}
    spread = statistics.stdev(by_seed) if len(by_seed) > 1 else 0.0
    holds = points > claim.least
    verdict = "holds" if holds else "does not hold"
    if abs(points - claim.least) < spread:
        verdict += ", within the spread of the seeds"
    return {**told, "holds": holds, "verdict": verdict, "points": points, "by_seed": by_seed, "deviation": spread}


def markdown(experiment: Experiment, results: Results, command: str) -> str:
    """The experiment as a section of a page."""
    seeds = max(map(len, results.outcomes.values()))
    columns = columns_of(experiment, results)
    over = (
        f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "of one seed, so that small gaps mean nothing"
    )
    lines = [f"Top-1 in percent, {over}."]
    lines += experiment.notes
    lines += _how_miniatures_were_made(columns, results)
    table = [_scores(experiment, results, columns), *_costs(experiment, results)]
    head, *rows = [[cell for part in line for cell in part] for line in zip(*table, strict=True)]
    lines += ["", *table_lines(head, rows)]
    claims = []
    for verdict in verdicts(experiment, results):
        points = f"{verdict['points']:+.1f} ± {verdict['deviation']:.1f}" if "points" in verdict else "–"
        asked = f" (more than {verdict['at_least']:.0f} asked)" if verdict["at_least"] else ""
        claims.append([verdict["claim"], verdict["verdict"], points + asked])
    if claims:
        lines += ["", *table_lines(["the paper's conclusion", "here", "points"], claims)]
    lines += ["", f"![{experiment.title}]({experiment.name}.png)"]
    return section(f"{experiment.name}: {experiment.title}", command, lines)


def _how_miniatures_were_made(columns: dict[str, str], results: Results) -> list[str]:
    """What figures on generated videos cannot show."""
    generated = {columns[column] for _, column in results.outcomes}
    return [MOTION_NOTE] if "motion" in generated else []


Cells = list[list[str]]


def section(title: str, command: str, lines: list[str]) -> str:
    """A section of the page of results."""
    return "\n".join([f"## {title}", "", f"`{command}`", "", *lines]) + "\n"


def table_lines(head: list[str], rows: Cells) -> list[str]:
    """A table in markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


def _scores(experiment: Experiment, results: Results, columns: dict[str, str]) -> Cells:
    """Names, our figures and the paper's: the head, then a line a row."""
    there = {column for _, column in results.outcomes}
    quoted = {column for row in experiment.rows for column in row.paper}
    head = [""]
    for column, task in columns.items():
        head += [f"{task}, here"] * (column in there) + [f"{column}, paper"] * (column in quoted)
    cells = [head]
    for row in experiment.rows:
        line = [f"{row.name} (quoted: {row.quoted})" if row.quoted else row.name]
        for column in columns:
            if column in there:
                line.append(_ours(results, row.name, column))
            if column in quoted:
                figures = [row.paper.get(column), row.top5.get(column)]
                line.append(" / ".join(f"{figure:.1f}" for figure in figures if figure is not None) or "–")
        cells.append(line)
    return cells


def _ours(results: Results, row: str, column: str) -> str:
    if (row, column) not in results.outcomes:
        return "–"
    mean = f"{results.mean(row, column):.1f}"
    return f"{mean} ± {results.deviation(row, column):.1f}" if len(results.scores(row, column)) > 1 else mean


def _costs(experiment: Experiment, results: Results) -> list[Cells]:
    """What rows cost, in full and here: as far as there is anything to say."""
    tables = []
    if any(row.full or row.tera_macs for row in experiment.rows):
        tables.append([["parameters, full", "T MACs a video, full"], *map(_full_costs, experiment.rows)])
    if any(row.hours for row in experiment.rows):
        tables.append([["V100-hours, paper"], *([f"{row.hours:.0f}" if row.hours else "–"] for row in experiment.rows)])
    here = [["parameters, here", "M MACs a view, here"] + ["training, here", "a view, here"] * experiment.timed]
    for row in experiment.rows:
        found = [outcome for (name, _), of in results.outcomes.items() if name == row.name for outcome in of]
        cost = [f"{found[0].parameters:,}", f"{found[0].macs / 1e6:.1f}"] if found else ["–", "–"]
        if experiment.timed:
            seconds = statistics.fmean(outcome.train_seconds for outcome in found)
            view = statistics.median(outcome.view_seconds for outcome in found)
            cost += [f"{seconds:.0f} s", f"{1000 * view:.1f} ms"]
        here.append(cost)
    return [*tables, here]


def _full_costs(row: Row) -> list[str]:
    cost = full_cost(row)
    if cost is None:
        return ["–", f"{row.tera_macs}" if row.tera_macs else "–"]
    macs = f"{cost.macs * (cost.views or 1) / 1e12:.3g}"
    return [f"{cost.parameters / 1e6:.1f} M", macs if cost.views else f"{macs} a clip"]


def write_report(experiment: Experiment, results: Results, out: Path, command: str) -> str:
    """Write the experiment as NAME.md, .csv, .json and .png into a folder; return what NAME.md says."""
    columns = columns_of(experiment, results)
    page = markdown(experiment, results, command)
    write_text(out / f"{experiment.name}.md", page)
    rows: list[list[Any]] = [
        ["row", "column", "data", "seed", "top1", "top5", "paper_top1", "paper_top5", "quoted"],
    ]
    for row in experiment.rows:
        for column, task in columns.items():
            about = [row.paper.get(column, ""), row.top5.get(column, ""), row.quoted]
            for seed, outcome in enumerate(results.outcomes.get((row.name, column), [])):
                figures = [f"{outcome.top1:.4f}", f"{outcome.top5:.4f}"]
                rows.append([row.name, column, task, seed, *figures, *about])
            if (row.name, column) not in results.outcomes and column in row.paper:
                rows.append([row.name, column, "", "", "", "", *about])
    write_csv(out / f"{experiment.name}.csv", rows)
    write_json(
        out / f"{experiment.name}.json",
        {
            "command": command,
            "environment": environment(),
            "outcomes": [
                {"row": row, "column": column, "data": columns[column], "seeds": [asdict(outcome) for outcome in of]}
                for (row, column), of in results.outcomes.items()
            ],
            "full_scale": {row.name: asdict(cost) for row in experiment.rows if (cost := full_cost(row))},
            "claims": verdicts(experiment, results),
        },
    )
    draw(experiment, results, out / f"{experiment.name}.png")
    return page


def environment() -> dict[str, str]:
    """Versions, and what computed."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    return {
        "timesformer": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}",
    }


def draw(experiment: Experiment, results: Results, file: Path) -> None:
    """Our figures with their deviation, and the paper's: bars, or curves where rows are points of curves."""
    from matplotlib.figure import Figure

    columns = {column: task for column, task in columns_of(experiment, results).items() if _has(results, column)}
    rows = [row for row in experiment.rows if any((row.name, column) in results.outcomes for column in columns)]
    width = 8.0 if experiment.x_label else 1.3 * len(rows) + 3
    figure = Figure(figsize=(width, 3.6 * len(columns)), layout="constrained")
    for axes, (column, task) in zip(figure.subplots(len(columns), squeeze=False)[:, 0], columns.items(), strict=True):
        there = [row for row in rows if (row.name, column) in results.outcomes]
        paper = [row.paper.get(column, math.nan) for row in there]
        means = [results.mean(row.name, column) for row in there]
        spreads = [results.deviation(row.name, column) for row in there]
        if experiment.x_label:
            for number, curve in enumerate(dict.fromkeys(row.curve for row in there)):
                at = [place for place, row in enumerate(there) if row.curve == curve]
                x = [there[place].x for place in at]
                colour = f"C{number}"
                axes.errorbar(x, [means[p] for p in at], [spreads[p] for p in at], marker="o", capsize=3, label=curve)
                if not all(math.isnan(paper[place]) for place in at):
                    axes.plot(x, [paper[p] for p in at], "D:", color=colour, alpha=0.6, label=f"{curve}, paper")
            axes.set_xticks(sorted({row.x for row in there if row.x is not None}))
            axes.set_xlabel(experiment.x_label)
            axes.set_title(f"{task}, here")
        else:
            names = [row.name.replace(", ", ",\n") for row in there]
            axes.bar(names, means, yerr=spreads, capsize=4, color="#7aa6d6", label=f"{task}, here")
            if not all(map(math.isnan, paper)):
                axes.plot(names, paper, "D", color="#b03a2e", label=f"{column}, paper")
            axes.tick_params(axis="x", labelsize=8)
        axes.set_ylim(0, 105)
        axes.set_ylabel("top-1 (%)")
        axes.grid(axis="y", alpha=0.3)
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if experiment.x_label else {"loc": "best"}
        axes.legend(frameon=False, fontsize=8, **beside)
    figure.suptitle(f"{experiment.name}: {experiment.title}")
    save_figure(file, figure)


def _has(results: Results, column: str) -> bool:
    return any(column == other for _, other in results.outcomes)
