"""The paper's figures that are no table: schemes, costs, time of inference, rollout, maps of features."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timesformer import models
from timesformer.evaluation.features import video_features
from timesformer.evaluation.views import load_views
from timesformer.explain.overlay import overlay
from timesformer.explain.rollout import rollout
from timesformer.explain.schemes import draw_schemes
from timesformer.explain.tsne import class_colours, tsne
from timesformer.files import save_figure, write_json
from timesformer.model.attention import SCHEMES
from timesformer.model.base import VideoModel
from timesformer.model.timesformer import TimeSformer
from timesformer.model.variants import VARIANTS
from timesformer.predictor import VideoClassifier
from timesformer.profiling import count, draw_sweep, seconds_of, sweep
from timesformer.reproduce.experiment import Experiment, Row, Training
from timesformer.reproduce.own_data import train_and_test
from timesformer.reproduce.paper.models import ALL_IMAGES
from timesformer.reproduce.plan import Plan
from timesformer.reproduce.report import environment, section, table_lines
from timesformer.reproduce.run import Job


def figure2(plan: Plan, command: str) -> str:
    """Which patches each scheme attends to."""
    draw_schemes(plan.out / "figure2.png")
    return section("figure2: What each scheme attends to", command, ["![Attention schemes](figure2.png)"])


def figure3(plan: Plan, command: str) -> str:
    """Multiply-accumulates of a view over frame size and clip length."""
    base, lines = VARIANTS["timesformer_base"], []
    for kind, values in (("size", (224, 336, 448, 560)), ("frames", (8, 32, 64, 96))):
        rows = sweep(base, kind, values)  # type: ignore[arg-type]
        draw_sweep(rows, kind, plan.out / f"figure3_{kind}.png")  # type: ignore[arg-type]
        lines += table_lines(
            ["T MACs a view", *(f"{value} {'px' if kind == 'size' else 'frames'}" for value in values)],
            [
                [scheme, *(f"{row['macs_per_view'] / 1e12:.3f}" for row in rows if row["attention"] == scheme)]
                for scheme in SCHEMES
            ],
        )
        lines += ["", f"![Cost against {kind}](figure3_{kind}.png)", ""]
    return section("figure3: Cost", command, ["Counted from the models; exact.", "", *lines])


def _scheme(name: str) -> Row:
    """A row of Table 1, on the data that order decides on."""
    return Row(name, Training((f"model.attention={name}",)), full={"ssv2": f"table1/ssv2_{name}"})


FIGURE7 = Experiment("figure7", "Attention rollout", ("ssv2",), [_scheme("divided_space_time")])


def figure7(plan: Plan, command: str) -> str:
    """What the output token attends to in a few test videos, by attention rollout."""
    plan.run(FIGURE7)
    job = plan.jobs(FIGURE7)[0]
    classifier = VideoClassifier.from_pretrained(job.part.folder / "run")
    assert isinstance(classifier.model, TimeSformer)
    _, test = train_and_test(job.part.data)
    strips, titles = [], []
    for item in test.items[:: len(test.items) // 4 + 1]:  # one more, as classes follow in turn: of four classes
        views = load_views(item.path, classifier.preprocessing)
        clip = classifier.preprocessing.normalize(views[0])[None].to(classifier.device)
        shares = rollout(classifier.model, clip)[0].cpu()
        predicted = classifier.classes[int(classifier.model(clip).argmax())]
        rows = (views[0].numpy(), overlay(views[0], shares))
        strips.append(np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0))
        titles.append(f"{classifier.classes[item.labels[0]]}; predicted {predicted}")
    _draw_strips(strips, titles, plan.out / "figure7.png")
    text = "Frames of test clips, and under them the share of each patch in the output token; bright is the largest."
    return section("figure7: Attention rollout", command, [text, "", "![Attention rollout](figure7.png)"])


def _draw_strips(strips: list[NDArray[np.uint8]], titles: list[str], file: Path) -> None:
    from matplotlib.figure import Figure

    height, width = strips[0].shape[:2]
    figure = Figure(figsize=(10, len(strips) * (10 * height / width + 0.3)), layout="constrained")
    for axes, image, title in zip(figure.subplots(len(strips), squeeze=False)[:, 0], strips, titles, strict=True):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, fontsize=8)
        axes.axis("off")
    save_figure(file, figure)


FIGURE8 = Experiment(
    "figure8",
    "Features",
    ("ssv2",),
    [
        Row("image ViT", Training((), ALL_IMAGES), full={"ssv2": "table1/ssv2_divided_space_time"}),
        _scheme("space_only"),
        _scheme("divided_space_time"),
    ],
)


def figure8(plan: Plan, command: str) -> str:
    """t-SNE of features of test videos by the image ViT, space-only and divided attention; how far classes part."""
    plan.run(FIGURE8)
    shares: dict[str, list[float]] = {}
    maps: dict[str, tuple[NDArray[Any], NDArray[np.int64]]] = {}
    for job in plan.jobs(FIGURE8):
        features, labels = _features(job)
        shares.setdefault(job.row, []).append(_neighbours_alike(features, labels))
        if job.row not in maps:
            maps[job.row] = tsne(features), labels
    _draw_maps(maps, plan.out / "figure8.png")
    write_json(plan.out / "figure8.json", {"command": command, "environment": environment(), "neighbours": shares})
    rows = []
    for name, percents in shares.items():
        spread = statistics.stdev(percents) if len(percents) > 1 else 0.0
        rows.append([name, f"{statistics.fmean(percents):.1f} ± {spread:.1f}"])
    text = "Test videos whose class is that of most of their 5 nearest others, by their features: percent."
    lines = [text, "", *table_lines(["features of", "percent"], rows), "", "![t-SNE](figure8.png)"]
    return section("figure8: Features", command, lines)


def _features(job: Job) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    classifier = VideoClassifier.from_pretrained(job.part.folder / "run")
    _, test = train_and_test(job.part.data)
    model = _image_vit(job) if job.row == "image ViT" else classifier.model
    features, _ = video_features(model.to(classifier.device), test, classifier.preprocessing)
    return features.values, features.labels


def _image_vit(job: Job) -> VideoModel:
    """The image model that the part started from, for clips as long as the part's."""
    if job.part.start:
        return models.load(job.part.start.folder / "run" / "last")
    source = job.part.load_recipe().init_from_image
    assert source, "a recipe of the paper that starts from images"
    model = models.create("image_vit_base")
    models.init_from_image(model, source)
    return model


def _neighbours_alike(features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    scores = cross_val_score(KNeighborsClassifier(5, metric="cosine"), features, labels, cv=LeaveOneOut())
    return 100 * float(scores.mean())


def _draw_maps(maps: dict[str, tuple[NDArray[Any], NDArray[np.int64]]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(maps), 4), layout="constrained")
    for axes, (name, (places, labels)) in zip(
        figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True
    ):
        axes.scatter(*places.T, c=class_colours(labels), s=12)
        axes.set_title(name)
        axes.set_xticks([])
        axes.set_yticks([])
    save_figure(file, figure)


# Views of a video in testing, and hours for the 20,000 videos of Kinetics-400's validation on 8 V100 (Section 4.5).
_MODELS = {
    "timesformer_base": ("TimeSformer", 3, 224, "0.6"),
    "timesformer_hr": ("TimeSformer-HR", 3, 448, "1.06"),
    "timesformer_long": ("TimeSformer-L", 3, 224, "2.6"),
    "i3d_r50": ("I3D R50 8x8", 30, 256, "–"),
    "slowfast_r50": ("SlowFast R50 8x8", 30, 256, "–"),
    "slowfast_r101": ("SlowFast R101 16x8", 30, 256, "14.88 (a SlowFast)"),
}


@torch.inference_mode()
def inference_time(plan: Plan, command: str) -> str:
    """Time of testing one video at full scale, in turn, in ratio to the base model."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rounds = 5
    times: dict[str, list[float]] = {name: [] for name in _MODELS}
    costs: dict[str, tuple[int, int]] = {}
    built = {}
    for name, (_, _, size, _) in _MODELS.items():
        model = models.create(name).eval()
        costs[name] = count(model, size)
        clip = torch.randn(1, 3, model.config.num_frames, size, size, device=device)
        built[name] = model.to(device), clip
    for turn in range(1 + rounds):
        for name, (model, clip) in built.items():
            seconds = seconds_of(model, clip)
            if turn:
                times[name].append(seconds)
        plan.say(f"inference-time {turn}/{rounds}")
    videos = {name: _MODELS[name][1] * statistics.median(taken) for name, taken in times.items()}
    rows = [
        [
            title,
            f"{costs[name][0] / 1e6:.1f} M",
            str(views),
            f"{views * costs[name][1] / 1e12:.3g}",
            f"{videos[name] / videos['timesformer_base']:.2f}",
            paper,
        ]
        for name, (title, views, _, paper) in _MODELS.items()
    ]
    figures = {name: {"parameters": costs[name][0], "macs_per_view": costs[name][1], "views": _MODELS[name][1],
                      "seconds_per_view": times[name]} for name in _MODELS}  # fmt: skip
    write_json(plan.out / "inference-time.json", {"command": command, "environment": environment(), "models": figures})
    head = ["", "parameters", "views", "T MACs a video", "time a video, here, over TimeSformer's", "hours, paper"]
    text = (
        "Models with random weights in float32, one view at a time, all in turn; medians of 5. The paper's hours are "
        "for the 20,000 videos of Kinetics-400's validation on 8 V100."
    )
    return section("inference-time: Time of testing a video", command, [text, "", *table_lines(head, rows)])


FIGURES: dict[str, Callable[[Plan, str], str]] = {
    "figure2": figure2,
    "figure3": figure3,
    "figure7": figure7,
    "figure8": figure8,
    "inference-time": inference_time,
}
