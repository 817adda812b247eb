"""Table 2 and Figure 4 on videos of one's own: TimeSformer, I3D and SlowFast of like cost and equal training."""

from __future__ import annotations

from timesformer.reproduce.experiment import Experiment, Row, Test, Training

_SHARES = (25, 50, 75, 100)
_CURVES = {"TimeSformer": "budget", "I3D": "budget_i3d", "SlowFast": "budget_slowfast"}

EXPERIMENT = Experiment(
    "budget",
    "Models of like cost after equal training, on few videos or many",
    (),
    [
        Row(
            f"{curve}, {share} %",
            Training((f"data.fraction={share / 100}",), recipe=recipe),
            test=Test(clips=3),
            curve=curve,
            x=share,
        )
        for curve, recipe in _CURVES.items()
        for share in _SHARES
    ],
    notes=[
        "Every model is trained from nothing for the same number of steps of the same batch, whatever the number of "
        "videos, and costs about the same a view; three clips are tested.",
    ],
    x_label="share of the training videos (%)",
)
