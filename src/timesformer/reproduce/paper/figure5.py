"""Figure 5: more frames, and larger ones."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Row, Training

_FRAMES = {8: 4, 32: 8, 64: 16, 96: 32}  # of a clip in the paper, and in miniature
_SIZES = {224: 32, 336: 48, 448: 64, 560: None}  # px

EXPERIMENT = Experiment(
    "figure5",
    "More frames, and larger ones",
    ("ssv2",),
    [
        *(
            Row(
                f"{frames} frames",
                Training((f"model.num_frames={mini}",)),
                full={"k400": f"figure5/k400_{frames}f"},
                curve="frames",
                x=number,
            )
            for number, (frames, mini) in enumerate(_FRAMES.items(), 1)
        ),
        *(
            Row(
                f"{size} px",
                Training((f"model.image_size={mini}",)) if mini else None,
                full={"k400": f"figure5/k400_{size}px"},
                curve="size",
                x=number,
            )
            for number, (size, mini) in enumerate(_SIZES.items(), 1)
        ),
    ],
    [
        Claim(
            "Where order decides, most frames are better than fewest",
            lambda r: r.mean("96 frames", "ssv2") - r.mean("8 frames", "ssv2"),
        ),
        Claim(
            "Where order decides, frames twice as large are better",
            lambda r: r.mean("448 px", "ssv2") - r.mean("224 px", "ssv2"),
        ),
    ],
    [
        "The paper gives the figure, of Kinetics-400, without its numbers.",
        "In miniature clips have 4, 8, 16 and 32 frames, and frames of 32, 48 and 64 px, the size of the videos.",
    ],
    x_label="step: 8, 32, 64, 96 frames; 224, 336, 448, 560 px",
)
