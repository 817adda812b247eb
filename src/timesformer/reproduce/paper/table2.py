"""Table 2: what training costs, and what it gives."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Row, Training
from timesformer.reproduce.paper.models import ALL_IMAGES, CONV_NOTES, CONV_TEST, FEW_IMAGES, I3D, SLOWFAST

# Of training in miniature: as long as ours in the short schedules, two and three times as long in the others.
_LONG, _LONGEST = ("epochs=30",), ("epochs=45",)


def _conv(name: str, settings: tuple[str, ...], recipe: str, hours: float, k400: float) -> Row:
    return Row(
        name,
        Training(settings),
        {"k400": k400},
        full={"k400": f"table2/{recipe}"},
        full_test=CONV_TEST,
        hours=hours,
    )


def _ours(name: str, images: float, recipe: str, hours: float | None, k400: float) -> Row:
    return Row(name, Training((), images), {"k400": k400}, full={"k400": f"table2/{recipe}"}, hours=hours)


EXPERIMENT = Experiment(
    "table2",
    "Accuracy against the cost of training",
    ("k400",),
    [
        _conv("I3D R50, short", I3D, "i3d_short", 444, 71.0),
        _conv("I3D R50", (*I3D, *_LONG), "i3d", 1440, 73.4),
        _conv("SlowFast R50, short", SLOWFAST, "slowfast_short", 448, 70.0),
        _conv("SlowFast R50", (*SLOWFAST, *_LONG), "slowfast", 3840, 75.6),
        _conv("SlowFast R50, from scratch", (*SLOWFAST, *_LONGEST), "slowfast_scratch", 6336, 76.4),
        _ours("TimeSformer, ImageNet-1K", FEW_IMAGES, "timesformer_in1k", 416, 75.8),
        _ours("TimeSformer, ImageNet-21K", ALL_IMAGES, "timesformer_in21k", 416, 78.0),
    ],
    [
        Claim(
            "TimeSformer is better than SlowFast and I3D after a like time of training",
            lambda r: (
                r.mean("TimeSformer, ImageNet-21K", "k400")
                - max(r.mean(name, "k400") for name in ("I3D R50, short", "SlowFast R50, short"))
            ),
        ),
        Claim(
            "TimeSformer is better than the longest training of SlowFast",
            lambda r: r.mean("TimeSformer, ImageNet-21K", "k400") - r.mean("SlowFast R50, from scratch", "k400"),
        ),
    ],
    CONV_NOTES,
)
