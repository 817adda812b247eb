"""What every baseline does: shapes, features, first weights, gradients, recomputation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import timesformer
from tests.baselines.tiny import CONVNETS, TINY, clip_for, tiny
from tests.model.test_image_init import vit_features, vit_weights, write
from timesformer.baselines import create_baseline
from timesformer.baselines.resnet3d import Bottleneck
from timesformer.baselines.slowfast import SlowFast
from timesformer.baselines.x3d import Block, SqueezeExcitation, round_to_eight


@pytest.mark.parametrize("name", TINY)
def test_logits_are_the_head_on_the_features(name: str) -> None:
    model = tiny(name)
    clip = clip_for(model)
    logits, features = model(clip), model.features(clip)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, model.head(features))
    assert logits.std(dim=0).min() > 0  # the clips differ
    headless = tiny(name, num_classes=0)
    headless.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("head.")})
    assert torch.equal(headless(clip), features)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("shape", [(1, 32, 32), (5, 48, 40), (13, 64, 32)])
def test_clips_of_other_lengths_and_sizes(name: str, shape: tuple[int, int, int]) -> None:
    model = tiny(name)
    assert model(torch.randn(1, 3, *shape)).shape == (1, 5)


@pytest.mark.parametrize("name", TINY)
def test_other_channels_and_clips_that_do_not_fit(name: str) -> None:
    model = tiny(name, in_channels=2)
    assert model(clip_for(model)).shape == (2, 5)
    with pytest.raises(ValueError, match=r"clip of shape \(1, 3, 4, 32, 32\): expected \(B, 2, F, H, W\)"):
        model(torch.randn(1, 3, 4, 32, 32))


@pytest.mark.parametrize("name", TINY)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = tiny(name, dropout=0.0).train()
    model(clip_for(model)).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize("name", CONVNETS)
def test_features_are_dropped_in_training_alone(name: str) -> None:
    model = tiny(name)
    clip = clip_for(model)
    assert torch.equal(model(clip), model(clip))
    assert model.dropout.p == 0.5
    model.train()
    assert not torch.equal(model(clip), model(clip))


@pytest.mark.parametrize("block", [Bottleneck(8, 2, 8, 1, 3), Block(8, 16, 8, 1, gate=True)])
def test_a_new_block_passes_on_its_input(block: nn.Module) -> None:
    x = torch.rand(2, 8, 3, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("name", TINY)
def test_recomputed_blocks_train_the_same(name: str) -> None:
    """Gradients and the running statistics, which recomputation must not count twice."""
    plain, lean = (tiny(name, dropout=0.0, **({"drop_path": 0.0} if "vit" in name else {})).train() for _ in range(2))
    lean.activation_checkpointing = True
    runs = []
    kinds = ("Mlp",) if "vit" in name else ("Bottleneck", "Block")
    part = next(module for module in lean.modules() if type(module).__name__ in kinds)
    part.register_forward_pre_hook(lambda *_: runs.append(1))
    clip = clip_for(plain)
    for model in (plain, lean):
        model(clip).square().sum().backward()
    assert len(runs) == 2
    for one, other in zip(plain.parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    for (buffer, one), other in zip(plain.named_buffers(), lean.buffers(), strict=True):
        assert torch.equal(one, other), buffer


def test_the_slow_pathway_sees_every_alpha_th_frame() -> None:
    model = tiny("slowfast_r50")
    assert isinstance(model, SlowFast)
    clip = clip_for(model)
    slow = model.slow.channels[-1]

    def seen() -> tuple[set[int], set[int]]:
        """Frames that the slow and the fast half of the features depend on."""
        before = model.features(clip)
        found: tuple[set[int], set[int]] = set(), set()
        for frame in range(clip.shape[2]):
            other = clip.clone()
            other[:, :, frame] += 1
            changed = (model.features(other) != before).any(dim=0)
            for half, frames in zip((changed[:slow], changed[slow:]), found, strict=True):
                if half.any():
                    frames.add(frame)
        return found

    everything = set(range(8))
    assert seen() == (everything, everything)  # by way of the laterals
    for lateral in model.laterals:
        nn.init.zeros_(lateral.bn.weight)
        nn.init.zeros_(lateral.bn.bias)
    assert seen() == ({0, 4}, everything)


def test_an_x3d_block_is_its_definition() -> None:
    model = tiny("x3d_s")
    block = model.get_submodule("blocks.0")  # strided, gated, with a projection
    assert isinstance(block, Block)
    assert isinstance(block.gate, SqueezeExcitation)
    x = torch.randn(2, 8, 3, 6, 6)
    y = block.bn1(F.conv3d(x, block.conv1.weight)).relu()
    y = block.bn2(F.conv3d(y, block.conv2.weight, stride=(1, 2, 2), padding=1, groups=18))
    gate = torch.sigmoid(block.gate.fc2(block.gate.fc1(y.mean((2, 3, 4))).relu()))
    y = y * gate[:, :, None, None, None]
    y = block.bn3(F.conv3d(y * y.sigmoid(), block.conv3.weight))
    projection, norm = block.downsample.children()
    expected = (y + norm(F.conv3d(x, projection.weight, stride=(1, 2, 2)))).relu()
    torch.testing.assert_close(block(x), expected)


def test_squeezed_channels_are_multiples_of_eight() -> None:
    """Of X3D's four stages, and a width that rounding to the nearest would take too much from."""
    assert [round_to_eight(inner / 16) for inner in (54, 108, 216, 432)] == [8, 8, 16, 32]
    assert [round_to_eight(width) for width in (3, 11, 12, 20)] == [8, 16, 16, 24]


def test_an_image_vit_sees_each_frame_by_itself(tmp_path: Any) -> None:
    model = tiny("image_vit_base")
    weights = vit_weights()
    report = timesformer.init_from_vit(model, write(weights, tmp_path / "vit.safetensors"))
    assert not report.left
    assert not report.unused
    clip = torch.randn(1, 3, 4, 32, 32)
    frames = [clip[:, :, [frame]] for frame in range(4)]
    torch.testing.assert_close(model.features(frames[0]), vit_features(weights, frames[0][0].transpose(0, 1)))
    torch.testing.assert_close(model(clip), torch.stack([model(frame) for frame in frames]).mean(0))


def test_names_have_the_published_lengths_and_sizes() -> None:
    with torch.device("meta"):
        sizes = {name: create_baseline(name).config for name in ("slowfast_r101", "x3d_s", "image_vit_base")}
    assert [(c.num_frames, c.image_size) for c in sizes.values()] == [(64, 224), (13, 160), (1, 224)]
