"""Table 8: long videos, all of which is seen by clips of one length or another."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Results, Row, Test, Training
from timesformer.reproduce.paper.models import CONV_NOTES, SLOWFAST

# Frames of a clip in the paper; in miniature, where 32 at a stride of 2 are a whole video.
_FRAMES = {8: 4, 32: 8, 64: 16, 96: 32}
_PAPER = {
    "SlowFast R101": (48.2, 50.8, 51.5, 51.2),
    "TimeSformer": (56.8, 61.2, 62.2, 62.6),
    "TimeSformer, ImageNet-1K alone": (52.8, 58.4, 59.2, 59.4),
    "TimeSformer, ImageNet-21K alone": (56.0, 59.2, 60.2, 62.1),
}
_RECIPES = {
    "SlowFast R101": "slowfast_r101_{}f",
    "TimeSformer": "timesformer_{}f",
    "TimeSformer, ImageNet-1K alone": "timesformer_{}f_in1k",
    "TimeSformer, ImageNet-21K alone": "timesformer_{}f_in21k",
}
_CLIP = ("data.sampling=clip", "data.stride=2", "epochs=16")


def _mini(model: str, frames: int) -> Training | None:
    if model == "SlowFast R101":
        return Training((*SLOWFAST, f"model.num_frames={frames}", *_CLIP))
    return Training((f"model.num_frames={frames}", *_CLIP)) if model == "TimeSformer" else None


def _gain(results: Results, curve: str) -> float:
    """What the longest clips give over the shortest, in points."""
    return results.mean(f"{curve}, 96 frames", "howto100m") - results.mean(f"{curve}, 8 frames", "howto100m")


EXPERIMENT = Experiment(
    "table8",
    "Long videos, at equal coverage",
    ("howto100m",),
    [
        Row(
            f"{model}, {frames} frames",
            _mini(model, _FRAMES[frames]),
            {"howto100m": top1},
            full={"howto100m": f"table8/{_RECIPES[model].format(frames)}"},
            test=Test("cover"),
            full_test=Test("cover"),
            curve=model,
            x=frames,
        )
        for model, figures in _PAPER.items()
        for frames, top1 in zip(_FRAMES, figures, strict=True)
    ],
    [
        Claim(
            "TimeSformer: of clips that cover the same video, the longest are better than the shortest",
            lambda r: _gain(r, "TimeSformer"),
        ),
        Claim(
            "TimeSformer is better than SlowFast on its longest clips",
            lambda r: r.mean("TimeSformer, 96 frames", "howto100m") - r.mean("SlowFast R101, 96 frames", "howto100m"),
        ),
        Claim(
            "TimeSformer gains more from longer clips than SlowFast",
            lambda r: _gain(r, "TimeSformer") - _gain(r, "SlowFast R101"),
        ),
    ],
    ["In miniature clips have 4, 8, 16 and 32 frames.", *CONV_NOTES],
    x_label="frames of a clip (in the paper)",
)
