"""One page, with nothing from elsewhere, on how a model was trained and what it gets right and wrong."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from timesformer.evaluation.evaluate import Evaluation, confusion_figure
from timesformer.evaluation.views import load_views
from timesformer.explain.overlay import overlay
from timesformer.explain.rollout import rollout
from timesformer.files import write_text
from timesformer.fonts import fitting_fonts
from timesformer.model.timesformer import TimeSformer
from timesformer.predictor import VideoClassifier
from timesformer.video.clips import BadVideo
from timesformer.video.decode import VideoError
from timesformer.video.shards import VideoPath

_MISTAKES = 12
_SHOWN = 4  # frames of a mistake

_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 1000px; margin: 24px auto; padding: 0 16px; color: #222; }
h1 { font-size: 22px; } h2 { font-size: 18px; margin-top: 32px; }
table { border-collapse: collapse; } td, th { padding: 2px 12px 2px 0; text-align: left; }
img { max-width: 100%; } pre { background: #f4f4f4; padding: 12px; overflow-x: auto; font-size: 13px; }
.bar { background: #7aa6d6; height: 12px; } .path { color: #666; overflow-wrap: anywhere; font-size: 13px; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 16px; }
"""


@dataclass(frozen=True)
class Mistake:
    """A video that was taken for another class: the score of that, and the place in the evaluation."""

    index: int
    predicted: str
    score: float


def mistakes(evaluation: Evaluation, count: int = _MISTAKES) -> list[Mistake]:
    """The mistakes of highest score, first; none where a video can have several labels."""
    if evaluation.multi_label or not evaluation.items:
        return []
    predicted = evaluation.scores.argmax(axis=1)
    scores = evaluation.scores.max(axis=1)
    wrong = np.flatnonzero(predicted != evaluation.labels)
    order = wrong[np.argsort(-scores[wrong], kind="stable")][:count]
    return [Mistake(int(i), evaluation.classes[predicted[i]], float(scores[i])) for i in order]


def write_report(
    file: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    evaluation: Evaluation | None = None,
    classifier: VideoClassifier | None = None,
    configuration: Mapping[str, Any] | None = None,
    epochs: Sequence[Mapping[str, Any]] = (),
    bad: Sequence[BadVideo] = (),
) -> None:
    """Write the page.

    Args:
        file: .html.
        title: its heading.
        notes: lines under it.
        evaluation: what was tested, if anything.
        classifier: by which model, to show what it looked at in its most confident mistakes.
        configuration: of the training or the test, as YAML would hold it.
        epochs: figures of each epoch of training, see `timesformer.epochs.read_epochs`.
        bad: videos that could not be read, beside those of the evaluation.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(note)}</p>" for note in notes)]
    if evaluation and evaluation.items:
        parts.append(_figures(evaluation))
    if epochs:
        several = classifier.model.multi_label if classifier else bool(evaluation and evaluation.multi_label)
        parts.append(f"<h2>Training</h2>{_curves(epochs, multi_label=several)}")
    if evaluation and evaluation.items:
        parts.append(_classes(evaluation))
        parts.append(_confusion(evaluation))
        parts.append(_mistakes(evaluation, classifier))
    unread = [*bad, *(evaluation.bad if evaluation else ())]
    if unread:
        rows = "".join(f"<li class=path>{html.escape(video.reason)}</li>" for video in unread)
        parts.append(f"<h2>Videos that could not be read: {len(unread)}</h2><ul>{rows}</ul>")
    if configuration:
        text = yaml.safe_dump(json.loads(json.dumps(configuration, default=str)), sort_keys=False, allow_unicode=True)
        parts.append(f"<h2>Configuration</h2><pre>{html.escape(text)}</pre>")
    page = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )
    write_text(file, page)


def _figures(evaluation: Evaluation) -> str:
    titles = {
        "top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class accuracy",
        "mean_average_precision": "mean average precision",
    }  # fmt: skip
    summary = evaluation.summary()
    rows = "".join(
        f"<tr><td>{title}</td><td><b>{summary[name]:.2%}</b></td></tr>"
        for name, title in titles.items()
        if name in summary
    )
    return f"<table>{rows}<tr><td>videos</td><td>{summary['videos']}</td></tr></table>"


def _curves(epochs: Sequence[Mapping[str, Any]], *, multi_label: bool) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    names = ("training: top class right", "validation: mAP") if multi_label else ("training", "validation")
    x = [epoch["epoch"] for epoch in epochs]
    loss.plot(x, [epoch.get("loss") for epoch in epochs], color="#b03a2e")
    loss.set_ylabel("loss")
    accuracy.plot(x, [epoch.get("top1") for epoch in epochs], label=names[0], color="#7aa6d6")
    validated = [(epoch["epoch"], epoch.get("validation_accuracy")) for epoch in epochs]
    tested = [pair for pair in validated if pair[1] is not None]
    if tested:
        accuracy.plot(*zip(*tested, strict=True), marker="o", label=names[1], color="#b03a2e")
    accuracy.set_ylim(0, 1.02)
    accuracy.set_ylabel("share" if multi_label else "top-1")
    accuracy.legend(frameon=False)
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    return _picture(figure, "loss and accuracy of each epoch")


def _picture(figure: Any, text: str) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    data = io.BytesIO()
    with fitting_fonts(figure):
        FigureCanvasAgg(figure).print_figure(data, format="png", dpi=110)
    return f'<img alt="{html.escape(text)}" src="{_address(data.getvalue(), "png")}">'


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _classes(evaluation: Evaluation) -> str:
    found = evaluation.summary()["per_class"]
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{'–' if value is None else f'{value:.1%}'}</td>"
        f'<td style="width: 320px"><div class=bar style="width: {100 * (value or 0):.1f}%"></div></td></tr>'
        for name, value in sorted(found.items(), key=lambda pair: (pair[1] is None, pair[1]))
    )
    what = "Average precision" if evaluation.multi_label else "Accuracy"
    return f"<h2>{what} of each class, worst first</h2><table>{rows}</table>"


def _confusion(evaluation: Evaluation) -> str:
    if evaluation.multi_label:
        return ""
    figure = confusion_figure(evaluation.confusion, evaluation.classes)
    return f"<h2>Confusion matrix</h2>{_picture(figure, 'confusion matrix')}"


def _mistakes(evaluation: Evaluation, classifier: VideoClassifier | None) -> str:
    found = mistakes(evaluation)
    if not found or classifier is None:
        return ""
    cells = []
    for mistake in found:
        item = evaluation.items[mistake.index]
        names = ", ".join(evaluation.classes[label] for label in item.labels)
        cells.append(
            f"<div>{_seen(classifier, item.path)}<br>{html.escape(mistake.predicted)} <b>{mistake.score:.1%}</b>, "
            f"but it is {html.escape(names)}<br><span class=path>{html.escape(str(item.path))}</span></div>"
        )
    return (
        "<h2>The most confident mistakes</h2><p>Frames of the clip, and under them attention rollout: bright is what "
        f"went into the answer.</p><div class=mistakes>{''.join(cells)}</div>"
    )


def _seen(classifier: VideoClassifier, path: VideoPath) -> str:
    """Frames of the middle clip, and for a TimeSformer what it looked at."""
    from PIL import Image

    try:
        views = load_views(path, classifier.preprocessing, num_threads=1)
    except VideoError:
        return ""
    some = np.unique(np.linspace(0, views.shape[1] - 1, _SHOWN).round().astype(int))
    pictures = classifier.preprocessing.colours(views[0])
    rows = [np.concatenate(list(pictures[some].numpy()), axis=1)]
    if isinstance(classifier.model, TimeSformer):
        clip = classifier.preprocessing.normalize(views[0])[None].to(classifier.device)
        shares = rollout(classifier.model, clip)[0].float().cpu()
        rows.append(np.concatenate(list(overlay(pictures[some], shares[some], top=float(shares.max()))), axis=1))
    image = Image.fromarray(np.concatenate(rows, axis=0))
    image = image.resize((400, round(400 * image.height / image.width)))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f'<img alt="frames" src="{_address(data.getvalue(), "jpeg")}">'
