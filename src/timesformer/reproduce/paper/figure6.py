"""Figure 6: how many clips of a video each model must see."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Results, Row, Test, Training
from timesformer.reproduce.paper.models import CONV_NOTES, I3D, SLOWFAST, X3D

_CLIPS = (1, 3, 5, 10)
# A clip of 8 frames at stride 1 is a quarter of a video, as one of SlowFast is of 10 s; L's is all of it.
_SHORT = ("data.sampling=clip", "data.stride=1")
_CURVES: dict[str, tuple[tuple[str, ...], str]] = {
    "TimeSformer": (_SHORT, "figure6/timesformer"),
    "TimeSformer-L": (("model.num_frames=32", *_SHORT), "table3/k400_long_in21k"),
    "SlowFast R50": ((*SLOWFAST, "model.num_frames=8", *_SHORT), "figure6/slowfast"),
    "I3D R50": ((*I3D, *_SHORT), "figure6/i3d"),
    "X3D-M": ((*X3D, *_SHORT), "figure6/x3d_m"),
}


def _gain(results: Results, curve: str) -> float:
    """What ten clips give over one, in points."""
    return results.mean(f"{curve}, 10 clips", "ssv2") - results.mean(f"{curve}, 1 clip", "ssv2")


EXPERIMENT = Experiment(
    "figure6",
    "Accuracy against the number of clips in testing",
    ("ssv2",),
    [
        Row(
            f"{curve}, {clips} clip{'s' if clips > 1 else ''}",
            Training(settings),
            full={"k400": recipe},
            test=Test(clips),
            full_test=Test(clips),
            curve=curve,
            x=clips,
        )
        for curve, (settings, recipe) in _CURVES.items()
        for clips in _CLIPS
    ],
    [
        Claim(
            "TimeSformer-L sees enough in one clip",
            None,
            why_not="a clip of L is the whole of a generated video, so that ten clips are one",
        ),
        Claim("Models of short clips need many: TimeSformer", lambda r: _gain(r, "TimeSformer"), least=2),
        Claim("Models of short clips need many: SlowFast", lambda r: _gain(r, "SlowFast R50"), least=2),
        Claim(
            "TimeSformer-L by one clip is better than TimeSformer by ten",
            lambda r: r.mean("TimeSformer-L, 1 clip", "ssv2") - r.mean("TimeSformer, 10 clips", "ssv2"),
        ),
    ],
    ["The paper gives the figure, of Kinetics-400, without its numbers.", CONV_NOTES[0]],
    x_label="clips of a video",
)
