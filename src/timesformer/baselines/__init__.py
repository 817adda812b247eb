"""What the paper compares TimeSformer with: I3D, Slow, SlowFast and X3D networks, and an image ViT (Tables 2 and 5)."""

from timesformer.baselines.i3d import inflate_2d
from timesformer.baselines.variants import build, create_baseline

__all__ = ["build", "create_baseline", "inflate_2d"]
