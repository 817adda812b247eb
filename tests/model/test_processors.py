"""Processor files of transformers that are refused, each by the name of the setting; and where they are looked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model.test_timesformer import make
from timesformer.model.processors import PROCESSOR_FILES, read_processor, to_processor
from timesformer.model.tensors import WeightsError
from timesformer.model.weights import convert, load_model
from timesformer.video.preprocessing import Preprocessing

GOOD = {
    "image_processor_type": "VideoMAEImageProcessor", "do_resize": True, "size": {"shortest_edge": 40}, "resample": 2,
    "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip


def write(folder: Path, content: Any, name: str = "preprocessor_config.json") -> None:
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "VivitImageProcessor"}, "offset=True is not done here"),
        ({"image_processor_type": "CLIPImageProcessor"}, "a CLIPImageProcessor, which is not one of"),
        ({"resample": 1}, r"resample=1 is not done here: it must be 2 \(bilinear\) or 3 \(bicubic\)"),
        ({"do_resize": False}, "do_resize=False is not done here"),
        ({"size": {"height": 32, "width": 40}}, "size={.*} is not done here: it must be a shortest_edge, or a height"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size={.*} is not done here"),
        ({"size": "32"}, "size='32' is not done here"),
        ({"size": {"shortest_edge": 0}}, "size={'shortest_edge': 0} is not done here: it must be whole numbers"),
        ({"crop_size": {"height": 32, "width": 24}}, "crop_size={.*} is not done here"),
        (
            {"crop_size": {"height": 48, "width": 48}},
            "crop_size={.*} is not done here: it must not be larger than size",
        ),
        ({"crop_size": {"height": 30, "width": 30}}, "crop_size={.*} is not done here: no multiple of patch_size=16"),
        ({"do_center_crop": False}, "do_center_crop=False is not done here"),
        ({"do_pad": True}, "do_pad=True is not done here"),
        ({"do_sample_frames": True}, "do_sample_frames=True is not done here"),
        ({"something_new": 3}, "something_new=3 is not done here"),
        ({"rescale_factor": 0}, "rescale_factor=0 is not done here"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean=\[0.5, 0.5\] is not done here: it must be three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std=.* is not done here: it must be above 0"),
        ({"image_processor_type": None, "image_mean": None}, "it does not say image_mean, nor of which class it is"),
    ],
)
def test_what_is_not_done_is_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, {**GOOD, **change})
    with pytest.raises(
        WeightsError, match=f"preprocessor_config.json: {message}|preprocessor_config.json: .*{message}"
    ):
        read_processor(tmp_path, 16)


def test_files_that_differ_are_refused_and_such_that_agree_are_one(tmp_path: Path) -> None:
    assert read_processor(tmp_path, 16) is None
    write(tmp_path, GOOD)
    video = {**GOOD, "image_processor_type": None, "video_processor_type": "TimesformerVideoProcessor"}
    write(tmp_path, video, "video_preprocessor_config.json")
    write(tmp_path, {"video_processor": video}, "processor_config.json")
    assert read_processor(tmp_path, 16) == {
        "image_size": 32, "short_side": 40, "keep_aspect": True, "interpolation": "bilinear",
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
    }  # fmt: skip
    write(tmp_path, {"video_processor": {**video, "image_std": 0.5}}, "processor_config.json")
    with pytest.raises(WeightsError, match=r"processor_config.json .*: its std is \[0.5, 0.5, 0.5\], in .*0.4"):
        read_processor(tmp_path, 16)


@pytest.mark.parametrize("name", PROCESSOR_FILES)
@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_none_is_refused_by_its_name(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WeightsError, match=rf"/{name}: "):
        read_processor(tmp_path, 16)


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    for said in (
        Preprocessing(image_size=32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
        Preprocessing(image_size=32, short_side=40, interpolation="bicubic"),
        Preprocessing(image_size=32, short_side=40, keep_aspect=False),
    ):
        write(tmp_path, to_processor(said))
        found = read_processor(tmp_path, 16)
        assert found is not None
        assert Preprocessing(**found) == said


def test_the_processor_counts_more_than_what_we_wrote_beside_it_and_follows_another_size(tmp_path: Path) -> None:
    model = make()
    model.preprocessing = Preprocessing(4, 8, "segments", 32, "BGR").to_dict()
    model.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "hf", "huggingface")
    write(tmp_path / "hf", GOOD)
    again = load_model(tmp_path / "hf").preprocessing
    expected = Preprocessing(4, 8, "segments", 32, "BGR", short_side=40, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert again == expected.to_dict()
    larger = load_model(tmp_path / "hf", image_size=64).preprocessing
    assert larger is not None
    assert (larger["image_size"], larger["short_side"]) == (64, 80)
