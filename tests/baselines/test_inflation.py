"""An image ResNet as the start of a video model: still videos get the image network's answer."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tests.baselines.tiny import tiny
from timesformer.baselines import inflate_2d
from timesformer.baselines.resnet3d import ResNet3d
from timesformer.baselines.slowfast import SlowFast
from timesformer.model.tensors import WeightsError

Weights = dict[str, Tensor]
WIDTH, DEPTHS, CLASSES = 8, (1, 2, 1, 2), 5


def resnet_weights(classes: int = CLASSES, width: int = WIDTH) -> Weights:
    """Random weights by torchvision's names."""
    torch.manual_seed(0)
    weights: Weights = {}

    def layer(conv: str, norm: str, outs: int, ins: int, size: int) -> None:
        weights[f"{conv}.weight"] = torch.randn(outs, ins, size, size) * (2 / (ins * size**2)) ** 0.5
        weights[f"{norm}.weight"], weights[f"{norm}.running_var"] = torch.rand(2, outs) + 0.5
        weights[f"{norm}.bias"], weights[f"{norm}.running_mean"] = torch.randn(2, outs) / 10
        weights[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    layer("conv1", "bn1", width, 3, 7)
    channels = width
    for stage, depth in enumerate(DEPTHS):
        inner = width * 2**stage
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            layer(f"{name}.conv1", f"{name}.bn1", inner, channels, 1)
            layer(f"{name}.conv2", f"{name}.bn2", inner, inner, 3)
            layer(f"{name}.conv3", f"{name}.bn3", 4 * inner, inner, 1)
            if block == 0:
                layer(f"{name}.downsample.0", f"{name}.downsample.1", 4 * inner, channels, 1)
            channels = 4 * inner
    return weights | {"fc.weight": torch.randn(classes, channels), "fc.bias": torch.randn(classes)}


def resnet_logits(w: Weights, image: Tensor) -> Tensor:
    """The image network's own definition, on images (B, 3, H, W)."""

    def conv(conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = w[f"{conv}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        statistics = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
        return F.batch_norm(x, *statistics, w[f"{norm}.weight"], w[f"{norm}.bias"])

    x = F.max_pool2d(conv("conv1", "bn1", image, 2).relu(), 3, 2, 1)
    for stage, depth in enumerate(DEPTHS, start=1):
        for block in range(depth):
            name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            y = conv(f"{name}.conv1", f"{name}.bn1", x).relu()
            y = conv(f"{name}.conv2", f"{name}.bn2", y, stride).relu()
            y = conv(f"{name}.conv3", f"{name}.bn3", y)
            x = conv(f"{name}.downsample.0", f"{name}.downsample.1", x, stride) if block == 0 else x
            x = (x + y).relu()
    return F.linear(x.mean((2, 3)), w["fc.weight"], w["fc.bias"])


def saved(weights: Weights, folder: Path) -> Path:
    save_file(weights, folder / "resnet.safetensors")
    return folder / "resnet.safetensors"


def single(name: str, **options: object) -> ResNet3d:
    model = tiny(name, width=WIDTH, depths=DEPTHS, **options)
    assert isinstance(model, ResNet3d)
    return model


@pytest.mark.parametrize(("name", "edge"), [("i3d_r50", 5), ("slow_r50", 3)])
@pytest.mark.parametrize("channels", [3, 1])
def test_a_still_video_gets_the_image_networks_logits(name: str, edge: int, channels: int, tmp_path: Path) -> None:
    """At every frame that the padding at the clip's ends does not reach (`edge` frames of the last maps)."""
    weights = resnet_weights()
    model = single(name, in_channels=channels)
    report = inflate_2d(model, saved(weights, tmp_path))
    assert not report.left
    assert not report.unused
    assert set(report.loaded) == model.state_dict().keys()
    image = torch.randn(2, channels, 40, 32, dtype=torch.double)
    maps = model.double().maps(image[:, :, None].expand(-1, -1, 24, -1, -1))
    logits = model.head(maps.mean((3, 4)).transpose(1, 2))
    expected = resnet_logits({key: w.double() for key, w in weights.items()}, image.expand(-1, 3, -1, -1))
    inside = logits[:, edge:-edge]
    assert inside.shape[1] > 0
    torch.testing.assert_close(inside, expected[:, None].expand_as(inside), rtol=1e-6, atol=1e-6)
    assert (logits[:, 0] - expected).abs().max() > 1e-3  # the first frame does feel the padding


def test_slowfast_starts_as_its_slow_pathway(tmp_path: Path) -> None:
    file = saved(resnet_weights(), tmp_path)
    slow = single("slow_r50")
    inflate_2d(slow, file)
    model = tiny("slowfast_r50", width=WIDTH, depths=DEPTHS)
    assert isinstance(model, SlowFast)
    untouched = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("slow.")}
    report = inflate_2d(model, file)
    clip = torch.randn(1, 3, 16, 32, 32)
    dim = model.slow.channels[-1]
    torch.testing.assert_close(model.features(clip)[:, :dim], slow.features(clip[:, :, ::4]))
    assert report.left.keys() == untouched.keys()
    assert set(report.unused) == {"head.weight", "head.bias"}
    for name, value in untouched.items():
        assert torch.equal(model.state_dict()[name], value), name


def test_what_does_not_fit_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = {f"module.{name}": w for name, w in resnet_weights(classes=9).items() if "num_batches" not in name}
    weights["module.mask_token"] = torch.ones(1)
    model = single("i3d_r50")
    head = model.head.weight.clone()
    with caplog.at_level(logging.WARNING):
        report = inflate_2d(model, saved(weights, tmp_path))
    assert torch.equal(model.head.weight, head)
    assert report.left["head.bias"] == report.left["head.weight"] == "it is (9, 256), the model's (5, 256)"
    assert report.left["pathway.bn1.num_batches_tracked"] == "the source has none"
    assert report.unused.keys() == {"head.weight", "head.bias", "mask_token"}
    assert all(name in caplog.text for name in report.unused)


@pytest.mark.parametrize(
    ("depths", "width", "message"),
    [
        ((1, 2, 2, 2), WIDTH, r"no ResNet of depths \(1, 2, 2, 2\): it has no layer3.1.conv1.weight"),
        ((1, 2, 1, 1), WIDTH, r"depths \(1, 2, 1, 1\) have no place for its layer4.1"),
        (DEPTHS, 16, r"conv1.weight: \(8, 3, 5, 7, 7\) inflated, \(16, 3, 5, 7, 7\) in the model"),
    ],
)
def test_a_resnet_of_another_shape_is_refused(
    depths: tuple[int, ...], width: int, message: str, tmp_path: Path
) -> None:
    model = tiny("i3d_r50", depths=depths, width=width)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        inflate_2d(model, saved(resnet_weights(), tmp_path))  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_resnet_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        inflate_2d(single("i3d_r50"), tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"it has no conv1\.weight"):
        inflate_2d(single("i3d_r50"), saved({"cls_token": torch.ones(1)}, tmp_path))


def test_what_a_plain_resnet_has_not_is_refused_by_name(tmp_path: Path) -> None:
    weights = {**resnet_weights(), "avgpool.scale": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"the model has no place for its avgpool\.scale"):
        inflate_2d(tiny("i3d_r50", depths=DEPTHS, width=WIDTH), saved(weights, tmp_path))  # type: ignore[arg-type]
