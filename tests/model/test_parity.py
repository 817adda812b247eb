"""The released model's own outputs and gradients, for its three schemes, at its own and at other clip sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import timesformer

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.safetensors"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_outputs_and_gradients_are_the_released_ones(file: Path) -> None:
    with safe_open(file, "pt") as golden:
        about = golden.metadata()
        tensors = {name: golden.get_tensor(name) for name in golden.keys()}  # noqa: SIM118
    sizes = {name: int(about[name]) for name in ("num_classes", "num_frames", "patch_size", "embed_dim", "depth")}
    model = timesformer.create_model(
        attention=about["attention_type"], image_size=int(about["img_size"]), num_heads=int(about["num_heads"]),
        drop_path=0, **sizes,
    )  # fmt: skip
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})

    features = model.features(tensors["input"])
    logits = model(tensors["input"])
    loss = F.cross_entropy(logits, tensors["labels"].long())
    loss.backward()

    def check(value: torch.Tensor, name: str) -> None:
        torch.testing.assert_close(value, tensors[name].reshape(value.shape), atol=1e-5, rtol=0, msg=name)

    check(features, "features")
    check(logits, "logits")
    check(loss, "loss")
    gradients = [name for name in tensors if name.startswith("grad.")]
    parameters = dict(model.named_parameters())
    assert not gradients or {name.removeprefix("grad.") for name in gradients} == parameters.keys()
    for name in gradients:
        gradient = parameters[name.removeprefix("grad.")].grad
        assert gradient is not None, name
        check(gradient, name)


def test_there_are_five_golden_files() -> None:
    assert len(GOLDEN) == 5


@pytest.mark.parametrize(
    ("attention", "with_174_classes", "with_400_classes"),
    [
        ("space_only", 85_932_462, 86_106_256),
        ("joint_space_time", 85_938_606, 86_112_400),
        ("divided_space_time", 121_392_558, 121_566_352),
        ("sparse_local_global", 121_392_558, 121_566_352),
        ("axial", 156_846_510, 157_020_304),
    ],
)
def test_parameter_counts_of_table_1(attention: str, with_174_classes: int, with_400_classes: int) -> None:
    for num_classes, expected in ((174, with_174_classes), (400, with_400_classes)):
        with torch.device("meta"):
            model = timesformer.create_model("timesformer_base", attention=attention, num_classes=num_classes)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected
