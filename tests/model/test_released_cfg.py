"""The configuration that the authors' code writes into a checkpoint: what it says of frames, colours and labels."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import timesformer
from tests.model.test_timesformer import SMALL, make
from timesformer.model.tensors import WeightsError
from timesformer.model.weights import convert, load_model
from timesformer.video.preprocessing import Preprocessing

# The keys and defaults of the authors' configuration, as far as they bear on a model.
DATA: dict[str, Any] = {
    "NUM_FRAMES": 4, "SAMPLING_RATE": 32, "TRAIN_CROP_SIZE": 32, "TEST_CROP_SIZE": 32, "TARGET_FPS": 30,
    "MEAN": [0.45, 0.45, 0.45], "STD": [0.225, 0.225, 0.225], "MULTI_LABEL": False, "INPUT_CHANNEL_NUM": [3],
}  # fmt: skip


def checkpoint(path: Path, dataset: str = "kinetics", **data: Any) -> Path:
    state = {f"model.{name}": value for name, value in make().state_dict().items()}
    cfg = {
        "DATA": {**DATA, **data}, "TRAIN": {"DATASET": dataset}, "MODEL": {"NUM_CLASSES": SMALL["num_classes"]},
        "TIMESFORMER": {"ATTENTION_TYPE": "divided_space_time", "NUM_HEADS": 3},
    }  # fmt: skip
    torch.save({"model_state": state, "cfg": yaml.safe_dump(cfg)}, path)
    return path


def preprocessing(path: Path) -> Preprocessing:
    found = load_model(path).preprocessing
    assert found is not None
    return Preprocessing(**found)


@pytest.mark.parametrize(
    ("dataset", "colour", "sampling"),
    [
        ("kinetics", "RGB", "clip"),
        ("Kinetics", "RGB", "clip"),
        ("ssv2", "BGR", "segments"),
        ("Ssv2", "BGR", "segments"),
    ],
)
def test_the_data_set_tells_colours_and_sampling(dataset: str, colour: str, sampling: str, tmp_path: Path) -> None:
    found = preprocessing(checkpoint(tmp_path / "x.pyth", dataset))
    assert (found.colour, found.sampling, found.stride) == (colour, sampling, 32)


def test_another_data_set_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert preprocessing(checkpoint(tmp_path / "x.pyth", "diving")).colour == "RGB"
    assert "TRAIN.DATASET='diving' is neither kinetics nor ssv2: taken to be RGB frames at a stride" in caplog.text


def test_several_labels_are_read_where_the_authors_write_them(tmp_path: Path) -> None:
    assert load_model(checkpoint(tmp_path / "x.pyth", MULTI_LABEL=True)).multi_label
    assert not load_model(checkpoint(tmp_path / "y.pyth")).multi_label
    model = make()
    model.multi_label = True
    model.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "model.pyth", "released")
    cfg = yaml.safe_load(torch.load(tmp_path / "model.pyth", weights_only=True)["cfg"])
    assert cfg["DATA"]["MULTI_LABEL"] is True
    assert load_model(tmp_path / "model.pyth").multi_label


def test_other_values_are_honoured(tmp_path: Path) -> None:
    file = checkpoint(
        tmp_path / "x.pyth",
        MEAN=[0.1, 0.2, 0.3],
        STD=[0.4, 0.5, 0.6],
        TEST_CROP_SIZE=48,
        SAMPLING_RATE=16,
        TARGET_FPS=15,
    )
    found = preprocessing(file)
    assert (found.mean, found.std, found.image_size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 48)
    assert found.stride == 32  # every 16th frame at 15 fps is every 32nd at 30
    assert load_model(file).config.image_size == 32


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"MEAN": [0.45]}, r"DATA.MEAN=\[0.45\] must be three numbers"),
        ({"STD": [0.2, 0.2, 0]}, r"DATA.STD=.* must be three numbers above 0"),
        ({"SAMPLING_RATE": 0}, "DATA.SAMPLING_RATE=0 must be a number above 0"),
        ({"TARGET_FPS": "x"}, "DATA.TARGET_FPS='x' must be a number above 0"),
        ({"TEST_CROP_SIZE": 50}, "DATA.TEST_CROP_SIZE=50 must be a multiple of the patch size 8"),
        ({"MULTI_LABEL": "maybe"}, "DATA.MULTI_LABEL='maybe' must be true or false"),
    ],
)
def test_values_that_are_not_understood(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"x.pyth: its cfg: {message}"):
        load_model(checkpoint(tmp_path / "x.pyth", **data))


OWN = [
    Preprocessing(4, 8, "clip", 32),
    Preprocessing(4, 8, "segments", 32, "BGR"),
    Preprocessing(4, 8, "segments", 32, "RGB"),
    Preprocessing(4, 8, "clip", 32, "BGR", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    Preprocessing(4, 8, "clip", 48),
]


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("to", ["released", "huggingface", "timesformer"])
def test_colours_come_through_every_format(own: Preprocessing, to: Any, tmp_path: Path) -> None:
    model = make()
    model.preprocessing = own.to_dict()
    model.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "other.pyth", to)
    found = load_model(tmp_path / "other.pyth").preprocessing
    assert found is not None
    assert Preprocessing(**found) == own


def test_what_the_released_format_cannot_say_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = make()
    model.preprocessing = Preprocessing(
        4, 8, "clip", 32, "BGR", short_side=40, keep_aspect=False, interpolation="bicubic"
    ).to_dict()
    model.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "model.pyth", "released")
    for name in ("colour='BGR'", "short_side=40", "keep_aspect=False", "interpolation='bicubic'"):
        assert f"the authors' code does not know {name}" in caplog.text


# --- Copies of the hub's folders --------------------------------------------------------------------------------------


def hub_copy(folder: Path, classes: int = 174, **changes: Any) -> Path:
    """A folder of the sizes of clips of a published model, but few and narrow blocks, and as many classes."""
    sizes = {"num_frames": 8, "image_size": 224, "patch_size": 16, "embed_dim": 24, "num_classes": classes}
    model = timesformer.create_model("timesformer_tiny", **{**SMALL, **sizes})
    model.save_pretrained(folder.parent / "own")
    convert(folder.parent / "own", folder, "huggingface")
    about = json.loads((folder / "config.json").read_text())
    del about["preprocessing"]
    (folder / "config.json").write_text(json.dumps({**about, **changes}))
    return folder


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("timesformer-base-finetuned-ssv2", None),
        ("models--facebook--timesformer-base-finetuned-ssv2/snapshots/0123abcd", None),
        ("my_folder", "facebook/timesformer-base-finetuned-ssv2"),
    ],
)
def test_a_copy_of_a_published_folder_is_known(
    path: str, name: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    found = load_model(hub_copy(tmp_path / path, **({"_name_or_path": name} if name else {}))).preprocessing
    assert found is not None
    assert (found["colour"], found["sampling"]) == ("BGR", "segments")
    by_name = "taken to be a copy of facebook/timesformer-base-finetuned-ssv2" in caplog.text
    assert by_name == ("snapshots" not in path), "which is said, unless it is the hub's own cache"


@pytest.mark.parametrize(
    ("path", "classes", "changes"),
    [
        ("mine", 174, {}),
        ("timesformer-base-finetuned-ssv2", 10, {}),
        ("timesformer-base-finetuned-ssv2", 174, {"_name_or_path": "facebook/timesformer-base-finetuned-k400"}),
    ],
)
def test_what_is_no_copy_is_not_taken_for_one(
    path: str, classes: int, changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = load_model(hub_copy(tmp_path / path, classes, **changes)).preprocessing
    assert found is not None
    assert not {"colour", "sampling"} & found.keys()
    assert "taken to be a copy" not in caplog.text
    hint = 'if it is a copy, put "preprocessing": {"stride": 32.0, "sampling": "segments", "colour": "BGR"} into'
    assert (hint in caplog.text) == (classes == 174)
    with caplog.at_level(logging.WARNING):
        timesformer.VideoClassifier(load_model(tmp_path / path), device="cpu")
    assert "the model does not say how videos become its input: taken to be {'stride': 32" in caplog.text
