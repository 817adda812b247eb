"""Maps of features by t-SNE (Figure 8 of the paper), as a picture or as a page."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from timesformer.evaluation.features import Features
from timesformer.files import save_figure, write_text
from timesformer.outputs import check_output
from timesformer.video.decode import VideoError, VideoReader

_THUMBNAILS = 3000  # videos of a page that are shown as pictures, at most
_SIDE = 96  # px


def tsne(values: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Places (N, 2) of features (N, D) on a map: like ones near each other. Raises ValueError for fewer than 3."""
    from sklearn.manifold import TSNE

    if len(values) < 3:
        raise ValueError(f"{len(values)} videos: a map takes 3 or more")
    spread = np.ptp(values, axis=0).max()
    start = "pca" if spread > 1e-6 * np.abs(values).max() else "random"  # of equal values there are no components
    method = TSNE(perplexity=min(30, (len(values) - 1) / 3), init=start, random_state=seed)
    places: NDArray[np.float32] = method.fit_transform(values)
    return places


def class_colours(labels: NDArray[np.int64]) -> list[str]:
    """A colour for each label, the same for the same; grey for -1."""
    count = int(labels.max(initial=0)) + 1
    table = colormaps["tab10" if count <= 10 else "hsv"]
    shades = [table(c if count <= 10 else c / count) for c in range(count)]
    return ["#888888" if c < 0 else "#" + "".join(f"{round(255 * part):02x}" for part in shades[c][:3]) for c in labels]


def write_map(features: Features, file: Path) -> None:
    """Write a map: a picture (.png, .svg, .pdf), or a page (.html) whose points show their videos.

    Raises:
        ValueError: another suffix, or fewer than 3 videos.
    """
    check_output(file, "out", suffixes=(".png", ".svg", ".pdf", ".html"), inputs=features.paths)
    places = tsne(features.values)
    if file.suffix.lower() == ".html":
        write_text(file, _page(features, places))
    else:
        _draw(features, places, file)


def _draw(features: Features, places: NDArray[np.float32], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    colours, shown = class_colours(features.labels), {}
    for label in np.unique(features.labels):
        own = features.labels == label
        name = features.classes[label] if label >= 0 else "unlabelled"
        shown[name] = axes.scatter(places[own, 0], places[own, 1], s=14, color=colours[int(own.argmax())])
    axes.set_xticks([])
    axes.set_yticks([])
    if len(np.unique(features.labels)) <= 20:
        axes.legend(shown.values(), shown.keys(), frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(file, figure)


def _page(features: Features, places: NDArray[np.float32]) -> str:
    low, span = places.min(axis=0), np.ptp(places, axis=0).clip(min=1e-9)
    points: list[dict[str, Any]] = []
    shown = set(range(0, len(places), -(-len(places) // _THUMBNAILS)))
    for index, (place, colour) in enumerate(zip((places - low) / span, class_colours(features.labels), strict=True)):
        label = features.labels[index]
        points.append({
            "x": round(float(place[0]), 4), "y": round(1 - float(place[1]), 4), "colour": colour,
            "name": features.paths[index], "class": features.classes[label] if label >= 0 else "",
            "picture": thumbnail(features.paths[index]) if index in shown else "",
        })  # fmt: skip
    template = (Path(__file__).parent / "map.html").read_text(encoding="utf-8")
    # "<" is the one character by which a name could end the script.
    content = json.dumps(points).replace("<", "\\u003c")
    return template.replace("TITLE", html.escape(f"{len(points)} videos")).replace("POINTS", content)


def thumbnail(path: str | Path, index: int | None = None) -> str:
    """A frame of a video, the middle one by default, as a `data:` address; empty if the video can't be read."""
    from PIL import Image

    try:
        with VideoReader(path, short_side=_SIDE, num_threads=1) as video:
            frame = video.frames([len(video) // 2 if index is None else index])[0].numpy()
    except VideoError:
        return ""
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
