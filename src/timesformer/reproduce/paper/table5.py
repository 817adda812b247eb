"""Table 5: Kinetics-400, against the models of others."""

from __future__ import annotations

from timesformer.reproduce.experiment import Experiment, Row
from timesformer.reproduce.paper.rows import family, long_is_better

# Top-1, top-5 and tera-MACs for a video, as the paper quotes them.
_OTHERS: list[tuple[str, str, float, float | None, float | None]] = [
    ("R(2+1)D", "Tran et al., 2018", 72.0, 90.0, 17.5),
    ("bLVNet", "Fan et al., 2019", 73.5, 91.2, 0.84),
    ("TSM", "Lin et al., 2019", 74.7, None, None),
    ("S3D-G", "Xie et al., 2018", 74.7, 93.4, None),
    ("Oct-I3D+NL", "Chen et al., 2019", 75.7, None, 0.84),
    ("D3D", "Stroud et al., 2020", 75.9, None, None),
    ("I3D+NL", "Wang et al., 2018", 77.7, 93.3, 10.8),
    ("ip-CSN-152", "Tran et al., 2019", 77.8, 92.8, 3.2),
    ("CorrNet", "Wang et al., 2020", 79.2, None, 6.7),
    ("LGD-3D-101", "Qiu et al., 2019", 79.4, 94.4, None),
    ("SlowFast", "Feichtenhofer et al., 2019", 79.8, 93.9, 7.0),
    ("X3D-XXL", "Feichtenhofer, 2020", 80.4, 94.6, 5.8),
]


EXPERIMENT = Experiment(
    "table5",
    "Kinetics-400",
    ("k400",),
    [
        *(
            Row(name, None, {"k400": top1}, {"k400": top5} if top5 else {}, quoted=source, tera_macs=macs)
            for name, source, top1, top5, macs in _OTHERS
        ),
        *family({"k400": "table5/{}"}, {"k400": (78.0, 79.7, 80.7)}, {"k400": (93.7, 94.4, 94.7)}),
    ],
    [long_is_better("k400")],
)
