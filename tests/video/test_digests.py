"""Packed data checked: every shard against the digest of the index, and every video decoded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from timesformer.cli import main
from timesformer.video.check import check_videos
from timesformer.video.pack import pack
from timesformer.video.shards import read_shards
from timesformer.video.synthetic import write_dataset


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos in several shards."""
    folder = tmp_path_factory.mktemp("packed")
    write_dataset(folder / "videos", "appearance", train=6, val=0, test=2, size=32, num_frames=8)
    pack(folder / "videos", folder / "shards", shard_megabytes=0.005)
    return folder / "shards"


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def index(shards: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((shards / "shards.json").read_text())
    return content


def test_the_index_has_the_digest_of_every_shard(shards: Path) -> None:
    tars = sorted(shards.glob("*.tar"))
    assert len(tars) > 1
    assert index(shards)["sha256"] == {tar.name: hashlib.sha256(tar.read_bytes()).hexdigest() for tar in tars}


def test_good_shards(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check_videos(shards, workers=1)
    assert report.ok
    assert (report.videos, report.readable, report.notes) == (8, 8, ())
    assert {split: sum(counts.values()) for split, counts in report.classes.items()} == {"train": 6, "test": 2}
    assert main(["check", str(shards), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"]["damaged"] == []
    remote = check_videos(f"file://{shards}", workers=1)
    assert (remote.ok, remote.videos, remote.readable) == (True, 8, 8)


def test_a_bit_that_decoding_does_not_show(shards: Path) -> None:
    """The last byte of a tar file is padding: no video is affected by it."""
    tar = shards / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"\1")
    report = check_videos(shards, workers=1)
    assert [(problem.kind, problem.path) for problem in report.problems] == [("damaged", tar)]
    assert report.problems[0].reason.startswith("its bytes are not those that were packed: SHA-256 ")
    assert report.readable == 8


def test_damaged_and_missing_shards_are_named_and_the_others_checked(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shards / "shard-000000.tar").unlink()
    tar = shards / "shard-000001.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    report = check_videos(shards, workers=1)
    assert [(p.kind, p.path) for p in report.problems[:2]] == [
        ("missing", shards / "shard-000000.tar"),
        ("damaged", tar),
    ]
    found = read_shards(shards)
    assert found
    lost = {str(v) for v, _, _ in found.videos if v.shard.endswith(("000000.tar", "000001.tar"))}
    assert {str(p.path) for p in report.problems if p.kind == "unreadable"} == lost
    assert report.readable == 8 - len(lost)
    assert main(["check", str(shards), "--workers", "1"]) == 1
    assert "damaged: 1\n" in capsys.readouterr().out


def test_an_index_without_digests_says_so(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = index(shards)
    number = len(about.pop("sha256"))
    (shards / "shards.json").write_text(json.dumps(about))
    report = check_videos(shards, workers=1)
    assert report.ok
    assert report.notes == (f"not compared with digests, as the index has none for them: {number} of {number} shards",)
    assert main(["check", str(shards), "--workers", "1"]) == 0
    assert report.notes[0] in capsys.readouterr().out


def test_a_job_that_was_cut_off_between_a_shard_and_its_json(packed: Path, shards: Path) -> None:
    (shards / "shard-000001.json").rename(shards / ".shard-000001.json")
    before = (shards / "shard-000001.tar").stat().st_mtime_ns
    pack(packed.parent / "videos", shards, shard_megabytes=0.005)
    assert (shards / "shard-000001.tar").stat().st_mtime_ns == before
    assert json.loads((shards / "shards.json").read_text()) == index(packed)


def test_shards_that_pack_did_not_write_are_refused(packed: Path, shards: Path) -> None:
    foreign = shards / "shard-000777.tar"
    foreign.write_text("mine")
    with pytest.raises(ValueError, match=r"shard-000777.tar: pack did not write it"):
        pack(packed.parent / "videos", shards)
    assert foreign.read_text() == "mine"
    foreign.unlink()
    with (shards / "shard-000000.tar").open("ab") as tar:
        tar.write(b"more")
    with pytest.raises(ValueError, match=r"shard-000000.tar: has \d+ bytes, not \d+ as it was written"):
        pack(packed.parent / "videos", shards)
    (shards / "shard-000000.tar").unlink()
    with pytest.raises(ValueError, match=r"shard-000000.json: its shard is missing"):
        pack(packed.parent / "videos", shards)
