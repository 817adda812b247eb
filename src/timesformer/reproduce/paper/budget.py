"""Table 2 and Figure 4 on videos of one's own: TimeSformer, I3D and SlowFast of like cost, after as many steps."""

from __future__ import annotations

from timesformer.reproduce.experiment import Experiment, Row, Test, Training

_SHARES = (25, 50, 75, 100)
_CONV = ("optimizer.name=adamw", "optimizer.lr=2e-3")
_CURVES = {
    "TimeSformer": (),
    "I3D": ("model={name: i3d_r50, num_frames: 8, image_size: 48, width: 12}", *_CONV),
    "SlowFast": (
        "model={name: slowfast_r50, num_frames: 16, image_size: 48, width: 24, depths: [1, 1, 1, 1]}",
        *_CONV,
    ),
}

EXPERIMENT = Experiment(
    "budget",
    "Models of like cost after as many steps, on few videos or many",
    (),
    [
        Row(
            f"{curve}, {share} %",
            Training((*settings, f"data.fraction={share / 100}"), recipe="budget"),
            test=Test(clips=3),
            curve=curve,
            x=share,
        )
        for curve, settings in _CURVES.items()
        for share in _SHARES
    ],
    notes=[
        "Every model is trained from nothing for the same number of steps of the same batch, whatever the number of "
        "videos, and costs about the same a view; three clips are tested.",
        "TimeSformer is trained by Muon at a learning rate of 1e-3, I3D and SlowFast by AdamW at 2e-3, neither of "
        "which was searched for them.",
    ],
    x_label="share of the training videos (%)",
    timed=True,
)
