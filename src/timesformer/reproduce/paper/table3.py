"""Table 3: what the video models are trained from."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Row, Training
from timesformer.reproduce.paper.models import ALL_IMAGES, FEW_IMAGES, HR, LONG

_PAPER = {
    "base": ((), (75.8, 59.5), (78.0, 59.5)),
    "hr": (HR, (77.8, 62.2), (79.7, 62.5)),
    "long": (LONG, (78.1, 62.4), (80.7, 62.3)),
}
_TITLES = {"base": "TimeSformer", "hr": "TimeSformer-HR", "long": "TimeSformer-L"}


def _rows(model: str, settings: tuple[str, ...], *figures: tuple[float, float]) -> list[Row]:
    sources = (("in1k", "ImageNet-1K", FEW_IMAGES), ("in21k", "ImageNet-21K", ALL_IMAGES))
    return [
        Row(
            f"{_TITLES[model]}, {source}",
            Training(settings, images) if model == "base" or short == "in21k" else None,
            {"k400": k400, "ssv2": ssv2},
            full={"k400": f"table3/k400_{model}_{short}", "ssv2": f"table3/ssv2_{model}_{short}"},
        )
        for (short, source, images), (k400, ssv2) in zip(sources, figures, strict=True)
    ]


_SCRATCH = Row("TimeSformer, from scratch", Training(), {"k400": 64.8}, full={"k400": "table3/k400_base_scratch"})

EXPERIMENT = Experiment(
    "table3",
    "What training starts from",
    ("k400", "ssv2"),
    [_SCRATCH, *(row for model, (settings, *figures) in _PAPER.items() for row in _rows(model, settings, *figures))],
    [
        Claim(
            "A model that starts from images is better than one from scratch where one frame suffices",
            lambda r: r.mean("TimeSformer, ImageNet-21K", "k400") - r.mean("TimeSformer, from scratch", "k400"),
        ),
        Claim(
            "Where one frame suffices, more images to start from are better",
            lambda r: r.mean("TimeSformer, ImageNet-21K", "k400") - r.mean("TimeSformer, ImageNet-1K", "k400"),
        ),
        Claim(
            "Where order decides, it hardly matters which images: within 3 points",
            lambda r: 3 - abs(r.mean("TimeSformer, ImageNet-21K", "ssv2") - r.mean("TimeSformer, ImageNet-1K", "ssv2")),
        ),
        Claim(
            "Where order decides, HR and L are better than the base",
            lambda r: (
                min(r.mean(f"TimeSformer-{name}, ImageNet-21K", "ssv2") for name in ("HR", "L"))
                - r.mean("TimeSformer, ImageNet-21K", "ssv2")
            ),
        ),
    ],
)
