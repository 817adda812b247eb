"""The prepared model against the plain one, which is the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import timesformer
from timesformer.model.attention import SCHEMES
from timesformer.model.inference import Prepared, prepare
from timesformer.model.linear import Float8Linear
from timesformer.model.locality import attend_over_time

MODELS: list[dict[str, Any]] = [
    {"attention": scheme, "cls_attention": rule}
    for scheme in ("space_only", "joint_space_time", "divided_space_time")
    for rule in ("released", "equations")
]
MODELS += [{"attention": scheme} for scheme in ("sparse_local_global", "axial")]
MODELS += [
    {"order": order, "cls_attention": rule}
    for order in ("space_time", "parallel")
    for rule in ("released", "equations")
]
MODELS += [{"positions": "none"}, {"positions": "space"}, {"head_hidden_dim": 20}, {"num_classes": 0}, {"depth": 1}]


def make(options: dict[str, Any], **more: Any) -> timesformer.TimeSformer:
    torch.manual_seed(0)
    size = {"depth": 3, "embed_dim": 48, "num_heads": 3, "image_size": 32, "patch_size": 8, "num_frames": 4}
    model = timesformer.create_model("timesformer_tiny", **{**size, "num_classes": 7, **options, **more}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("options", MODELS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("size", [(4, 32, 32), (3, 24, 40), (1, 8, 8)])
@pytest.mark.parametrize("at_a_time", [5, 60, 10**6])  # tokens
def test_the_prepared_model_is_the_plain_one(
    options: dict[str, Any], size: tuple[int, int, int], at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timesformer.model.locality._ROWS", at_a_time)
    model = make(options)
    prepared = prepare(model)
    clip = torch.randn(2, 3, *size)
    given = clip.clone()
    with torch.no_grad():
        for one, other in ((model(clip), prepared(clip)), (model.features(clip), prepared.features(clip))):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    assert torch.equal(clip, given)


def test_in_bfloat16_it_is_close() -> None:
    model = make({}, embed_dim=96, depth=4)
    clip = torch.randn(4, 3, 4, 32, 32)
    with torch.no_grad():
        exact, rounded = model(clip), prepare(model, "bfloat16")(clip)
    assert rounded.dtype == torch.float32
    assert (exact - rounded).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("frames", [1, 2, 8, 40])
def test_attention_over_time_where_tokens_lie(frames: int) -> None:
    q, k, v = torch.randn(3, 2 * frames, 5, 24, dtype=torch.float64)
    scores = torch.einsum("btmhd,bsmhd->bmhts", *(x.view(2, frames, 5, 3, 8) for x in (q, k))) / 8**0.5
    expected = torch.einsum("bmhts,bsmhd->btmhd", scores.softmax(-1), v.view(2, frames, 5, 3, 8))
    torch.testing.assert_close(attend_over_time(q, k, v, 3, frames), expected.reshape(q.shape))


def test_the_plain_model_is_left_as_it_was_and_what_it_says_goes_along() -> None:
    model = make({})
    model.classes = tuple("abcdefg")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare(model)
    assert prepared.classes == model.classes
    assert not prepared(torch.randn(1, 3, 4, 32, 32)).requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == torch.float32


def test_a_prepared_model_is_not_saved_as_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save the one it is of"):
        prepare(make({})).save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "dtype='float16' is not one of float32, bfloat16, float8, int8"),
        ({"dtype": "float8", "backend": "openvino"}, "dtype='float8' is for backend='torch'"),
        ({"dtype": "int8", "compile": True}, "compile=True is for backend='torch' and not for int8"),
        ({"backend": "tvm"}, "backend='tvm' is not one of torch, openvino"),
        ({"dtype": "int8"}, "dtype='int8' needs calibration"),
        ({"backend": "openvino", "compile": True}, "compile=True is for backend='torch'"),
    ],
)
def test_wrong_choices(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(make({}), **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wrong_clips(dtype: Literal["float32", "bfloat16"]) -> None:
    fast = prepare(make({}), dtype)
    for clip, message in [
        (clips(2).to(torch.uint8), "clip of torch.uint8: expected normalised floats"),
        (clips(2)[:0], r"clip of shape \(0, 3, 4, 32, 32\): expected \(B, 3, F, H, W\) with B from 1 up"),
        (clips(2)[:, :1], r"clip of shape \(2, 1, 4, 32, 32\): expected \(B, 3, F, H, W\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            fast(clip)


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="what is prepared is a TimeSformer, not Prepared"):
        prepare(prepare(make({})))  # type: ignore[arg-type]


def clips(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 4, 32, 32)


@pytest.mark.parametrize("options", [{}, {"attention": "joint_space_time"}, {"attention": "axial"}])
def test_int8_is_close(options: dict[str, Any]) -> None:
    model = make(options, embed_dim=96)
    fast = prepare(model, "int8", calibration=[clips(8), clips(8)])
    clip = clips(16)
    with torch.no_grad():
        exact, rounded = model(clip), fast(clip)
    assert (exact - rounded).abs().mean() < 0.1 * exact.std()


@pytest.mark.parametrize("options", [*({"attention": scheme} for scheme in SCHEMES), {"order": "parallel"}])
def test_float8_is_close(options: dict[str, Any]) -> None:
    model = make(options, embed_dim=96)
    clip = clips(16)
    fast = prepare(model, "float8")
    assert isinstance(fast, Prepared)
    assert {type(getattr(*place)) for place in fast.linears()} == {Float8Linear}
    with torch.no_grad():
        exact, rounded = model(clip), fast(clip)
    assert (exact - rounded).abs().mean() < 0.1 * exact.std()


def test_float8_of_nothing_but_zeros() -> None:
    """A fresh model's `temporal_fc` has no other weights."""
    model = timesformer.create_model("timesformer_tiny", num_frames=4, image_size=32, patch_size=8, depth=2).eval()
    clip = torch.zeros(1, 3, 4, 32, 32)
    with torch.no_grad():
        exact, rounded = model.features(clip), prepare(model, "float8").features(clip)
    assert (exact - rounded).abs().mean() < 0.1 * exact.std()


def test_linear_layers_in_float8_are_products_of_rounded_rows() -> None:
    """Numbers that the format has come out exact, however large a row or an output's weights are."""
    sizes = 2.0 ** torch.randint(-8, 8, (6,))
    x = torch.randint(-7, 8, (2, 3, 32)) * sizes.view(2, 3, 1)
    x[..., 0] = 7 * sizes.view(2, 3)  # the largest of each row: 64 times that is the format's
    of_weights = 2.0 ** torch.randint(-8, 8, (16,))
    weight = torch.randint(-7, 8, (16, 32)) * of_weights[:, None]
    weight[:, 0] = 7 * of_weights
    layer = Float8Linear(weight.bfloat16(), torch.zeros(16, dtype=torch.bfloat16))
    expected = torch.nn.functional.linear(x.double(), weight.double())
    for given in (x.bfloat16(), layer.prepared(x.bfloat16())):
        torch.testing.assert_close(layer(given).double(), expected, rtol=2**-8, atol=0)


def test_float8_needs_sizes_that_the_machine_multiplies() -> None:
    with pytest.raises(ValueError, match=r"dtype='float8' needs sizes that are multiples of 16: blocks\.\S+ has 24"):
        prepare(make({}, embed_dim=24), "float8")


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"order": "parallel"}, marks=pytest.mark.slow),
        pytest.param({"attention": "sparse_local_global"}, marks=pytest.mark.slow),
    ],
)
def test_on_openvino_it_is_the_same(options: dict[str, Any]) -> None:
    pytest.importorskip("openvino")
    model = make(options)
    fast = prepare(model, backend="openvino")
    with torch.no_grad():
        for batch in (1, 3):
            clip = clips(batch)
            torch.testing.assert_close(fast(clip), model(clip), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(fast.features(clip), model.features(clip), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"a model on OpenVINO takes \(B, 3, 4, 32, 32\)"):
        fast(torch.randn(1, 3, 5, 32, 32))
    with pytest.raises(ValueError, match=r"clip of torch.uint8: expected normalised floats"):
        fast(clips(2).to(torch.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"attention": "sparse_local_global"}])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_on_openvino_rounded_it_is_close(
    options: dict[str, Any], dtype: Literal["bfloat16", "int8"], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf")
    model = make(options, embed_dim=96)
    fast = prepare(model, dtype, backend="openvino", calibration=[clips(1) for _ in range(16)])
    assert not capsys.readouterr().out
    clip = clips(16)
    with torch.no_grad():
        for exact, rounded in ((model(clip), fast(clip)), (model.features(clip), fast.features(clip))):
            assert (exact - rounded).abs().mean() < 0.05 * exact.std()
    copies = fast(clip[:1].expand(40, -1, -1, -1, -1))
    torch.testing.assert_close(copies, copies[:1].expand_as(copies), msg="a clip's logits hang on its place in a batch")


@pytest.mark.slow
def test_compiled_it_is_the_same() -> None:
    model = make({})
    clip = clips(2)
    with torch.no_grad():
        torch.testing.assert_close(prepare(model, compile=True)(clip), model(clip), atol=1e-5, rtol=1e-5)
