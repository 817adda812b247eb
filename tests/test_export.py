"""Exported models against the plain one: in this process, and by programs that know nothing of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import timesformer
from timesformer import export, models
from timesformer.cli import main
from timesformer.evaluation.views import load_views, to_clips
from timesformer.export import ExportError, export_model
from timesformer.model.attention import SCHEMES
from timesformer.video.decode import VideoError
from timesformer.video.synthetic import write_dataset

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = tuple(f'class {number}: "é"' for number in range(7))
PREPROCESSING = {"num_frames": 4, "stride": 2.0, "sampling": "clip", "image_size": 24}


def classifier(
    preprocessing: dict[str, Any] | None = None, *, multi_label: bool = False, **options: Any
) -> timesformer.VideoClassifier:
    torch.manual_seed(0)
    size = {"depth": 2, "embed_dim": 24, "num_heads": 3, "image_size": 24, "patch_size": 8, "num_frames": 4}
    model = timesformer.create_model("timesformer_tiny", **{**size, "num_classes": 7, **options})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.classes, model.multi_label = NAMES, multi_label
    model.preprocessing = {**PREPROCESSING, **(preprocessing or {})}
    return timesformer.VideoClassifier(model)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "videos"
    return next(write_dataset(folder, "motion", train=8, val=0, test=0, size=48, num_frames=17).rglob("*.mp4"))


QUICK = [("joint_space_time", "onnx"), ("space_only", "torch"), ("axial", "torch")]
CASES = [(scheme, to) for scheme in SCHEMES for to in ("onnx", "torch")]


@pytest.mark.parametrize(
    ("scheme", "to"), [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_the_exported_model_is_the_plain_one(scheme: str, to: export.Format, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    ours = classifier(attention=scheme)
    file = tmp_path / ("m.onnx" if to == "onnx" else "m.pt2")
    assert export_model(ours, file, to).difference <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    for batch in (1, 3):
        clip = torch.randn(batch, 3, 4, 24, 24)
        if to == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            features, logits = map(torch.from_numpy, session.run(["features", "logits"], {"clip": clip.numpy()}))
        else:
            features, logits = torch.export.load(file).module()(clip)
        with torch.no_grad():
            torch.testing.assert_close(logits, ours.model(clip), atol=1e-4, rtol=0)
            torch.testing.assert_close(features, ours.model.features(clip), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("to", "preprocessing", "options"),
    [
        ("onnx", {"stride": 3.5}, {}),
        ("torch", {"sampling": "segments", "colour": "BGR", "image_size": 32}, {"multi_label": True, "image_size": 32}),
    ],
)
def test_programs_without_this_one_predict_the_same(
    to: export.Format, preprocessing: dict[str, Any], options: dict[str, Any], video: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    ours = classifier(preprocessing, **options)
    file = tmp_path / ("m.onnx" if to == "onnx" else "m.pt2")
    done = export_model(ours, file, to, videos=[video])
    assert done.clips == 5
    script = EXAMPLES / f"consume_{to}.py"
    assert "import timesformer" not in script.read_text()
    found = subprocess.run([sys.executable, script, file, video], capture_output=True, text=True, check=True).stdout
    expected = ours.predict(video, top=5)
    for line, (label, score) in zip(found.splitlines(), expected, strict=True):
        theirs, _, name = line.partition("  ")
        assert name == label
        assert float(theirs) == pytest.approx(score, abs=1e-5)
    both = subprocess.run([sys.executable, script, file, video, video], capture_output=True, text=True, check=True)
    assert both.stdout == 2 * f"{video}\n{found}"


def test_the_command(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier().model.save_pretrained(tmp_path / "model")
    file = tmp_path / "out" / "m.pt2"
    command = ["export", str(tmp_path / "model"), "--to", "torch", "--out", str(file), "--set", "num_frames=2"]
    assert main([*command, "--video", str(video), "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["shape"] == [3, 2, 24, 24]
    assert said["bytes"] == file.stat().st_size
    assert 0 <= said["difference"] <= 1e-4
    assert said["speed"] > 0
    texts = {"classes": "", "preprocessing": "", "scores": ""}
    torch.export.load(file, extra_files=texts)
    assert tuple(json.loads(texts["classes"])) == NAMES
    assert json.loads(texts["preprocessing"])["num_frames"] == 2
    right = export._load_torch
    monkeypatch.setattr(export, "_load_torch", lambda file: lambda clip: right(file)(clip) + 1)
    assert main([*command[:-2], "--tolerance", "0.5"]) == 1
    assert "logits of the torch file differ by" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in file.parent.iterdir()] == ["m.pt2"]
    assert said["bytes"] == file.stat().st_size, "what was there stays"


def test_no_number_is_no_small_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = classifier(attention="space_only")

    def load(file: Path) -> export.Run:
        return lambda clip: ours.model(clip) * (float("nan") if len(clip) > 1 else 1)

    monkeypatch.setattr(export, "_load_torch", load)
    with pytest.raises(ExportError, match="not written: logits of the torch file differ by nan"):
        export_model(ours, tmp_path / "m.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


def test_frames_that_are_no_squares(video: Path, tmp_path: Path) -> None:
    ours = classifier(image_size=(24, 40), positions="space")
    done = export_model(ours, tmp_path / "m.pt2", "torch", videos=[video])
    assert done.shape == (3, 4, 24, 24), "as the classifier predicts, whatever the model was made for"
    said = json.loads(export.metadata(ours)["preprocessing"])
    assert (said["height"], said["width"]) == (24, 24)
    clip = to_clips(load_views(video, ours.preprocessing), ours.preprocessing)
    scores = torch.export.load(tmp_path / "m.pt2").module()(clip)[1].softmax(-1)[0]
    torch.testing.assert_close(scores, ours.scores(video), atol=1e-4, rtol=0)


def test_a_baseline(tmp_path: Path) -> None:
    model = models.create(
        "slowfast_r50", width=8, depths=(1, 1, 1, 1), num_classes=7, num_frames=8, image_size=32
    )  # fmt: skip
    model.preprocessing = {**PREPROCESSING, "num_frames": 8, "image_size": 32}
    done = export_model(timesformer.VideoClassifier(model), tmp_path / "m.pt2", "torch")
    assert done.shape == (3, 8, 32, 32)


@pytest.mark.parametrize(
    ("file", "to", "message"),
    [
        ("m.pt", "torch", r"m.pt: the name must end in .pt2"),
        ("m.pt2", "onnx", r"m.pt2: the name must end in .onnx"),
        ("m.pb", "tensorflow", r"to='tensorflow' is not one of onnx, torch, aoti"),
    ],
)
def test_wrong_names(file: str, to: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export_model(classifier(), tmp_path / file, to)


def test_what_can_not_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = classifier()
    with pytest.raises(ValueError, match="export the one it is of"):
        export_model(ours.prepared(), tmp_path / "m.pt2", "torch")
    with pytest.raises(VideoError, match=r"nothing\.mp4"):
        export_model(ours, tmp_path / "m.pt2", "torch", videos=["nothing.mp4"])
    monkeypatch.setattr(export, "_LARGEST_ONNX", 1000)
    with pytest.raises(ExportError, match="do not fit into one ONNX file"):
        export_model(ours, tmp_path / "m.onnx", "onnx")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"needs the extra `onnx`: pip install 'timesformer\[onnx\]'"):
        export_model(ours, tmp_path / "m.onnx", "onnx")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(ExportError, match=r"needs a C\+\+ compiler"):
        export_model(ours, tmp_path / "m.pt2", "aoti")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_compiled_ahead_of_time(scheme: str, tmp_path: Path) -> None:
    from torch._inductor import aoti_load_package

    ours = classifier(attention=scheme)
    assert export_model(ours, tmp_path / "m.pt2", "aoti").difference <= 1e-4
    compiled = aoti_load_package(str(tmp_path / "m.pt2"))
    clip = torch.randn(2, 3, 4, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip)[1], ours.model(clip), atol=1e-4, rtol=0)
    assert tuple(json.loads(compiled.get_metadata()["classes"])) == NAMES
