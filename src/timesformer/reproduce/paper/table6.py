"""Table 6: Kinetics-600, against the models of others."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Row, Training
from timesformer.reproduce.paper.models import ALL_IMAGES, HR, LONG

_OTHERS = [
    ("I3D-R50+Cell", "Wang et al., 2020", 79.8, 94.4),
    ("LGD-3D-101", "Qiu et al., 2019", 81.5, 95.6),
    ("SlowFast", "Feichtenhofer et al., 2019", 81.8, 95.1),
    ("X3D-XL", "Feichtenhofer, 2020", 81.9, 95.5),
]


def _ours(name: str, settings: tuple[str, ...], recipe: str, top1: float, top5: float) -> Row:
    return Row(name, Training(settings, ALL_IMAGES), {"k600": top1}, {"k600": top5}, full={"k600": f"table6/{recipe}"})


EXPERIMENT = Experiment(
    "table6",
    "Kinetics-600",
    ("k600",),
    [
        *(Row(name, None, {"k600": top1}, {"k600": top5}, quoted=source) for name, source, top1, top5 in _OTHERS),
        _ours("TimeSformer", (), "base", 79.1, 94.4),
        _ours("TimeSformer-HR", HR, "hr", 81.8, 95.8),
        _ours("TimeSformer-L", LONG, "long", 82.2, 95.6),
    ],
    [
        Claim(
            "TimeSformer-L is better than the base",
            lambda r: r.mean("TimeSformer-L", "k600") - r.mean("TimeSformer", "k600"),
        )
    ],
    ["In miniature Kinetics-600 and Kinetics-400 have the same stand-in: the figures are those of Table 5."],
)
