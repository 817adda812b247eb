"""Table 6: Kinetics-600, against the models of others."""

from __future__ import annotations

from timesformer.reproduce.experiment import Experiment, Row
from timesformer.reproduce.paper.rows import family, long_is_better

_OTHERS = [
    ("I3D-R50+Cell", "Wang et al., 2020", 79.8, 94.4),
    ("LGD-3D-101", "Qiu et al., 2019", 81.5, 95.6),
    ("SlowFast", "Feichtenhofer et al., 2019", 81.8, 95.1),
    ("X3D-XL", "Feichtenhofer, 2020", 81.9, 95.5),
]


EXPERIMENT = Experiment(
    "table6",
    "Kinetics-600",
    ("k600",),
    [
        *(Row(name, None, {"k600": top1}, {"k600": top5}, quoted=source) for name, source, top1, top5 in _OTHERS),
        *family({"k600": "table6/{}"}, {"k600": (79.1, 81.8, 82.2)}, {"k600": (94.4, 95.8, 95.6)}),
    ],
    [long_is_better("k600")],
    ["In miniature Kinetics-600 and Kinetics-400 have the same stand-in: the figures are those of Table 5."],
)
