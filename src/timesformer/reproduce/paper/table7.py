"""Table 7: Something-Something-V2 and Diving-48, against the models of others."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Row, Training
from timesformer.reproduce.paper.models import ALL_IMAGES, HR, LONG

_OTHERS = [
    ("SlowFast", "Feichtenhofer et al., 2019", {"ssv2": 61.7, "diving48": 77.6}),
    ("TSM", "Lin et al., 2019", {"ssv2": 63.4}),
    ("STM", "Jiang et al., 2019", {"ssv2": 64.2}),
    ("MSNet", "Kwon et al., 2020", {"ssv2": 64.7}),
    ("TEA", "Li et al., 2020", {"ssv2": 65.1}),
    ("bLVNet", "Fan et al., 2019", {"ssv2": 65.2}),
]


def _ours(name: str, settings: tuple[str, ...], recipe: str, ssv2: float, diving48: float) -> Row:
    return Row(
        name,
        Training(settings, ALL_IMAGES),
        {"ssv2": ssv2, "diving48": diving48},
        full={data: f"table7/{data}_{recipe}" for data in ("ssv2", "diving48")},
    )


EXPERIMENT = Experiment(
    "table7",
    "Something-Something-V2 and Diving-48",
    ("ssv2",),
    [
        *(Row(name, None, figures, quoted=source) for name, source, figures in _OTHERS),
        _ours("TimeSformer", (), "base", 59.5, 74.9),
        _ours("TimeSformer-HR", HR, "hr", 62.2, 78.0),
        _ours("TimeSformer-L", LONG, "long", 62.4, 81.0),
    ],
    [
        Claim(
            "TimeSformer-L is better than the base",
            lambda r: r.mean("TimeSformer-L", "ssv2") - r.mean("TimeSformer", "ssv2"),
        )
    ],
    ["Diving-48 has no stand-in of its own in miniature."],
)
