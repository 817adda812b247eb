"""Figure 4: how much training data each model needs."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Results, Row, Test, Training
from timesformer.reproduce.paper.models import ALL_IMAGES, CONV_NOTES, CONV_TEST, I3D, SLOWFAST

_SHARES = (25, 50, 75, 100)
_PRETRAINED, _SCRATCH = "TimeSformer", "TimeSformer, from scratch"
# By curve: changes of the recipe, images to start from, name in full recipes, test at full scale.
_CURVES: dict[str, tuple[tuple[str, ...], float, str, Test]] = {
    _PRETRAINED: ((), ALL_IMAGES, "timesformer", Test(crops=3)),
    _SCRATCH: ((), 0, "", Test(crops=3)),
    "SlowFast R50": (SLOWFAST, 0, "slowfast", CONV_TEST),
    "I3D R50": (I3D, 0, "i3d", CONV_TEST),
}


def _gain(results: Results, column: str, share: int) -> float:
    """What starting from images gives, in points."""
    return results.mean(f"{_PRETRAINED}, {share} %", column) - results.mean(f"{_SCRATCH}, {share} %", column)


def _lead(results: Results, column: str, share: int) -> float:
    others = (f"{curve}, {share} %" for curve in ("SlowFast R50", "I3D R50"))
    return results.mean(f"{_PRETRAINED}, {share} %", column) - max(results.mean(name, column) for name in others)


EXPERIMENT = Experiment(
    "figure4",
    "Accuracy against the number of training videos",
    ("k400", "ssv2"),
    [
        Row(
            f"{curve}, {share} %",
            Training((*settings, f"data.fraction={share / 100}"), images),
            full={column: f"figure4/{column}_{recipe}_{share}" for column in ("k400", "ssv2") if recipe},
            full_test=test,
            curve=curve,
            x=share,
        )
        for curve, (settings, images, recipe, test) in _CURVES.items()
        for share in _SHARES
    ],
    [
        Claim("Starting from images helps with a quarter of the videos", lambda r: _gain(r, "k400", 25)),
        Claim(
            "Starting from images helps more with a quarter of the videos than with all",
            lambda r: _gain(r, "k400", 25) - _gain(r, "k400", 100),
        ),
        Claim(
            "Where one frame suffices, TimeSformer is ahead of SlowFast and I3D at every number of videos",
            lambda r: min(_lead(r, "k400", share) for share in _SHARES),
        ),
        Claim("Where order decides, TimeSformer is ahead of both with all videos", lambda r: _lead(r, "ssv2", 100)),
    ],
    [
        "The paper gives the figure without its numbers.",
        *CONV_NOTES,
    ],
    x_label="share of the training videos (%)",
)
