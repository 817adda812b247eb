from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from timesformer.cli import main
from timesformer.model import attention
from timesformer.model.timesformer import TimeSformer
from timesformer.model.variants import VARIANTS
from timesformer.profiling import count_activations, measure_forward, profile, sweep

TINY = VARIANTS["timesformer_tiny"].replace(depth=2, image_size=64, num_frames=4)
WIDE = TINY.replace(embed_dim=768, num_heads=12)


@pytest.mark.parametrize("scheme", attention.SCHEMES)
def test_activations_are_what_a_real_pass_keeps(scheme: str) -> None:
    config = TINY.replace(attention=scheme, drop_path=0)
    attention.window_table.cache_clear()
    model = TimeSformer(config).train()
    counted = count_activations(model)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(torch.randn(1, 3, 4, 64, 64)).sum()
    expected = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in weights)
    assert counted == pytest.approx(expected, rel=0.02)
    assert torch.isfinite(loss), "tables that were made for counting are of use for computing"


def test_memory_and_time_are_measured() -> None:
    small = profile(TimeSformer(TINY)).measured
    large = profile(TimeSformer(WIDE), repeats=1).measured
    assert small is not None
    assert large is not None
    assert 0 < small.seconds < large.seconds
    weights = 4 * profile(TimeSformer(WIDE), measure=False).parameters
    assert large.peak_memory_bytes > weights
    assert small.peak_memory_bytes < large.peak_memory_bytes
    assert measure_forward("timesformer", asdict(TINY), "bfloat16", 1).seconds > 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["profile", "timesformer_base", "--attention", "axial", "--classes", "174", "--no-measure", "--json", "-"])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["parameters"] == 156_846_510
    assert result["macs_per_view"] == sum(result["macs_by_part"].values())
    assert result["measured"] is None
    out = tmp_path / "curves.png"
    assert main(["profile", "timesformer_base", "--sweep", "frames=8,96", "--out", str(out), "--json", "-"]) == 0
    rows = {(row["attention"], row["frames"]): row["macs_per_view"] for row in json.loads(capsys.readouterr().out)}
    assert round(rows["joint_space_time", 96] / 1e12, 3) == 8.136
    assert Image.open(out).size[0] > 500
    assert main(["profile", "timesformer_base", "--frames", "32", "--size", "336", "--no-measure"]) == 0
    assert "patch 16: 32 frames of 336x336 px" in capsys.readouterr().out
    assert main(["profile", "timesformer_base", "--set", "order=odd"]) == 1
    assert "order='odd' is not one of time_space" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["profile", "timesformer_base", "--sweep", "depth=1"])


def test_sweeps_do_not_depend_on_the_scheme_they_start_from() -> None:
    rows = [
        sweep(TINY.replace(**options), "size", [32, 64]) for options in ({"order": "parallel"}, {"attention": "axial"})
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 10


def test_too_large_a_clip_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer.profiling.count_activations", lambda config: 0)
    monkeypatch.setenv("TIMESFORMER_MAX_IMAGE_SIZE", str(2**16))
    monkeypatch.setenv("TIMESFORMER_MAX_CLIP_PIXELS", str(2**44))
    with pytest.raises(MemoryError, match="not enough memory for such a clip"):
        profile(TimeSformer(TINY.replace(depth=1, image_size=2**16, num_frames=2**12, positions="none")))


def test_baselines_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "slowfast_r50", "--size", "64", "--frames", "8"]) == 0
    out = capsys.readouterr().out
    assert "slowfast: 8 frames of 64x64 px" in out
    assert "head" in out
    assert "ms a clip" in out
    assert main(["profile", "i3d_r50", "--size", "224", "--no-measure", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["parameters"] == sum(result["parameters_by_part"].values()) == 28_043_472
    assert round(result["macs_per_view"] / 1e9, 2) == 28.41
    assert main(["profile", "i3d_r50", "--attention", "axial"]) == 1
    assert main(["profile", "i3d_r50", "--sweep", "frames=8,16"]) == 1
    assert "i3d_r50 has no attention schemes" in " ".join(capsys.readouterr().err.split())
