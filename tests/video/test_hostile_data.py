"""Lists, indexes of shards and classes from somebody else: what they may open and cost, and that the job goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from timesformer.evaluation.bulk import find_inputs
from timesformer.video.check import check_videos
from timesformer.video.clips import BadVideo
from timesformer.video.datasets import read_unlabelled, read_videos
from timesformer.video.decode import VideoError, VideoReader
from timesformer.video.folders import find_videos
from timesformer.video.items import DataError
from timesformer.video.lines import split_line
from timesformer.video.lists import read_list
from timesformer.video.pack import pack
from timesformer.video.shards import PackedVideo, find_packed, read_shards, without_credentials
from timesformer.video.synthetic import write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good video, and it packed."""
    folder = tmp_path_factory.mktemp("data")
    pixels = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), dtype=np.uint8)
    (folder / "videos" / "a").mkdir(parents=True)
    write_video(folder / "videos" / "a" / "good.mp4", pixels, fps=8)
    pack(folder / "videos", folder / "shards", workers=1)
    return folder


ADDRESSES = [
    "ftp://user:secret@127.0.0.1/d/s.tar/v.mp4",
    "http://127.0.0.1/s.tar/v.mp4",
    "s3://bucket/s.tar/v.mp4",
    "github://who:what@/s.tar/v.mp4",
    "hf://datasets/who/what/s.tar/v.mp4",
    "file:///etc/s.tar/v.mp4",
    "memory://bucket/s.tar/v.mp4",
    "simplecache::http://127.0.0.1/s.tar/v.mp4",
    "zip://v.mp4::http://127.0.0.1/s.tar/v.mp4",
    "https://127.0.0.1/v.mp4",
    r"\\127.0.0.1\share\v.mp4",
]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a list made somebody open an address")

    monkeypatch.setattr(fsspec, "url_to_fs", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_in_a_list_is_one_bad_video(address: str, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text(f'{folder}/videos/a/good.mp4 0\n{address} 0\n"{address}",0\n')
    videos = read_videos(file)
    assert [item.labels for item in videos.items] == [(0,)] * 3
    assert len(find_inputs([file])) == 3
    assert VideoReader(videos.items[0].path).times[0] == 0
    for item in videos.items[1:]:
        with pytest.raises(VideoError) as caught:
            VideoReader(item.path)
        assert "is an address" in str(caught.value) or "is on another machine" in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_check_goes_on(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    os.mkfifo(tmp_path / "pipe.mp4")
    long = "x" * 5000
    entries = [
        f"{folder}/videos/a/good.mp4",
        *ADDRESSES[:3],
        "https:/127.0.0.1/v.mp4",
        "/dev/zero",
        "pipe.mp4",
        f"{long}.mp4",
    ]
    file.write_text("".join(f"{entry} 0\n" for entry in [*entries, f"{long}.tar/a.mp4"]))
    report = check_videos(file, workers=1, time_limit=30)
    assert (report.videos, report.readable) == (9, 1)
    kinds = {str(problem.path).rpartition("/")[2][:20]: problem.kind for problem in report.problems}
    assert kinds.pop("v.mp4") in ("missing", "unreadable")
    assert kinds == {
        "zero": "unreadable", "pipe.mp4": "unreadable", f"{long}.mp4"[:20]: "missing", "a.mp4": "unreadable"
    }  # fmt: skip


def test_what_the_user_lets_lists_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = f"file://{folder}/shards"
    packed = [str(video) for video, _, _ in read_shards(below).videos]
    (tmp_path / "list.csv").write_text("".join(f"{name} 0\n" for name in packed))
    assert all(entry.path.fault for entry in read_list(tmp_path / "list.csv").entries)
    monkeypatch.setenv("TIMESFORMER_LISTED_ADDRESS", below)
    assert [len(VideoReader(entry.path)) for entry in read_list(tmp_path / "list.csv").entries] == [12]
    for other in (
        f"file://{folder}/shards2/s.tar/v.mp4",
        f"{below}/../x/s.tar/v.mp4",
        f"{below}/a::http://b/s.tar/v.mp4",
    ):
        (tmp_path / "list.csv").write_text(f"{other} 0\n")
        assert all(entry.path.fault for entry in read_list(tmp_path / "list.csv").entries)


def test_credentials_are_not_shown() -> None:
    assert without_credentials("ftp://me:p@ss@host/a@b.mp4: failed") == "ftp://host/a@b.mp4: failed"
    with pytest.raises(OSError, match=r"^nosuch://host/d") as caught:
        read_shards("nosuch://me:secret@host/d")
    assert "secret" not in str(caught.value)
    with pytest.raises(OSError, match="holds no") as caught:
        read_shards("memory://me:secret@host/d")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("some clip 3", ("some clip", "3")),
        ("some clip 3 -4 5", ("some clip", "3 -4 5")),
        ("clip 1  22", ("clip", "1  22")),
        ("1 2 3", ("1", "2 3")),
        ("clip  run", ("clip", "run")),
        ("clip 1 run", ("clip 1", "run")),
        ("clip", ("clip", "")),
    ],
)
def test_lines_without_suffix_or_comma(line: str, parts: tuple[str, str], tmp_path: Path) -> None:
    assert split_line(line, tmp_path)[:2] == parts


def test_long_lines_large_lists_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "list.txt"
    file.write_text("a.mp4 0\n" + "1 " * 40_000 + "x\n")
    assert [item.labels for item in read_videos(file).items] == [(0,), ()]
    first, long = read_list(file).entries
    assert first.path == tmp_path / "a.mp4"
    assert "has 80001 characters, more than 65536 (TIMESFORMER_MAX_LINE)" in long.path.fault
    file.write_text("1 " * 32_000 + "x\n")  # every word could begin the labels: no time that grows with its square
    assert len(read_list(file).entries) == 1
    file.write_text("a.mp4 999999999999\n")
    with pytest.raises(DataError, match=r"list\.txt:1: the label 999999999999 is more than 999999 .*MAX_CLASSES"):
        read_videos(file)
    file.write_text(f"a.mp4 {'9' * 5000}\n")
    assert read_videos(file).classes == ("9" * 5000,)
    (tmp_path / "classes.txt").write_text(f"{'9' * 5000} run\n")
    with pytest.raises(DataError, match="is no class"):
        read_videos(file)
    monkeypatch.setenv("TIMESFORMER_MAX_LIST_BYTES", "100")
    with pytest.raises(DataError, match=r"list\.txt: has more than 100 bytes.*TIMESFORMER_MAX_LIST_BYTES"):
        read_list(file)


def test_names_that_are_too_long_are_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    long = str(tmp_path / ("x" * 5000))
    assert find_inputs([f"{long}.mp4", f"{long}.csv", f"{long}.tar/a.mp4"]) == tuple(
        Path(name) for name in (f"{long}.mp4", f"{long}.csv", f"{long}.tar/a.mp4")
    )


# The index of shards


def damaged(folder: Path, tmp_path: Path, **changes: Any) -> Path:
    """Shards whose index has another entry beside the good one: the same but for the changes."""
    shards = tmp_path / "shards"
    shards.mkdir()
    for file in (folder / "shards").iterdir():
        (shards / file.name).write_bytes(file.read_bytes())
    index = json.loads((shards / "shards.json").read_text())
    entry = {**index["videos"][0], "path": "a/other.mp4", **changes}
    index["videos"].append({name: value for name, value in entry.items() if value is not ...})
    (shards / "shards.json").write_text(json.dumps(index))
    return shards


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shard": "../../etc/passwd"}, "shard='../../etc/passwd'"),
        ({"shard": "/etc/passwd"}, "shard='/etc/passwd'"),
        ({"shard": "../a.tar"}, "shard='../a.tar'"),
        ({"shard": "http://127.0.0.1/a.tar"}, "shard='http://127.0.0.1/a.tar'"),
        ({"shard": 7}, "shard=7"),
        ({"shard": "nowhere.tar"}, "No such file"),
        ({"offset": -1}, "offset=-1"),
        ({"offset": 10**15}, "the index says that it ends at byte"),
        ({"offset": 1.5}, "offset=1.5"),
        ({"offset": float("nan")}, "offset=nan"),
        ({"size": 10**18}, "the index says that it ends at byte"),
        ({"size": 10**30}, "size=1000"),
        ({"size": True}, "size=True"),
        ({"size": None}, "size=None"),
        ({"path": 3}, "path=3"),
        ({"path": ""}, "path=''"),
        ({"path": "a/.."}, "path='a/..'"),
        ({"path": "x" * 5000}, "path='xxx"),
        ({"suffix": "/../../../tmp/x.mp4"}, "suffix='/../"),
        ({"suffix": "mp4"}, "suffix='mp4'"),
        ({"split": "everything"}, "split='everything'"),
        ({"split": ["train"]}, "split=['train']"),
        ({"labels": "a"}, "labels='a'"),
        ({"labels": [["a"]]}, "labels=[['a']]"),
        ({"labels": ["b"]}, "the label 'b', which is no class"),
        ({"labels": ["a", "a"]}, "has 2 labels"),
        ({"size": ...}, "lacks `size`"),
    ],
)
def test_a_wrong_entry_of_an_index_is_one_bad_video(
    changes: dict[str, Any], reason: str, folder: Path, tmp_path: Path
) -> None:
    shards = damaged(folder, tmp_path, **changes)
    videos = read_videos(shards)
    assert len(videos.items) == 2
    assert len(VideoReader(videos.items[0].path)) == 12
    with pytest.raises(VideoError) as caught:
        VideoReader(videos.items[1].path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(find_inputs([shards])) == 2


def test_a_link_out_of_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    shards = damaged(folder, tmp_path, shard="link.tar")
    (tmp_path / "elsewhere").mkdir()
    (shards / "shard-000000.tar").replace(tmp_path / "elsewhere" / "real.tar")
    (shards / "link.tar").symlink_to(tmp_path / "elsewhere" / "real.tar")
    video = read_videos(shards).items[1].path
    with pytest.raises(VideoError, match=r"link\.tar is a link to a file outside its folder"):
        VideoReader(video)
    with pytest.raises(VideoError, match=r"link\.tar is a link to a file outside its folder"):
        VideoReader(PackedVideo(str(shards / "link.tar"), 512, 100, "a.mp4", ".mp4"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "is no object"),
        ("{}", "lacks classes, multi_label, videos"),
        ('{"classes": "ab", "multi_label": false, "videos": []}', "`classes` must be a list of names"),
        ('{"classes": ["a", "a"], "multi_label": false, "videos": []}', "each once"),
        ('{"classes": ["a"], "multi_label": 0, "videos": []}', "`multi_label` must be true or false"),
        ('{"classes": ["a"], "multi_label": false, "videos": {"a": 1}}', "`videos` must be a list"),
        ("[" * 100_000, "deep"),
        ("\udcff", "is no index"),
    ],
)
def test_an_index_whose_head_is_broken_is_one_error(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "shards.json").write_bytes(content.encode(errors="surrogateescape"))
    (tmp_path / "shard-000000.tar").touch()
    with pytest.raises(ValueError, match=reason) as caught:
        read_unlabelled(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: shards.json is no index of shards")
    assert "\n" not in str(caught.value)
    (tmp_path / "list.csv").write_text("shard-000000.tar/a.mp4 0\nb.mp4 0\n")
    assert [bool(getattr(entry.path, "fault", "")) for entry in read_list(tmp_path / "list.csv").entries] == [
        True,
        False,
    ]


def test_an_index_of_other_splits_hides_no_video(folder: Path, tmp_path: Path) -> None:
    """The good one has no split; one that has may not make it disappear, nor the other way round."""
    videos = read_videos(damaged(folder, tmp_path, split="train"))
    assert len(videos.items) == 2


def test_an_entry_beyond_its_shard_elsewhere(folder: Path) -> None:
    shard = next(iter(read_shards(folder / "shards").videos))[0]
    wrong = PackedVideo(f"file://{shard.shard}", shard.offset, 10**7, "a.mp4", ".mp4")
    with pytest.raises(VideoError, match="the index gives it 10000000 bytes, of which the shard has"):
        VideoReader(wrong)
    assert find_packed(str(shard)) == shard


# Folders


def test_folders_that_lead_in_circles(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(100):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "a.mp4").touch()
    (deep / "back").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "d")
    assert len(list(find_videos(tmp_path))) == 1


def test_bad_videos_show_no_credentials() -> None:
    bad = BadVideo.lost(PackedVideo("s3://me:secret@bucket/s.tar", 0, 1, "a.mp4", ".mp4"), "takes more than 2 s")
    assert bad == BadVideo("s3://bucket/s.tar/a.mp4", "s3://bucket/s.tar/a.mp4: takes more than 2 s")
