"""I3D with a ResNet (Carreira and Zisserman, 2017; Wang et al., Non-local Neural Networks, 2018), and inflation."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch
from einops import repeat
from torch import Tensor

from timesformer.baselines.resnet3d import ResNet3d, Timing
from timesformer.baselines.slowfast import SlowFast
from timesformer.model.hub import fetch_weights
from timesformer.model.image_init import LoadReport, adapt_channels
from timesformer.model.tensors import WeightsError, is_of_another_task, read_tensors, without_prefix
from timesformer.model.weights import WEIGHT_FILES

logger = logging.getLogger(__name__)


class I3D(ResNet3d):
    """A ResNet with every second kernel inflated: I3D 8x8 R50 as TimeSformer's paper compares with."""

    architecture = "i3d"
    timing = Timing(stem=5, stages=((3,), (3, 1), (3, 1), (1, 3)), pool=2)


@torch.no_grad()
def inflate_2d(model: ResNet3d | SlowFast, source: str | Path) -> LoadReport:
    """Set a model's weights to those of an image ResNet of the same depths and width.

    A kernel of t frames is t times the image network's divided by t, so that on a video that stands still the model
    computes what the image network does; but for the frames next to the ends of the clip, where kernels of more than
    one frame reach into the padding. In SlowFast it is the slow pathway that is set; its weights for what the fast one
    sends start at zero. The head is taken over where it has the same shape. Kernels for RGB are adapted to other
    numbers of channels as in `timesformer.init_from_vit`.

    Args:
        model: the model to set; changed in place.
        source: a file of weights (.pth, .safetensors) with torchvision's names: `conv1`, `bn1`, `layer1.0.conv1`,
            ..., `fc`; or the id of one on the Hugging Face hub, such as `timm/resnet50.tv_in1k`.

    Returns:
        What was loaded, left and not used; what was not used is also logged as a warning.

    Raises:
        WeightsError: the source can't be read, is no such ResNet, or has other depths or another width.
    """
    path = Path(source)
    if not path.is_file():
        path = fetch_weights(source, WEIGHT_FILES)
    image_net = without_prefix(read_tensors(path)[0], "layer1.0.conv1.weight")
    image_net = {re.sub(r"^fc\.", "head.", name): weight for name, weight in image_net.items()}
    if "conv1.weight" in image_net:
        image_net["conv1.weight"] = adapt_channels(image_net["conv1.weight"], model.config.in_channels)
    own = model.state_dict()
    unused = _unfit_head(image_net, own)

    prefix = "slow." if isinstance(model, SlowFast) else "pathway."
    taken: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name, value in own.items():
        origin = name.removeprefix(prefix)
        if origin in image_net and name.startswith((prefix, "head.")) and origin not in unused:
            taken[name] = _inflate(f"{path}: {origin}", image_net[origin], value)
        elif name.startswith(prefix) and not name.endswith("num_batches_tracked"):  # which older files lack
            raise WeightsError(f"{path}: no ResNet of depths {model.config.depths}: it has no {origin}")
        else:
            left[name] = unused.get(origin, "the source has none")
    for name in image_net.keys() - {name.removeprefix(prefix) for name in taken} - unused.keys():
        if name.startswith("layer"):
            raise WeightsError(f"{path}: depths {model.config.depths} have no place for its {name}")
        if not is_of_another_task(name):
            raise WeightsError(f"{path}: the model has no place for its {name}")
        unused[name] = "the model has no place for it"
    model.load_state_dict({**own, **taken})
    for name, why in unused.items():
        logger.warning("%s: %s not loaded: %s", path, name, why)
    return LoadReport(tuple(taken), left, unused)


def _unfit_head(image_net: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, str]:
    """Weights of a head that cannot be taken over, and why."""
    shapes = [tuple(weights["head.weight"].shape) for weights in (image_net, own) if "head.weight" in weights]
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        why = f"it is {shapes[0]}, the model's {shapes[1]}"
        return {name: why for name in image_net if name.startswith("head.")}
    return {}


def _inflate(what: str, weight: Tensor, own: Tensor) -> Tensor:
    """An image network's weight in the shape of a model's `own`; `what` names it in errors."""
    if own.ndim == 5 and weight.ndim == 4:
        frames = own.shape[2]
        weight = repeat(weight, "o i h w -> o i t h w", t=frames) / frames
        extra = own.shape[1] - weight.shape[1]  # channels from the fast pathway
        if extra > 0:
            weight = torch.cat([weight, weight.new_zeros(len(weight), extra, *weight.shape[2:])], dim=1)
    if weight.shape != own.shape:
        raise WeightsError(f"{what}: {tuple(weight.shape)} inflated, {tuple(own.shape)} in the model")
    return weight
