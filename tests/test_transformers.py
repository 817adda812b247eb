"""Converted folders in the hands of `transformers`: its model class and its pipeline, on the same frames as ours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import timesformer
from timesformer.cli import main
from timesformer.evaluation.views import load_views, to_clips

CLASSES = tuple(f"class {number}" for number in range(7))


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many frames as a clip has, of the model's height, without loss: whoever reads them, they are the same."""
    file = tmp_path_factory.mktemp("transformers") / "video.mkv"
    rng = np.random.default_rng(0)
    with av.open(str(file), "w") as out:
        stream = out.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv444p"
        for _ in range(4):
            picture = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return file


def converted(folder: Path, *, multi_label: bool = False, **options: Any) -> tuple[timesformer.VideoClassifier, Path]:
    torch.manual_seed(0)
    size = {"depth": 2, "embed_dim": 24, "num_heads": 3, "image_size": 32, "patch_size": 8, "num_frames": 4}
    model = timesformer.create_model("timesformer_tiny", **size, num_classes=len(CLASSES), **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.classes, model.multi_label = CLASSES, multi_label
    model.preprocessing = {"num_frames": 4, "stride": 1.0, "sampling": "clip", "image_size": 32}
    model.save_pretrained(folder / "own")
    assert main(["convert", str(folder / "own"), str(folder / "converted"), "--to", "huggingface"]) == 0
    return timesformer.VideoClassifier.from_pretrained(folder / "own"), folder / "converted"


@pytest.mark.parametrize("attention", ["divided_space_time", "joint_space_time"])
def test_its_model_class_gives_the_same_scores(attention: str, transformers: Any, video: Path, tmp_path: Path) -> None:
    ours, folder = converted(tmp_path, attention=attention)
    theirs = transformers.AutoModelForVideoClassification.from_pretrained(folder).eval()
    clip = to_clips(load_views(video, ours.preprocessing)).transpose(1, 2)  # frames before channels
    with torch.no_grad():
        scores = theirs(clip).logits[0].softmax(-1)
    for label, score in ours.predict(video, top=5):
        assert scores[theirs.config.label2id[label]].item() == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_its_pipeline_gives_the_same_answer(multi_label: bool, transformers: Any, video: Path, tmp_path: Path) -> None:
    ours, folder = converted(tmp_path, multi_label=multi_label)
    found = transformers.pipeline("video-classification", model=str(folder))(str(video), top_k=5)
    expected = ours.predict(video, top=5)
    assert [entry["label"] for entry in found] == [label for label, _ in expected]
    assert [entry["score"] for entry in found] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_what_it_has_no_setting_for_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, _ = converted(tmp_path)
    ours.model.preprocessing = {**ours.preprocessing.to_dict(), "colour": "BGR"}
    ours.model.save_pretrained(tmp_path / "own")
    with caplog.at_level(logging.WARNING):
        assert main(["convert", str(tmp_path / "own"), str(tmp_path / "again"), "--to", "huggingface"]) == 0
    assert "takes colours in the order RGB, the model BGR" in caplog.text
