"""Other programs' weights: the authors' files, Hugging Face's, and files that are no weights at all."""

from __future__ import annotations

import json
import logging
import pickle
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

import timesformer
from tests.model.test_timesformer import SMALL, make
from timesformer.model import hub
from timesformer.model.attention import RELEASED, SCHEMES
from timesformer.model.tensors import WeightsError
from timesformer.model.weights import convert, load_model
from timesformer.video.preprocessing import Preprocessing

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.safetensors"))
HEADS = {"num_heads": 3}  # of 16, which the weights of these small models don't tell


@pytest.fixture(scope="session")
def transformers() -> Any:
    return pytest.importorskip("transformers")


def released_file(path: Path, model: timesformer.TimeSformer, wrapper: str | None = "model_state") -> Path:
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    return path


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_a_released_checkpoint_gives_the_released_logits(file: Path, tmp_path: Path) -> None:
    with safe_open(file, "pt") as golden:
        tensors = {name: golden.get_tensor(name) for name in golden.keys()}  # noqa: SIM118
        about = golden.metadata()
    state = {name: value for name, value in tensors.items() if name.startswith("model.")}
    torch.save({"model_state": state, "epoch": 15, "optimizer_state": {"lr": 0.1}}, tmp_path / "golden.pyth")
    model = load_model(tmp_path / "golden.pyth", **HEADS)
    assert model.config.attention == about["attention_type"]
    torch.testing.assert_close(model(tensors["input"]), tensors["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrapper", ["model_state", "model", "state_dict", None])
@pytest.mark.parametrize("prefix", ["model.", "", "module.model."])
def test_every_wrapping_of_a_released_checkpoint(wrapper: str | None, prefix: str, tmp_path: Path) -> None:
    model = make()
    state = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "x.pyth")
    again = load_model(tmp_path / "x.pyth", **HEADS)
    assert again.config == model.config.replace(drop_path=0.1)
    assert_same_weights(model, again)


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert list(one.state_dict()) == list(other.state_dict())
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_what_a_released_checkpoint_is_shows_in_its_weights(tmp_path: Path) -> None:
    for scheme in SCHEMES:
        model = make(attention=scheme, patch_size=16, image_size=64, num_frames=3, mlp_ratio=2, in_channels=1)
        again = load_model(released_file(tmp_path / "x.pyth", model), **HEADS)
        if scheme == "space_only":  # nothing in its weights tells its number of frames
            again = load_model(tmp_path / "x.pyth", num_frames=3, **HEADS)
        assert again.config == model.config.replace(drop_path=0.1)
    wide = timesformer.create_model("timesformer_tiny", depth=1)
    assert load_model(released_file(tmp_path / "x.pyth", wide)).config.num_heads == 3
    with pytest.raises(
        WeightsError, match=r"x.pyth: its width of 48 does not tell the number of heads: give num_heads"
    ):
        load_model(released_file(tmp_path / "x.pyth", make()))
    oblong = released_file(tmp_path / "x.pyth", make(image_size=(16, 40)))
    with pytest.raises(WeightsError, match=r"10 positions are no square of patches: give image_size=\(height, width\)"):
        load_model(oblong, **HEADS)
    assert load_model(oblong, image_size=(16, 40), **HEADS).config.frame_size == (16, 40)


def test_the_configuration_in_a_checkpoint_is_heeded(tmp_path: Path) -> None:
    cfg = {
        "DATA": {"NUM_FRAMES": 4, "TRAIN_CROP_SIZE": 32, "SAMPLING_RATE": 16},
        "TIMESFORMER": {"ATTENTION_TYPE": "divided_space_time"}, "TRAIN": {"DATASET": "kinetics"},
    }  # fmt: skip
    state = {f"model.{name}": value for name, value in make().state_dict().items()}
    torch.save({"model_state": state, "cfg": yaml.safe_dump(cfg)}, tmp_path / "x.pyth")
    model = load_model(tmp_path / "x.pyth", **HEADS)
    expected = {"num_frames": 4, "stride": 16.0, "sampling": "clip", "colour": "RGB", "image_size": 32}
    assert model.preprocessing == expected
    other = load_model(tmp_path / "x.pyth", image_size=64, **HEADS)
    assert other.preprocessing == {**expected, "image_size": 64}
    torch.save({"model_state": state, "cfg": "a: [b"}, tmp_path / "x.pyth")
    with pytest.raises(WeightsError, match="its cfg: is not YAML of plain values"):
        load_model(tmp_path / "x.pyth", **HEADS)


def test_published_files_are_known_by_name(tmp_path: Path) -> None:
    assert len(hub.CATALOGUE) == 13
    for name, entry in hub.CATALOGUE.items():
        assert hub.published(tmp_path / entry.file) is None, "there is no such file"
        (tmp_path / entry.file).touch()
        assert hub.published(name) == hub.published(tmp_path / entry.file) == entry
    file = released_file(tmp_path / "TimeSformer_divST_8_224_SSv2.pyth", make())
    assert load_model(file, **HEADS).preprocessing == {
        "stride": 32.0, "sampling": "segments", "colour": "BGR", "num_frames": 4, "image_size": 32,
    }  # fmt: skip
    with pytest.raises(WeightsError, match=r"publish it as TimeSformer_divST_96x4_224_K400.pyth, a file alone: give"):
        load_model("timesformer_long_k400")


def test_class_names_from_a_file(tmp_path: Path) -> None:
    file = released_file(tmp_path / "x.pyth", make())
    (tmp_path / "names.txt").write_text("a\nb\n\nc d\ne\nf\n")
    assert load_model(file, classes=tmp_path / "names.txt", **HEADS).classes == ("a", "b", "c d", "e", "f")
    assert load_model(file, classes=list("vwxyz"), **HEADS).classes == tuple("vwxyz")
    with pytest.raises(WeightsError, match=r"names.txt: 5 names for a model of 3 classes"):
        load_model(file, classes=tmp_path / "names.txt", num_classes=3, **HEADS)


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def hf_model(transformers: Any, attention: str) -> Any:
    torch.manual_seed(0)
    config = transformers.TimesformerConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=48, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=96, attention_type=attention, id2label={n: f"class {n}" for n in range(5)},
    )  # fmt: skip
    model = transformers.TimesformerForVideoClassification(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("attention", RELEASED)
def test_hugging_face_models_give_the_same_logits(attention: str, tmp_path: Path, transformers: Any) -> None:
    theirs = hf_model(transformers, attention)
    theirs.save_pretrained(tmp_path / "hf")
    ours = load_model(tmp_path / "hf")
    assert ours.classes == tuple(f"class {number}" for number in range(5))
    for frames, height, width in ((4, 32, 32), (6, 32, 32), (3, 48, 64), (4, 64, 40)):
        clip = torch.randn(2, 3, frames, height, width)
        theirs.config.num_frames = frames  # without, their time step takes other clips apart at the wrong places
        with torch.no_grad():
            hidden = theirs.timesformer(clip.transpose(1, 2), output_hidden_states=True).hidden_states[-1]
            # Frames of their `space_only` come out one by one: the released model averages them before the last norm.
            cls = hidden[:, 0].unflatten(0, (2, -1)).mean(dim=1)
            expected = theirs.classifier(theirs.timesformer.layernorm(cls))
            torch.testing.assert_close(ours(clip), expected, atol=1e-5, rtol=0)
            if attention != "space_only":
                torch.testing.assert_close(theirs(clip.transpose(1, 2)).logits, expected)


@pytest.mark.parametrize("attention", RELEASED)
def test_to_hugging_face_and_back_is_the_same_bit_for_bit(attention: str, tmp_path: Path, transformers: Any) -> None:
    model = make(attention=attention, drop_path=0.2)
    model.classes, model.multi_label = tuple("abcde"), True
    model.preprocessing = {"num_frames": 4, "stride": 8.0, "sampling": "segments", "image_size": 32}
    model.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "hf", "huggingface")
    theirs = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path / "hf").eval()
    clip = torch.randn(1, 3, 4, 32, 32)
    if attention != "space_only":  # see above
        torch.testing.assert_close(theirs(clip.transpose(1, 2)).logits, model(clip), atol=1e-5, rtol=0)
    assert theirs.config.id2label == dict(enumerate("abcde"))
    convert(tmp_path / "hf", tmp_path / "back", "timesformer")
    again = load_model(tmp_path / "back")
    assert_same_weights(model, again)
    assert again.config == model.config.replace(drop_path=0.0)
    assert (again.classes, again.multi_label) == (tuple("abcde"), True)
    assert again.preprocessing is not None
    assert Preprocessing(**again.preprocessing) == Preprocessing(**model.preprocessing)
    theirs.save_pretrained(tmp_path / "their_own")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "their_own"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("attention", RELEASED)
def test_to_the_released_format_and_back(attention: str, tmp_path: Path) -> None:
    model = make(attention=attention)
    model.classes = tuple("abcde")
    model.preprocessing = {"num_frames": 4, "stride": 8.0, "sampling": "segments", "image_size": 32}
    model.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "model.pyth", "released")
    content = torch.load(tmp_path / "model.pyth", weights_only=True)
    assert all(name.startswith("model.") for name in content["model_state"])
    again = load_model(tmp_path / "model.pyth")
    assert_same_weights(model, again)
    assert again.config == model.config.replace(drop_path=0.1)
    assert again.classes == model.classes
    assert again.preprocessing is not None
    assert Preprocessing(**again.preprocessing) == Preprocessing(**model.preprocessing)


def test_the_preprocessing_for_hugging_face_is_ours(tmp_path: Path, transformers: Any) -> None:
    from timesformer.video.transforms import MEAN, STD

    make().save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "hf", "huggingface")
    about = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert about["image_mean"] == [MEAN] * 3
    assert about["image_std"] == [STD] * 3


@pytest.mark.parametrize("to", ["huggingface", "released"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "axial"}, "attention='axial' can't be written"),
        ({"cls_attention": "equations"}, "cls_attention='equations' can't be written"),
        ({"order": "parallel"}, "order='parallel' can't be written"),
        ({"positions": "none"}, "positions='none' can't be written"),
        ({"head_hidden_dim": 8}, "head_hidden_dim=8 can't be written"),
        ({"image_size": (32, 40)}, r"image_size=\(32, 40\) can't be written"),
    ],
)
def test_what_a_format_cannot_express_is_refused(to: Any, options: Any, message: str, tmp_path: Path) -> None:
    make(**options).save_pretrained(tmp_path / "own")
    out = tmp_path / ("out.pyth" if to == "released" else "out")
    with pytest.raises(WeightsError, match=message):
        convert(tmp_path / "own", out, to)
    assert not out.exists()


def test_wrong_hugging_face_folders(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "hf", "huggingface")
    good = json.loads((tmp_path / "hf" / "config.json").read_text())
    cases = {
        "hidden_act='relu': it must be 'gelu'": {**good, "hidden_act": "relu"},
        "its config.json does not say 'hidden_size'": {k: v for k, v in good.items() if k != "hidden_size"},
        "attention='odd' is not one of": {**good, "attention_type": "odd"},
        r"weight blocks.0.attn.proj.bias: \(48,\) in the file, \(96,\) in the model": {**good, "hidden_size": 96},
        "depth=1 in its config.json, 2 blocks in its weights": {**good, "num_hidden_layers": 1},
        "does not tell of its weight encoder.layer.0.temporal": {**good, "attention_type": "joint_space_time"},
        "its config.json is of a vit model, not of a TimeSformer": {"model_type": "vit"},
    }
    for message, about in cases.items():
        (tmp_path / "hf" / "config.json").write_text(json.dumps(about))
        with pytest.raises(WeightsError, match=message):
            load_model(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(good))
    (tmp_path / "hf" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"a config.json but no model.safetensors or pytorch_model.bin"):
        load_model(tmp_path / "hf")


def test_an_unknown_name_without_network_is_one_clear_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"nobody/nothing: no file or folder here, .* can't be reached"):
        load_model("nobody/nothing")
    with pytest.raises(WeightsError, match=r"facebook/timesformer-base-finetuned-k400: no file .* config.json"):
        load_model("timesformer_base_k400")
    assert time.monotonic() - started < 10
    with pytest.raises(
        WeightsError, match=r"nothing: no such file or folder, nor the id .*, nor one of timesformer_base"
    ):
        load_model("nothing")


# --- Files that are no weights ----------------------------------------------------------------------------------------


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("load", [load_model, lambda file: timesformer.init_from_vit(make(), file)])
def test_bad_files_are_one_clear_error_each(load: Any, tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "x.pth"
    torch.save({"model_state": {"cls_token": torch.zeros(1)}, "extra": Evil(victim)}, file)
    with pytest.raises(
        WeightsError, match=r"x.pth: refused: it holds .*, which only running it as code would restore, not weights"
    ):
        load(file)
    file.write_bytes(pickle.dumps({"model_state": Evil(victim)}, protocol=2))
    with pytest.raises(WeightsError, match=r"x.pth: (refused: it holds .* as code|not a file of weights)"):
        load(file)
    assert not victim.exists(), "no code was run"

    whole = released_file(tmp_path / "whole.pth", make()).read_bytes()
    cases = {
        "x.pth": [whole[: len(whole) // 2], b"some text", b""],
        "x.npz": [b"some text", whole[:100]],
        "x.safetensors": [b"some text", b""],
    }
    for name, contents in cases.items():
        for content in contents:
            (tmp_path / name).write_bytes(content)
            with pytest.raises(WeightsError, match=f"{name}: not a file of weights, or damaged"):
                load(tmp_path / name)
    torch.save([1, 2], file)
    with pytest.raises(WeightsError, match=r"x.pth: no weights by name in it"):
        load(file)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(WeightsError, match=r"x.pth: no (TimeSformer|image ViT): it has no"):
        load(file)


def test_a_checkpoint_of_another_architecture_shows_both_shapes(tmp_path: Path) -> None:
    file = released_file(tmp_path / "x.pyth", make())
    with pytest.raises(
        WeightsError, match=r"weight blocks.0.attn.proj.bias: \(48,\) in the file, \(96,\) in the model"
    ):
        load_model(file, embed_dim=96, num_heads=3)
    with pytest.raises(WeightsError, match=r"weight blocks.0.temporal_attn.* in the file, no such weight in the model"):
        load_model(file, attention="joint_space_time", num_heads=3)


def test_an_unused_head_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(released_file(tmp_path / "x.pyth", make()), num_classes=2, **HEADS)
    assert model.config.num_classes == 2
    assert "head not loaded: it has 5 classes, not 2" in caplog.text


def test_positions_resized_to_the_nearest(tmp_path: Path) -> None:
    model = make()
    file = released_file(tmp_path / "x.pyth", model)
    clip = torch.randn(1, 3, 6, 48, 64)
    at_run_time = model(clip)
    at_loading = load_model(file, image_size=(48, 64), num_frames=6, resize="nearest", **HEADS)(clip)
    assert torch.equal(at_run_time, at_loading)
    with pytest.raises(ValueError, match="resize='linear' is not one of bicubic, nearest"):
        load_model(file, resize="linear", **HEADS)  # type: ignore[arg-type]
    assert SMALL["num_frames"] == 4


def test_a_square_checkpoint_in_oblong_is_resized_not_reread(tmp_path: Path) -> None:
    file = released_file(tmp_path / "x.pyth", make())
    make().save_pretrained(tmp_path / "own")
    one, other = (load_model(path, image_size=(16, 64), num_heads=3) for path in (file, tmp_path / "own"))
    assert_same_weights(one, other)


def test_what_shapes_do_not_tell_a_configuration_may(tmp_path: Path) -> None:
    model = make(attention="joint_space_time", head_hidden_dim=8)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "x.pyth")
    assert load_model(tmp_path / "x.pyth", **HEADS).config == model.config.replace(drop_path=0.1)
    space = make(attention="joint_space_time", positions="space")
    cfg = yaml.safe_dump({"TIMESFORMER": {"ATTENTION_TYPE": "joint_space_time"}})
    torch.save({"model_state": space.state_dict(), "cfg": cfg}, tmp_path / "x.pyth")
    assert load_model(tmp_path / "x.pyth", **HEADS, num_frames=4).config == space.config.replace(drop_path=0.1)
    torch.save({"model": model.state_dict(), "progress": {}, "run": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match=r"checkpoint.pt: the checkpoint of a run under way, for --resume"):
        load_model(tmp_path / "checkpoint.pt")


def test_another_head_is_new_and_parts_of_other_tasks_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {**make().state_dict(), "mask_token": torch.zeros(1)}
    torch.save(state, tmp_path / "x.pyth")
    with caplog.at_level(logging.WARNING):
        model = load_model(tmp_path / "x.pyth", head_hidden_dim=8, **HEADS)
    assert model(torch.randn(1, 3, 4, 32, 32)).shape == (1, 5)
    assert "head not loaded: its hidden layer is 0 wide, not 8" in caplog.text
    assert "mask_token not loaded: the model has no place for it" in caplog.text


@pytest.mark.parametrize("name", ["register_tokens", "norm_pre.weight", "fc_norm.weight", "extra.weight"])
def test_weights_that_would_be_left_out_are_refused_by_name(name: str, tmp_path: Path) -> None:
    torch.save({**make().state_dict(), name: torch.zeros(1)}, tmp_path / "x.pyth")
    with pytest.raises(WeightsError, match=rf"x\.pyth: the model has no place for its {name}"):
        load_model(tmp_path / "x.pyth", **HEADS)


def test_class_names_must_fit(tmp_path: Path) -> None:
    model = make()
    for names, message in ((("a", "b"), "2 names for a model of 5"), (tuple("abcda"), "'a' occurs more than once")):
        model.classes = names
        model.save_pretrained(tmp_path / "own")
        with pytest.raises(WeightsError, match=message):
            load_model(tmp_path / "own")
        assert load_model(tmp_path / "own", classes=list("vwxyz")).classes == tuple("vwxyz")


def test_several_labels_survive_the_released_format(tmp_path: Path) -> None:
    model = make()
    model.multi_label, model.preprocessing = True, {"num_frames": 4}
    model.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "x.pyth", "released")
    assert load_model(tmp_path / "x.pyth").multi_label


def test_half_precision_and_other_containers(tmp_path: Path, transformers: Any) -> None:
    model = make()
    half = {name: value.half() for name, value in model.state_dict().items()}
    torch.save({"state_dict": None, "model": half}, tmp_path / "half.pth")
    again = load_model(tmp_path / "half.pth", **HEADS)
    torch.testing.assert_close(again.state_dict()["norm.weight"], half["norm.weight"].float())
    theirs = hf_model(transformers, "divided_space_time")
    theirs.timesformer.save_pretrained(tmp_path / "body")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "config.json").write_bytes((tmp_path / "body" / "config.json").read_bytes())
    torch.save(load_file(tmp_path / "body" / "model.safetensors"), tmp_path / "bin" / "pytorch_model.bin")
    clip = torch.randn(1, 3, 4, 32, 32)
    expected = theirs.timesformer(clip.transpose(1, 2)).last_hidden_state[:, 0]
    for source in ("body", "bin", "bin/pytorch_model.bin"):
        torch.testing.assert_close(load_model(tmp_path / source)(clip), expected, atol=1e-5, rtol=0)
    (tmp_path / "bin" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"give the folder with their config.json"):
        load_model(tmp_path / "bin" / "pytorch_model.bin")


def test_odd_configurations_are_one_clear_error(tmp_path: Path) -> None:
    state = make().state_dict()
    for cfg in (
        "DATA: foo",
        "TRAIN: foo\nDATA: {NUM_FRAMES: x}",
        "DATA: {TRAIN_CROP_SIZE: [32]}",
        "DATA: {CLASS_NAMES: 3}",
    ):
        torch.save({"model_state": state, "cfg": cfg}, tmp_path / "x.pyth")
        with pytest.raises(WeightsError, match=r"x\.pyth: its configuration is not understood"):
            load_model(tmp_path / "x.pyth", **HEADS)
    make().save_pretrained(tmp_path / "own")
    about = json.loads((tmp_path / "own" / "config.json").read_text())
    for wrong in ({"mlp_ratio": None}, {"image_size": 64}, {"drop_path": "x"}):
        (tmp_path / "own" / "config.json").write_text(json.dumps({**about, "model": {**about["model"], **wrong}}))
        for overrides in ({}, {"image_size": 48}):
            with pytest.raises(WeightsError, match="own"):
                load_model(tmp_path / "own", **overrides)


@pytest.mark.parametrize("to", ["timesformer", "huggingface"])
def test_a_configuration_of_a_huge_model_costs_nothing(
    tmp_path: Path, to: Literal["timesformer", "huggingface"]
) -> None:
    make().save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "x", to)
    about = json.loads((tmp_path / "x" / "config.json").read_text())
    where = about["model"] if to == "timesformer" else about
    depth, width = ("depth", "embed_dim") if to == "timesformer" else ("num_hidden_layers", "hidden_size")
    for name, value, told in (
        (depth, 900, r"depth=900 in its config.json, 2 blocks in its weights"),
        (depth, 10**8, r"depth=100000000 "),
        (width, 4800, r"x: weight blocks.0.attn.proj.bias: \(48,\) in the file, \(4800,\) in the model"),
        (width, 48 * 10**6, r"embed_dim=48000000 must be a whole number from 1 up to 65536"),
        (width, 48 * 10**11, r"embed_dim=4800000000000 must be a whole number"),
        ("num_frames", 10**4, r"x: weight time_embed"),
        ("num_frames", 10**9, r"num_frames=1000000000 must be a whole number from 1 up to 10000"),
        ("num_frames", True, r"num_frames=True must be a whole number"),
    ):
        was = where[name]
        where[name] = value
        (tmp_path / "x" / "config.json").write_text(json.dumps(about))
        with pytest.raises(WeightsError, match=told):
            load_model(tmp_path / "x")
        where[name] = was


def test_names_of_classes_are_text(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "own")
    about = json.loads((tmp_path / "own" / "config.json").read_text())
    about["classes"] = ["a", "b", "c", "d", {"e": 1}]
    (tmp_path / "own" / "config.json").write_text(json.dumps(about))
    with pytest.raises(WeightsError, match=r"own: the class name {'e': 1} is no text"):
        load_model(tmp_path / "own")


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "own")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    with pytest.raises(WeightsError, match="videos: there is something else; name a new folder"):
        convert(tmp_path / "own", tmp_path / "videos", "huggingface")
    for _ in range(2):
        convert(tmp_path / "own", tmp_path / "hf", "huggingface")
    load_model(tmp_path / "hf")
