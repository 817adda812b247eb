"""Packed videos: the same frames, labels and splits as from the folder, from anywhere; jobs that are cut off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from timesformer.cli import main
from timesformer.video.check import check_videos
from timesformer.video.datasets import hold_out, read_unlabelled, read_videos, splits, write_list
from timesformer.video.decode import VideoError, VideoReader
from timesformer.video.items import DataError, VideoItem, VideoList
from timesformer.video.pack import pack
from timesformer.video.shards import PackedVideo, find_packed
from timesformer.video.synthetic import render, write_dataset, write_video


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of videos, one of which is broken."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data") / "videos"
    for label, name in enumerate(["jump high", "01"]):
        for number in range(5):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_video(folder / name / f"{number}.mp4", render("motion", label, rng)[: 20 + number], fps=16)
    (folder / "01" / "broken.avi").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def shards(data: Path) -> Path:
    out = data.parent / "shards"
    packing = pack(data, out, shard_megabytes=0.05)
    assert (packing.videos, packing.shards) == (10, len(list(out.glob("shard-*.tar"))))
    assert packing.shards > 2
    assert [Path(bad.path).name for bad in packing.bad] == ["broken.avi"]
    return out


def frames(path: str | Path | PackedVideo) -> torch.Tensor:
    with VideoReader(path) as video:
        return video.frames(range(len(video)))


def names(videos: VideoList) -> list[str]:
    return [item.path.name for item in videos.items]


def test_labels_order_and_frames_are_those_of_the_folder(data: Path, shards: Path) -> None:
    own, packed = read_videos(data), read_videos(shards)
    assert packed.classes == own.classes == ("01", "jump high")
    assert not packed.multi_label
    good = [item for item in own.items if item.path.name != "broken.avi"]
    assert [item.labels for item in packed.items] == [item.labels for item in good]
    assert names(packed) == [item.path.name for item in good]
    for item, original in zip(packed.items, good, strict=True):
        assert torch.equal(frames(item.path), frames(original.path))
        assert torch.equal(frames(str(item.path)), frames(original.path)), "also by its name"


def test_shards_are_those_of_webdataset(data: Path, shards: Path) -> None:
    found = {}
    for file in shards.glob("*.tar"):
        with tarfile.open(file) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        found |= {key: value for key, value in members.items() if key.endswith(".mp4")}
        for name in members:
            about = json.loads(members[name[:8] + ".json"])
            assert about["split"] == ""
            assert members[name[:8] + ".mp4"] == (data / about["path"]).read_bytes()
            assert about["labels"] == [Path(about["path"]).parent.name]
    assert len(found) == 10


def test_any_video_is_read_alone(shards: Path, tmp_path: Path) -> None:
    """By its offset: all else in the shard may be gone."""
    packed = read_videos(shards).items[6].path
    assert isinstance(packed, PackedVideo)
    expected = frames(packed)
    content = bytearray(Path(packed.shard).read_bytes())
    content[: packed.offset] = bytes(packed.offset)
    content[packed.offset + packed.size :] = b""
    other = tmp_path / "shard.tar"
    other.write_bytes(content)
    moved = PackedVideo(str(other), packed.offset, packed.size, packed.path, packed.suffix)
    assert torch.equal(frames(moved), expected)
    other.write_bytes(content[: packed.offset + packed.size // 3])
    with pytest.raises(VideoError, match=r"shard\.tar/jump high/1\.mp4: "):
        frames(moved)
    other.unlink()
    with pytest.raises(VideoError, match=r"shard\.tar/jump high/1\.mp4: No such file"):
        frames(moved)


@pytest.mark.parametrize("system", ["memory", "file"])
def test_shards_elsewhere(shards: Path, tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "memory://bucket/shards" if system == "memory" else f"file://{tmp_path}/shards"
    files, _ = fsspec.url_to_fs(address)
    files.put(str(shards) + "/", address + "/", recursive=True)
    here, there = read_videos(shards), read_videos(address)
    assert there.source == address
    for item, other in zip(here.items, there.items, strict=True):
        assert str(other.path) == str(item.path).replace(str(shards), address)
        assert torch.equal(frames(item.path), frames(other.path))
    assert torch.equal(frames(str(there.items[3].path)), frames(here.items[3].path))
    held = hold_out(there, 0.4, 0)[1]
    write_list(tmp_path / "held_out.csv", held)
    monkeypatch.setenv("TIMESFORMER_LISTED_ADDRESS", address)
    assert read_videos(tmp_path / "held_out.csv", classes=there.classes).items == held.items


def test_addresses_without_shards() -> None:
    with pytest.raises(OSError, match=r"memory://nothing: holds no shards\.json"):
        read_videos("memory://nothing")
    with pytest.raises(OSError, match="nosuch://bucket"):
        read_videos("nosuch://bucket")


def test_lists_of_packed_videos(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = read_videos(shards)
    write_list(tmp_path / "held_out.csv", videos)
    assert read_videos(tmp_path / "held_out.csv", classes=videos.classes).items == videos.items
    report = check_videos(tmp_path / "held_out.csv", workers=1)
    assert (report.videos, report.readable) == (10, 10)
    assert check_videos(shards, workers=1).videos == check_videos(shards, workers=1).readable > 0
    shard = json.loads((shards / "shards.json").read_text())["videos"][0]["shard"]  # whichever was packed first
    for other in ("new", "newer"):  # elsewhere, and then written anew, by the same name
        (tmp_path / "shards").mkdir(exist_ok=True)
        (tmp_path / "shards" / shard).touch()
        index = json.loads((shards / "shards.json").read_text())
        index["videos"][0]["path"] = f"{other}.mp4"
        (tmp_path / "shards" / "shards.json").write_text(json.dumps(index))
        monkeypatch.chdir(tmp_path)
        assert find_packed(f"shards/{shard}/{other}.mp4") is not None
        assert find_packed(f"shards/{shard}/01/0.mp4") is None
    monkeypatch.chdir(shards.parent)
    relative = find_packed(f"shards/{shard}/01/0.mp4")
    assert relative is not None
    assert str(relative) == f"shards/{shard}/01/0.mp4"
    assert relative.absolute() == videos.items[0].path
    assert find_packed("shards/shard-000000.tar/01/9.mp4") is None
    with pytest.raises(VideoError, match="no such file"):
        VideoReader("shards/shard-000000.tar/01/9.mp4")


def test_an_index_that_is_damaged(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "damaged")
    (tmp_path / "damaged" / "shards.json").write_text("{")
    with pytest.raises(VideoError, match=r"damaged.*shards\.json is no index of shards"):
        VideoReader(tmp_path / "damaged" / "shard-000000.tar" / "01" / "0.mp4")


def test_splits_and_classes_are_kept(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", "motion", train=9, val=8, test=0)
    pack(data, tmp_path / "shards")
    assert splits(tmp_path / "shards") == splits(data) == ("train", "val")
    for split in ("train", "val", "test"):
        own, packed = read_videos(data, split), read_videos(tmp_path / "shards", split)
        assert names(packed) == names(own)
        assert packed.classes == own.classes
        assert [item.labels for item in packed.items] == [item.labels for item in own.items]
    classes = (*reversed(own.classes), "more")
    mapped = read_videos(tmp_path / "shards", "val", classes=classes)
    assert [classes[item.labels[0]] for item in mapped.items] == [own.classes[item.labels[0]] for item in own.items]
    with pytest.raises(DataError, match=f"'{own.classes[3]}' is no class; allowed: {own.classes[0]}, "):
        read_videos(tmp_path / "shards", classes=own.classes[:3])


def test_several_labels_and_none(data: Path, tmp_path: Path) -> None:
    video = data / "01" / "0.mp4"
    (tmp_path / "list.csv").write_text(f'{video},"a, b",c\n{video},c\n')
    pack(tmp_path / "list.csv", tmp_path / "several")
    packed, own = read_videos(tmp_path / "several"), read_videos(tmp_path / "list.csv")
    assert packed.multi_label
    assert packed.classes == own.classes == ("a, b", "c")
    assert [item.labels for item in packed.items] == [(0, 1), (1,)]
    pack(data / "01", tmp_path / "none")
    assert [item.labels for item in read_unlabelled(tmp_path / "none").items] == [()] * 5
    with pytest.raises(DataError, match=r"has no label; it was packed without"):
        read_videos(tmp_path / "none")


def test_smaller(data: Path, tmp_path: Path) -> None:
    frame_folder = tmp_path / "data" / "run" / "frames"
    frame_folder.mkdir(parents=True)
    for number in range(3):
        shutil.copy(Path(__file__).parents[2] / "docs" / "images" / "timeline.png", frame_folder / f"{number}.png")
    shutil.copy(data / "01" / "0.mp4", tmp_path / "data" / "run" / "v.mp4")
    pack(tmp_path / "data", tmp_path / "small", short_side=32)
    originals = (data / "01" / "0.mp4", frame_folder)
    for item, original in zip(read_videos(tmp_path / "small").items, originals, strict=True):
        with VideoReader(item.path) as video, VideoReader(original, short_side=32) as own:
            assert len(video) == len(own)
            assert video.fps == pytest.approx(own.fps)
            assert video.times == pytest.approx(own.times, abs=1e-4)
            assert video.height == own.height == 32
            assert video.width == own.width - own.width % 2
            every = range(len(own))
            if video.width == own.width:
                assert (video.frames(every).float() - own.frames(every).float()).abs().mean() < 8
    packing = pack(tmp_path / "data", tmp_path / "whole")
    assert "folder of images, which can only be packed with a short side" in packing.bad[0].reason
    with pytest.raises(ValueError, match="holds shards of other videos or another size"):
        pack(tmp_path / "data", tmp_path / "whole", short_side=16)


def test_wrong_use(data: Path, tmp_path: Path) -> None:
    for options in ({"short_side": 1}, {"shard_megabytes": 0}, {"workers": 0}):
        with pytest.raises(ValueError, match="at least 2"):
            pack(data, tmp_path / "out", **options)  # type: ignore[arg-type]
    (tmp_path / "bad" / "run").mkdir(parents=True)
    (tmp_path / "bad" / "run" / "a.mp4").touch()
    with pytest.raises(ValueError, match="none of its 1 videos could be packed"):
        pack(tmp_path / "bad", tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="slows the decoder down by forking")
def test_a_job_that_was_killed_goes_on(data: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"""
import sys, time
from pathlib import Path
from timesformer.video import decode, pack
init = decode.VideoReader.__init__
def slow(*args, **options):
    time.sleep(0.3)
    init(*args, **options)
decode.VideoReader.__init__ = slow
pack.pack(Path({str(data)!r}), Path({str(out)!r}), shard_megabytes=0.05, workers=1)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (out / "shard-000001.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "shards.json").exists()
    finished = sorted(out.glob("shard-*.json"))
    tars = [file.with_suffix(".tar") for file in finished]
    before = [tar.stat().st_mtime_ns for tar in tars]
    (out / ".12345.shard-000002.tar").write_bytes(b"unfinished")
    packing = pack(data, out, shard_megabytes=0.05, workers=1)
    assert [tar.stat().st_mtime_ns for tar in tars] == before
    assert packing.videos == 10
    assert len(packing.bad) == 1
    assert not list(out.glob(".*"))
    found = read_videos(out)
    assert names(found) == names(read_videos(shards))
    for item, original in zip(found.items, read_videos(shards).items, strict=True):
        assert torch.equal(frames(item.path), frames(original.path))
    again = pack(data, out, shard_megabytes=0.05)
    assert again == packing


def test_training_and_testing_on_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same commands, and the same weights as from the folder."""
    data = write_dataset(tmp_path / "data", "appearance", train=16, val=8, test=8, size=40, num_frames=8)
    assert main(["pack", str(data), "--out", str(tmp_path / "shards"), "--workers", "1"]) == 0
    address = "memory://cli/shards"
    fsspec.url_to_fs(address)[0].put(str(tmp_path / "shards") + "/", address + "/", recursive=True)
    quick = [
        "model={name: timesformer_tiny, num_frames: 4, image_size: 32, patch_size: 16, embed_dim: 24, depth: 1}",
        f"data={{sampling: segments, short_side: [1, 1.25], flip: 0, workers: 1, cache: {tmp_path / 'cache'}}}",
        "epochs=1", "steps=null", "batch_size=8",
    ]  # fmt: skip
    scores = []
    for name, source in (("folder", str(data)), ("shards", str(tmp_path / "shards")), ("address", address)):
        out = tmp_path / f"run_{name}"
        assert main(["train", "--data", source, "--out", str(out), "--set", *quick]) == 0
        scores.append((out / "last" / "model.safetensors").read_bytes())
        file = tmp_path / f"{name}.json"
        assert main(["evaluate", str(out), "--data", source, "--json", str(file)]) == 0
        scores.append(json.loads(file.read_text()) | {"model": "", "data": ""})
        assert main(["embed", str(out), source, "--out", str(tmp_path / f"{name}.safetensors")]) == 0
    assert scores[:2] == scores[2:4] == scores[4:]
    assert scores[1]["videos"] == 8
    shard = read_videos(tmp_path / "shards", "test").items[0]
    assert isinstance(shard, VideoItem)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run_folder"), str(shard.path)]) == 0
    assert capsys.readouterr().out.startswith(str(shard.path))
