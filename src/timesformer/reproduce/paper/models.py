"""The models of the experiments in miniature: recipe `mini` is TimeSformer's base; these are the changes for others.

They stand to each other as the paper's do: HR has twice the frames, and larger ones, L many more frames, and the
convolutional networks cost about as much a view as the base, 20 million multiply-accumulates.
"""

from __future__ import annotations

from timesformer.reproduce.experiment import Test

FEW_IMAGES, ALL_IMAGES = 0.1, 1.0  # stand for ImageNet-1K and 21K

HR = ("model.num_frames=16", "model.image_size=48")
LONG = ("model.num_frames=32",)

_CONV = ("optimizer.name=adamw", "optimizer.lr=2e-3")
I3D = ("model={name: i3d_r50, num_frames: 8, image_size: 32, width: 8}", *_CONV)
SLOWFAST = ("model={name: slowfast_r50, num_frames: 16, image_size: 32, width: 16, depths: [1, 1, 1, 1]}", *_CONV)
X3D = ("model={name: x3d_s, num_frames: 8, image_size: 32, width: 24, depths: [1, 1, 1, 1], feature_dim: 256}", *_CONV)
CONV_NOTES = (
    "In miniature TimeSformer is trained by Muon and the convolutional networks by AdamW, both at a learning rate of "
    "2e-3; neither was searched for the latter.",
    "In miniature I3D and SlowFast start from nothing: there is no 2-D convolutional network to inflate.",
    "Where they are ahead here, unlike in the paper, the likely reason is how few and simple the generated videos are: "
    "that near pixels belong together is built into a convolution, and attention must learn it, in the paper from "
    "ImageNet.",
)

# How the baselines are tested in their own papers, and so in this one.
CONV_TEST = Test(clips=10, crops=3, image_size=256)
