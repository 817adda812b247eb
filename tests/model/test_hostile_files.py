"""Small files that ask for much, or hold what no model has: each is one error that names the file, at no cost."""

from __future__ import annotations

import io
import json
import resource
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import timesformer
from tests.model.test_timesformer import make
from timesformer import models
from timesformer.model.tensors import WeightsError, read_tensors
from timesformer.model.weights import class_names, convert, load_model

HEADS = {"num_heads": 3}


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """No file of a test may get more than 1 GB beyond what the process has."""
    if not Path("/proc/self/statm").is_file():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def vit(**changes: Any) -> dict[str, Any]:
    state = {name: value for name, value in make().state_dict().items() if "temporal" not in name}
    del state["time_embed"]
    return {**state, **changes}


@pytest.mark.parametrize("load", [load_model, models.load, lambda file: timesformer.init_from_vit(make(), file)])
@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("stride 0", torch.zeros(1).expand(30_000, 30_000), "fewer elements in the file than in its shape"),
        ("overlap", torch.zeros(70_000).as_strided((35_000, 35_000), (1, 1)), "fewer elements in the file than"),
        ("meta", torch.zeros(30_000, 30_000, device="meta"), "on the device meta"),
        ("sparse", torch.zeros(3, 3).to_sparse(), "is not a plain tensor"),
        ("complex", torch.zeros(3, dtype=torch.complex64), "holds complex64, not numbers"),
    ],
)
def test_tensors_that_are_larger_than_what_is_stored(
    load: Any, name: str, tensor: torch.Tensor, message: str, tmp_path: Path
) -> None:
    torch.save({"model_state": {**make().state_dict(), "blocks.0.attn.qkv.weight": tensor}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth: weight blocks\.0\.attn\.qkv\.weight: .*" + message):
        load(tmp_path / "x.pth")


def test_one_storage_for_many_weights(tmp_path: Path) -> None:
    one = torch.zeros(300_000)
    torch.save({f"blocks.{number}.x": one for number in range(500)} | {"cls_token": one}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth: its weights need .* more than the file has"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("compressed", [True, False])
def test_archives_that_unpack_to_more_than_they_are(compressed: bool, tmp_path: Path) -> None:
    torch.save({"cls_token": torch.zeros(1000)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "x.pth", "w") as out:
        for entry in whole.infolist():
            kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            out.writestr(entry.filename, whole.read(entry), compress_type=kind)
    if compressed:
        with pytest.raises(WeightsError, match=r"x\.pth: .*its parts are compressed"):
            read_tensors(tmp_path / "x.pth")
    else:
        assert len(read_tensors(tmp_path / "x.pth")[0]["cls_token"]) == 1000

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9,)})
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as out:
        out.writestr("cls.npy", header.getvalue())
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
        out.open("cls.npy", "w", force_zip64=True) as part,
    ):
        part.write(header.getvalue())
        for _ in range(600):
            part.write(bytes(2**20))
    for name, message in (("lies.npz", "cls: the file ends before"), ("bomb.npz", "unpack to .* bytes")):
        with pytest.raises(WeightsError, match=f"{name}: .*{message}"):
            read_tensors(tmp_path / name)
    np.savez_compressed(tmp_path / "good.npz", cls=np.zeros((3, 4), np.float32))
    assert read_tensors(tmp_path / "good.npz")[0]["cls"].shape == (3, 4)


def test_files_of_older_pytorch_are_read_but_not_taken_at_their_word(tmp_path: Path) -> None:
    torch.save({"cls_token": torch.arange(1000.0)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path / "old.pth")[0]["cls_token"][-1] == 999
    content = (tmp_path / "old.pth").read_bytes()
    number, huge = b"M\xe8\x03", b"J" + struct.pack("<i", 2**31 - 1)  # 1000, as pickle's BININT2; and a BININT
    assert number in content
    (tmp_path / "huge.pth").write_bytes(content.replace(number, huge, 1))
    with pytest.raises(WeightsError, match=r"huge\.pth: .*2147483647 elements"):
        read_tensors(tmp_path / "huge.pth")


@pytest.mark.parametrize("key", ["blocks.99999999.x", "blocks.9.x", f"blocks.{'9' * 5000}.x", "blocks.٣.x"])
def test_blocks_that_are_not_there(key: str, tmp_path: Path) -> None:
    torch.save({**make().state_dict(), key: torch.zeros(1)}, tmp_path / "x.pyth")
    with pytest.raises(WeightsError, match=r"x\.pyth: "):
        load_model(tmp_path / "x.pyth", **HEADS)


ODD_MODELS: list[dict[str, Any]] = [
    {"depth": 10**8}, {"embed_dim": 48 * 10**6}, {"embed_dim": 48 * 10**11}, {"num_frames": 10**9},
    {"image_size": 10**9}, {"image_size": [8, 10**9]}, {"num_classes": 10**9}, {"num_heads": 10**9},
    {"in_channels": 10**9}, {"patch_size": 10**9}, {"mlp_ratio": 1e300}, {"mlp_ratio": 10**400},
    {"mlp_ratio": float("nan")}, {"mlp_ratio": float("inf")}, {"drop_path": float("nan")}, {"dropout": True},
    {"head_hidden_dim": 10**12}, {"depth": 2.0}, {"depth": None}, {"depth": "2"}, {"depth": [2]}, {"depth": {}},
    {"image_size": [[]]}, {"attention": {"class_path": "os.system"}}, {"unknown": 1},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_MODELS, ids=str)
def test_configurations_that_ask_for_too_much(odd: dict[str, Any], tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "hf", "huggingface")
    about = json.loads((tmp_path / "own" / "config.json").read_text())
    (tmp_path / "own" / "config.json").write_text(json.dumps({**about, "model": {**about["model"], **odd}}))
    names = {"depth": "num_hidden_layers", "embed_dim": "hidden_size", "num_heads": "num_attention_heads",
             "in_channels": "num_channels", "drop_path": "drop_path_rate", "attention": "attention_type",
             "mlp_ratio": "intermediate_size"}  # fmt: skip
    about = json.loads((tmp_path / "hf" / "config.json").read_text())
    theirs = {names.get(name, name): value for name, value in odd.items()}
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**about, **theirs}))
    for load in (load_model, models.load):
        with pytest.raises(WeightsError, match="own"):
            load(tmp_path / "own")
        if not {"dropout", "head_hidden_dim", "unknown", "num_classes"} & odd.keys():  # which it does not have
            with pytest.raises(WeightsError, match="hf"):
                load(tmp_path / "hf")


@pytest.mark.parametrize(
    "odd",
    [{"depths": [10**7, 1, 1, 1]}, {"width": 10**7}, {"expansion": 1e300}, {"expansion": float("nan")},
     {"expansion": "x"}, {"feature_dim": 10**12}, {"dropout": "x"}, {"dropout": None}, {"depths": "1111"},
     {"num_frames": 10**400}, {1: 2}],
    ids=str,
)  # fmt: skip
def test_baselines_that_ask_for_too_much(odd: dict[str, Any], tmp_path: Path) -> None:
    small = {"width": 8, "depths": (1, 1, 1, 1), "feature_dim": 8, "num_classes": 3}
    models.create("x3d_s", **small).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, "model": {**about["model"], **odd}}))
    with pytest.raises(WeightsError, match=str(tmp_path)):
        models.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"[" * 10**6, b'{"model": ' * 2000, b"\xff\xfe", b"", b"[]", b"3", b'{"model": 3}', b'{"model": []}',
     b'{"model_type": "timesformer", "id2label": [1]}', b'{"model": {}, "architecture": []}',
     b'{"model": {}, "architecture": {"class_path": "os.system"}}', b"1" * 10**4, b'{"model": {}, "classes": 3}',
     b'{"model": {}, "preprocessing": 3}'],
    ids=lambda content: content[:40],
)  # fmt: skip
def test_a_configuration_that_is_none_is_one_error(content: bytes, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    for load in (load_model, models.load):
        with pytest.raises(WeightsError, match=str(tmp_path)):
            load(tmp_path)


@pytest.mark.parametrize(
    "cfg",
    ["[" * 500, "DATA: {NUM_FRAMES: 1e300}", "DATA: {NUM_FRAMES: .inf}", "DATA: {TRAIN_CROP_SIZE: 99999999}",
     "DATA: {NUM_FRAMES: 4, TRAIN_CROP_SIZE: 32, SAMPLING_RATE: .nan}", "TIMESFORMER: {NUM_HEADS: true}",
     "DATA: {class_path: os.system}", "!!python/object/apply:os.getcwd []", "a: !!binary eA=="],
)  # fmt: skip
def test_the_cfg_of_a_checkpoint(cfg: str, tmp_path: Path) -> None:
    torch.save({"model_state": make().state_dict(), "cfg": cfg}, tmp_path / "x.pyth")
    with pytest.raises(WeightsError, match=r"x\.pyth"):
        load_model(tmp_path / "x.pyth", **HEADS)


@pytest.mark.parametrize(
    "odd",
    [{"num_frames": 10**6}, {"image_size": 10**6}, {"stride": float("inf")}, {"stride": float("nan")},
     {"num_frames": 8.5}, {"num_frames": True}, {"stride": "x"}, {"image_size": None}, {"stride": 10**12},
     {"num_frames": 5000, "image_size": 5000}, {"sampling": []}, {"colour": {}}, {"unknown": 1}],
    ids=str,
)  # fmt: skip
def test_preprocessing_that_asks_for_too_much(odd: dict[str, Any], tmp_path: Path) -> None:
    model = make()
    model.preprocessing = {"num_frames": 4, "image_size": 32, "stride": 2, **odd}
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="preprocessing=.*" + next(iter(odd))):
        timesformer.VideoClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (1, 2, 3, 4, 5), (1, 0, 48)], ids=str)
def test_weights_of_odd_shapes(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    torch.save({**make().state_dict(), name: torch.zeros(shape)}, tmp_path / "x.pth")
    torch.save(vit(**{name: torch.zeros(shape)}), tmp_path / "vit.pth")
    save_file({**make().state_dict(), name: torch.zeros(shape)}, tmp_path / "x.safetensors")
    make().save_pretrained(tmp_path / "own")
    save_file({**make().state_dict(), name: torch.zeros(shape)}, tmp_path / "own" / "model.safetensors")
    for file in ("x.pth", "x.safetensors", "own"):
        for options in ({}, {"image_size": 48}):
            with pytest.raises(WeightsError, match=file.split(".")[0]):
                load_model(tmp_path / file, **({} if file == "own" else HEADS), **options)
    with pytest.raises(WeightsError, match=r"vit\.pth"):
        timesformer.init_from_vit(make(), tmp_path / "vit.pth")


def test_names_of_classes_from_a_file_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESFORMER_MAX_DOCUMENT_BYTES", "1000")
    (tmp_path / "names.txt").write_text("a\n" * 501)
    with pytest.raises(WeightsError, match=r"names\.txt.* has more than 1000 bytes"):
        class_names(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_bytes(b"\xff\n")
    with pytest.raises(WeightsError, match=r"names\.txt"):
        class_names(tmp_path / "names.txt")


def test_a_limit_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"num_frames=20000 must be a whole number from 1 up to 10000"):
        timesformer.ModelConfig(num_frames=20_000, image_size=16)
    monkeypatch.setenv("TIMESFORMER_MAX_FRAMES", "20000")
    assert timesformer.ModelConfig(num_frames=20_000, image_size=16).num_frames == 20_000
