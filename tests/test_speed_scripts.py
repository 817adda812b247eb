"""Scripts that compare speed, on models so small that times mean nothing: that they run, and what they say."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 2, "num_classes": 5}

pytest.importorskip("transformers")
pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytestmark = pytest.mark.slow


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # graphs, without C++ of them
    return importlib.import_module(name)


def test_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    found = script("inference", monkeypatch).compare(2, 32, 2, ["float32", "bfloat16", "int8"], 2, **SMALL)
    assert found["clip"] == "2 x 2 x 32 x 32"
    for peer in ("speed over Hugging Face's best in PyTorch", "best backend's speed over Hugging Face on OpenVINO"):
        assert found["ratios"][f"{peer}, float32"] > 0
    differences = found["largest difference of logits from the plain model's, relative"]
    assert differences["Hugging Face, float32"] < 1e-4
    assert differences["ours, float32"] < 1e-4
    assert differences["ours, bfloat16"] < 0.1


def test_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = script("gpu", monkeypatch)
    found = gpu.compare("base", "cpu", 2, 2, side=64, num_frames=2, image_size=32, **SMALL)
    assert found["clips"] == "2 x 2 x 32 x 32"
    for what in ("inference", "training"):
        assert found[f"speed over Hugging Face's best, {what}"] > 0
        for who in ("Hugging Face", "Hugging Face compiled", "ours", "ours compiled"):
            assert found[f"{who}, {what}, clips/s"] > 0
            assert f"{who}, {what}, share of the rate" in found
    for who in ("ours", "ours compiled"):
        assert found[f"{who}, float8, inference, clips/s"] > 0


def test_operations_are_those_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = script("gpu", monkeypatch)
    assert gpu._operations(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 2 * 3 * 5 * 7
