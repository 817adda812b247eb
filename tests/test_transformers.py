"""Converted folders in the hands of `transformers`: its model class and its pipeline, on the same frames as ours."""

from __future__ import annotations

import json
import logging
import shutil
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
    clip = to_clips(load_views(video, ours.preprocessing), ours.preprocessing).transpose(1, 2)  # frames before channels
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


# --- Folders of theirs with processors of their own -------------------------------------------------------------------

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS: dict[str, dict[str, Any]] = {
    "its own defaults": {},
    "another value for each colour": IMAGENET,
    "a larger short side": {**HALF, "size": {"shortest_edge": 40}},
    "frames squeezed to a square": {**HALF, "size": {"height": 32, "width": 32}, "do_center_crop": False},
    "a square cut out of a squeezed frame": {**IMAGENET, "size": {"height": 44, "width": 44}},
    "bicubic": {**HALF, "resample": 3},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 58.0, 56.0]},
    "rescaled otherwise": {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [0.5] * 3},
    "neither": {"do_rescale": False, "do_normalize": False},
}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Four frames, 96x64, of broad coloured waves and a few sharp edges."""
    y, x, t = np.mgrid[0:64, 0:96, 0:4].astype(np.float64)
    colours = [np.sin(x / 9 + t + c) * 60 + np.cos(y / 7 - c * t) * 50 + 90 + 20 * c for c in range(3)]
    picture = np.stack(colours, axis=-1)
    picture[20:40, 30:50] += 60
    return np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8).transpose(2, 0, 1, 3))


@pytest.fixture(scope="module")
def film(frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames as a folder of images, which all read alike."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("film")
    for number, picture in enumerate(frames):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def theirs(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of theirs whose answer depends on the normalisation, and its folder without a processor."""
    torch.manual_seed(3)
    config = transformers.TimesformerConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=48, id2label=dict(enumerate(CLASSES)), label2id={n: i for i, n in enumerate(CLASSES)},
        preprocessing={"stride": 1.0, "sampling": "clip"},
    )  # fmt: skip
    model = transformers.TimesformerForVideoClassification(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.12)
    folder = tmp_path_factory.mktemp("theirs") / "model"
    model.save_pretrained(folder)
    return model, folder


def folder_with(theirs: Any, out: Path, file: str, content: dict[str, Any]) -> Path:
    shutil.copytree(theirs[1], out, dirs_exist_ok=True)
    (out / file).write_text(json.dumps(content))
    return out


def processor_of(transformers: Any, **options: Any) -> Any:
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return transformers.VideoMAEImageProcessor(**{**sizes, **options})


@torch.no_grad()
def scores_of(theirs: Any, processor: Any, frames: np.ndarray) -> dict[str, float]:
    pixels = processor(list(frames), return_tensors="pt")["pixel_values"].float()
    return dict(zip(CLASSES, theirs[0](pixels).logits[0].softmax(-1).tolist(), strict=True))


def assert_same_scores(folder: Path, film: Path, expected: dict[str, float]) -> None:
    found = timesformer.VideoClassifier.from_pretrained(folder, device="cpu").predict(film, top=7)
    assert found[0][0] == max(expected, key=lambda name: expected[name])
    assert dict(found) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("options", PROCESSORS.values(), ids=PROCESSORS)
def test_a_processor_of_its_own_is_followed(
    options: dict[str, Any], theirs: Any, transformers: Any, frames: np.ndarray, film: Path, tmp_path: Path
) -> None:
    processor = processor_of(transformers, **options)
    folder = folder_with(theirs, tmp_path, "preprocessor_config.json", processor.to_dict())
    assert_same_scores(folder, film, scores_of(theirs, processor, frames))
    again = tmp_path / "again"  # and so it is after a way through both formats
    assert main(["convert", str(folder), str(tmp_path / "own"), "--to", "timesformer"]) == 0
    assert_same_scores(tmp_path / "own", film, scores_of(theirs, processor, frames))
    assert main(["convert", str(tmp_path / "own"), str(again), "--to", "huggingface"]) == 0
    written = transformers.AutoImageProcessor.from_pretrained(again)
    assert scores_of(theirs, written, frames) == pytest.approx(scores_of(theirs, processor, frames), abs=1e-5)


def _old_extractor(content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    content = {name: value for name, value in content.items() if name not in ("image_processor_type", "rescale_factor")}
    return "preprocessor_config.json", {
        **content, "feature_extractor_type": "VideoMAEFeatureExtractor", "size": 32, "crop_size": 32
    }  # fmt: skip


def _video_processor(content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    del content["image_processor_type"]
    more = {"video_processor_type": "TimesformerVideoProcessor", "do_convert_rgb": True, "do_sample_frames": False}
    return "video_preprocessor_config.json", {**content, **more, "return_metadata": False}


def _nested(content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "processor_config.json", {"processor_class": "X", "video_processor": _video_processor(content)[1]}


@pytest.mark.parametrize("form", [_old_extractor, _video_processor, _nested])
def test_every_form_of_a_processor_file_is_read(
    form: Any, theirs: Any, transformers: Any, frames: np.ndarray, film: Path, tmp_path: Path
) -> None:
    processor = processor_of(transformers, **HALF)
    folder = folder_with(theirs, tmp_path, *form(processor.to_dict()))
    assert_same_scores(folder, film, scores_of(theirs, processor, frames))


def test_their_video_processor_defaults_to_other_values(
    theirs: Any, transformers: Any, frames: np.ndarray, film: Path, tmp_path: Path
) -> None:
    """Of what a file leaves out: ImageNet's values, where the image processor has 0.5."""
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    content = {"video_processor_type": "TimesformerVideoProcessor", **sizes}
    folder = folder_with(theirs, tmp_path, "video_preprocessor_config.json", content)
    assert_same_scores(folder, film, scores_of(theirs, processor_of(transformers, **IMAGENET), frames))


def test_without_a_processor_the_usual_values_are_taken_and_that_is_said(
    theirs: Any, transformers: Any, frames: np.ndarray, film: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = processor_of(transformers, image_mean=[0.45] * 3, image_std=[0.225] * 3)
    assert_same_scores(theirs[1], film, scores_of(theirs, usual, frames))
    assert caplog.text.count("it has no preprocessor_config.json: colours are normalised as usual") == 1
