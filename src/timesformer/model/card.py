"""The model card: what a page on the hub says of a model, from the model itself and from the folder of its run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from timesformer.epochs import read_epochs
from timesformer.model.base import VideoModel
from timesformer.model.formats import read_json

_PAPER = """@inproceedings{bertasius2021space,
  title     = {Is Space-Time Attention All You Need for Video Understanding?},
  author    = {Bertasius, Gedas and Wang, Heng and Torresani, Lorenzo},
  booktitle = {International Conference on Machine Learning},
  year      = {2021}
}"""
_USE = """import timesformer

classifier = timesformer.VideoClassifier.from_pretrained("{name}")
for label, score in classifier.predict("video.mp4", top=5):
    print(f"{{score:6.1%}}  {{label}}")"""
_FIGURES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "mean_average_precision": "mean average precision",
}


def run_folder(source: str | Path) -> Path | None:
    """The folder of the run that a model lies in: `source` itself or the one above; None where there is no run."""
    path = Path(source).resolve()
    return next((folder for folder in (path, path.parent) if (folder / "recipe.yaml").is_file()), None)


def evaluation_folder(run: Path) -> Path | None:
    """The folder in a run that `timesformer evaluate --out` wrote last; None where there is none."""
    written = sorted(run.glob("*/metrics.json"), key=lambda file: file.stat().st_mtime)
    return written[-1].parent if written else None


def model_card(
    model: VideoModel, name: str, *, run: Path | None = None, data: str | None = None, license: str | None = None
) -> str:
    """The card, as Markdown with the hub's head of YAML.

    Args:
        model: what the card is of.
        name: its id on the hub, `owner/name`.
        run: folder of its run: what `recipe.yaml` (as it is, paths among it), `metrics.jsonl` and the latest evaluation
            in a folder below it say.
        data: what it was trained on, in a sentence.
        license: of the weights, as the hub names licences (`apache-2.0`, `cc-by-nc-4.0`).

    Raises:
        WeightsError: a file of the run can't be read.
    """
    evaluation = evaluation_folder(run) if run else None
    metrics = read_json(evaluation / "metrics.json") if evaluation else {}
    title = name.split("/")[-1]
    parts = [
        f"---\n{yaml.safe_dump(_head(title, metrics, license), sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        _summary(model),
        f"## Use\n\n```python\n{_USE.format(name=name)}\n```",
        f"## Data\n\n{data or 'What the model was trained on is not stated.'}",
    ]
    if run:
        parts.append(_training(run))
    if metrics.get("videos"):
        parts.append(_evaluation(metrics, confusion=(evaluation / "confusion.png").is_file() if evaluation else False))
    if model.classes:
        parts.append(_folded(f"The {len(model.classes)} classes", "\n".join(f"- {_plain(c)}" for c in model.classes)))
    stated = f"The weights: {license}." if license else "That of the weights is not stated."
    parts.append(f"## Licence\n\n{stated} The terms of the data may bind as well. The program is Apache-2.0.")
    parts.append(f"## Citation\n\n```bibtex\n{_PAPER}\n```")
    return "\n\n".join(parts) + "\n"


def _head(title: str, metrics: dict[str, Any], license: str | None) -> dict[str, Any]:
    head: dict[str, Any] = {"license": license} if license else {}
    head |= {"library_name": "timesformer", "pipeline_tag": "video-classification", "tags": ["timesformer", "video"]}
    found = [{"type": key, "value": metrics[key], "name": name} for key, name in _FIGURES.items() if key in metrics]
    if found:
        task = {"type": "video-classification", "name": "video classification"}
        data = {"type": "own", "name": _tested_on(metrics)}
        head["model-index"] = [{"name": title, "results": [{"task": task, "dataset": data, "metrics": found}]}]
    return head


def _summary(model: VideoModel) -> str:
    config = model.config
    scheme = f" with attention `{config.attention}`" if hasattr(config, "attention") else ""
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    height, width = config.frame_size
    several = ", of which a video can have several" if model.multi_label else ""
    text = (
        f"A `{model.architecture}`{scheme}, {millions:.1f} M parameters, for clips of {config.num_frames} frames of "
        f"{height}x{width} px; {config.num_classes} classes{several}. For the program `timesformer`."
    )
    if model.preprocessing:
        said = "\n".join(f"| {key} | {value} |" for key, value in model.preprocessing.items())
        text += f"\n\n| preprocessing | |\n|---|---|\n{said}"
    return text


def _training(run: Path) -> str:
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8").strip()
    lines = []
    epochs = read_epochs(run / "metrics.jsonl")
    if epochs and {"step", "loss"} <= epochs[-1].keys():
        lines.append(
            f"{epochs[-1]['epoch']} epochs, {epochs[-1]['step']} steps; loss at the end {epochs[-1]['loss']:.3f}."
        )
    scores = [value for epoch in epochs if (value := epoch.get("validation_accuracy")) is not None]
    if scores:
        lines.append(f"Best score in validation: {max(scores):.1%}.")
    return "\n\n".join(["## Training", " ".join(lines), _folded("The recipe", f"```yaml\n{recipe}\n```")])


def _evaluation(metrics: dict[str, Any], *, confusion: bool) -> str:
    rows = [(name, f"{metrics[key]:.1%}") for key, name in _FIGURES.items() if key in metrics]
    rows.append(("videos", str(metrics["videos"])))
    parts = ["## Evaluation", _table((f"on {_tested_on(metrics)}", ""), rows), _seen_before(metrics)]
    classes = [(name, "–" if value is None else f"{value:.1%}") for name, value in metrics["per_class"].items()]
    parts.append(_folded("Each class", _table(("class", ""), classes)))
    if confusion:
        parts.append("![confusion matrix](confusion.png)")
    return "\n\n".join(parts)


def _tested_on(metrics: dict[str, Any]) -> str:
    """Which videos the figures are of, without the folders above them, and by how many views."""
    if "data" not in metrics:
        return "videos that are not named"
    split = "" if metrics["split"] == "all" else f", split {metrics['split']}"
    views = f"{metrics['clips']} x {metrics['crops']} views, protocol {metrics['protocol']}"
    return f"{Path(metrics['data']).name}{split} ({views})"


def _seen_before(metrics: dict[str, Any]) -> str:
    """Whether the figures are of videos that the model knew."""
    trained_on, chosen_by = metrics.get("trained_on"), metrics.get("chosen_by")
    if trained_on is None or chosen_by is None:
        return "Whether the model was trained on any of these videos, or chosen by them, is not recorded."
    lines = []
    if trained_on:
        lines.append(
            f"**The model was trained on {trained_on} of these videos:** the figures say little of videos that are new."
        )
    if chosen_by:
        lines.append(
            f"The weights are those of the epoch that scored best on {chosen_by} of these videos, so the figures are "
            "higher than on videos that are new."
        )
    return " ".join(lines) or "The model was neither trained on these videos nor chosen by them."


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"| {_plain(a)} | {b} |" for a, b in (head, ("---", "---"), *rows))


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _plain(text: str) -> str:
    """A name, which may be any text, as one cell of a table."""
    for sign in "\\|`*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
