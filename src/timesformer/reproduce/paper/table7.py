"""Table 7: Something-Something-V2 and Diving-48, against the models of others."""

from __future__ import annotations

from timesformer.reproduce.experiment import Experiment, Row
from timesformer.reproduce.paper.rows import family, long_is_better

_OTHERS = [
    ("SlowFast", "Feichtenhofer et al., 2019", {"ssv2": 61.7, "diving48": 77.6}),
    ("TSM", "Lin et al., 2019", {"ssv2": 63.4}),
    ("STM", "Jiang et al., 2019", {"ssv2": 64.2}),
    ("MSNet", "Kwon et al., 2020", {"ssv2": 64.7}),
    ("TEA", "Li et al., 2020", {"ssv2": 65.1}),
    ("bLVNet", "Fan et al., 2019", {"ssv2": 65.2}),
]


EXPERIMENT = Experiment(
    "table7",
    "Something-Something-V2 and Diving-48",
    ("ssv2",),
    [
        *(Row(name, None, figures, quoted=source) for name, source, figures in _OTHERS),
        *family(
            {"ssv2": "table7/ssv2_{}", "diving48": "table7/diving48_{}"},
            {"ssv2": (59.5, 62.2, 62.4), "diving48": (74.9, 78.0, 81.0)},
            {},
        ),
    ],
    [long_is_better("ssv2")],
    ["Diving-48 has no stand-in of its own in miniature."],
)
