"""Lists and folders of labelled videos, in the many ways people write them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer.video.datasets import hold_out, read_unlabelled, read_videos, splits
from timesformer.video.folders import find_videos
from timesformer.video.items import DataError, VideoItem, VideoList


def write(folder: Path, **files: str) -> Path:
    """Writes `train="..."` to train.csv, `classes="..."` to classes.txt."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in files.items():
        (folder / f"{name}.{'txt' if name == 'classes' else 'csv'}").write_text(text)
    return folder


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def named(videos: VideoList) -> list[tuple[str, tuple[str, ...]]]:
    folder = videos.source.parent if videos.source.is_file() else videos.source
    return [
        (str(item.path.relative_to(folder)), tuple(videos.classes[label] for label in item.labels))
        for item in videos.items
    ]


@pytest.mark.parametrize(
    ("line", "path", "labels"),
    [
        ("v.mp4 1", "v.mp4", ("run",)),
        ("v.mp4,1", "v.mp4", ("run",)),
        ("v.mp4, 1", "v.mp4", ("run",)),
        ("v.mp4\t1", "v.mp4", ("run",)),
        ("v.mp4;1", "v.mp4", ("run",)),
        ("  v.mp4   1  ", "v.mp4", ("run",)),
        ("v.mp4 1,", "v.mp4", ("run",)),
        ("v.mp4 01", "v.mp4", ("run",)),
        ("v.mp4 run", "v.mp4", ("run",)),
        ("v.mp4 0 2", "v.mp4", ("bend", "high jump")),
        ("v.mp4,0,2", "v.mp4", ("bend", "high jump")),
        ("v.mp4 2 0 2", "v.mp4", ("high jump", "bend")),
        ("v.mp4 high jump", "v.mp4", ("high jump",)),
        ("v.mp4,high jump,run", "v.mp4", ("high jump", "run")),
        ('v.mp4 "high jump" run', "v.mp4", ("high jump", "run")),
        ('"v.mp4","high jump"', "v.mp4", ("high jump",)),
        ('"a ""b"", c.mp4",1', 'a "b", c.mp4', ("run",)),
        ("my holiday, day 2.mp4 1", "my holiday, day 2.mp4", ("run",)),
        ("my video.mp4,1", "my video.mp4", ("run",)),
        ("a.mp4 copy.MP4 1", "a.mp4 copy.MP4", ("run",)),
        ("sub folder/v.webm 1", "sub folder/v.webm", ("run",)),
        ("frames/clip_07 1", "frames/clip_07", ("run",)),
        ("frames/clip 07,1", "frames/clip 07", ("run",)),
        ("there/clip 2 1", "there/clip 2", ("run",)),
        ("there/clip 2,run", "there/clip 2", ("run",)),
        ("frames/v.tar 0 1", "frames/v.tar", ("bend", "run")),
    ],
)
def test_line(tmp_path: Path, line: str, path: str, labels: tuple[str, ...]) -> None:
    (tmp_path / "there" / "clip 2").mkdir(parents=True)
    write(tmp_path, mine=line, classes="bend\nrun\nhigh jump\n")
    videos = read_videos(tmp_path / "mine.csv")
    assert named(videos) == [(path, labels)]
    assert videos.multi_label == (len(labels) > 1)


@given(
    path=st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1).map(lambda s: s + "x.mp4"),
    labels=st.lists(st.sampled_from(["a", "b c", "d, e", 'f "g"']), min_size=1, unique=True),
)
def test_csv_of_any_names(tmp_path_factory: pytest.TempPathFactory, path: str, labels: list[str]) -> None:
    folder = write(tmp_path_factory.mktemp("any"), classes='a\nb c\nd, e\nf "g"\n')
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerow([path, *labels])
    videos = read_videos(folder / "list.csv")
    assert [item.path for item in videos.items] == [folder / path]
    assert [videos.classes[label] for label in videos.items[0].labels] == labels


def test_windows_text_with_byte_order_mark_blank_lines_and_a_header(tmp_path: Path) -> None:
    text = "\ufeffpath,label\r\na.mp4,0\r\n\r\n  \r\nb.mp4,1\r\n"
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8"))
    assert named(read_videos(tmp_path / "list.csv")) == [("a.mp4", ("0",)), ("b.mp4", ("1",))]


def test_absolute_paths_stay(tmp_path: Path) -> None:
    write(tmp_path, train="/videos/a.mp4 0\n")
    assert read_videos(tmp_path).items == (VideoItem(Path("/videos/a.mp4"), (0,)),)


def test_names_without_classes_file_agree_over_the_splits(tmp_path: Path) -> None:
    write(tmp_path, train="a.mp4 run\nb.mp4 bend\n", test="c.mp4 jump run\n")
    for videos in (read_videos(tmp_path, "train"), read_videos(tmp_path / "train.csv")):
        assert named(videos) == [("a.mp4", ("run",)), ("b.mp4", ("bend",))]
        assert videos.classes == ("bend", "jump", "run")
        assert videos.multi_label
    assert splits(tmp_path) == ("train", "test")
    assert splits(tmp_path / "train.csv") == ()
    write(tmp_path, other="d.mp4 swim\n")
    assert read_videos(tmp_path / "other.csv").classes == ("swim",)


def test_integers_without_classes_file(tmp_path: Path) -> None:
    write(tmp_path, train="a.mp4 2\n", test="b.mp4 3\n")
    assert read_videos(tmp_path, "train").classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("text", ["run\nbend\n", "0 run\n1 bend", "1,run\n2,bend\n", "2\tbend\n\n1\trun\n"])
def test_classes_file(tmp_path: Path, text: str) -> None:
    write(tmp_path, train="a.mp4 1\nb.mp4 bend\n", classes=text)
    videos = read_videos(tmp_path)
    assert videos.classes == ("run", "bend")
    counts_from_one = text[0] in "12"
    assert [item.labels for item in videos.items] == [(0 if counts_from_one else 1,), (1,)]


def test_labels_that_are_all_names_of_a_classes_file_of_numbers_are_names(tmp_path: Path) -> None:
    write(tmp_path, train="a.mp4 1\nb.mp4 7\n", classes="1\n0\n7\n")
    videos = read_videos(tmp_path)
    assert videos.classes == ("1", "0", "7")
    assert named(videos) == [("a.mp4", ("1",)), ("b.mp4", ("7",))]
    write(tmp_path, train="a.mp4 1\nb.mp4 2\n")  # 2 is an index, or nothing
    with pytest.raises(DataError, match=r"train\.csv:1: '1' is the name of a class and the index of '0'"):
        read_videos(tmp_path)


def test_labels_are_mapped_to_the_classes_of_a_model(tmp_path: Path) -> None:
    model = ("run", "jump", "bend")
    write(tmp_path, train="a.mp4 0\nb.mp4 1\n")
    assert named(read_videos(tmp_path, classes=model)) == [("a.mp4", ("run",)), ("b.mp4", ("jump",))]
    write(tmp_path, classes="bend\nrun\nswim\n")
    videos = read_videos(tmp_path, classes=model)
    assert videos.classes == model
    assert [item.labels for item in videos.items] == [(2,), (0,)]
    write(tmp_path, train="a.mp4 0\nb.mp4 2\n")
    with pytest.raises(DataError, match=r"train\.csv:2: '2': 'swim' is no class; allowed: bend, run, 0, 1$"):
        read_videos(tmp_path, classes=model)


def test_splits_of_lists(tmp_path: Path) -> None:
    write(tmp_path, train="a.mp4 0\n", val="b.mp4 0\n")
    touch(tmp_path, "ignored/c.mp4")  # lists take precedence
    assert [path for path, _ in named(read_videos(tmp_path))] == ["a.mp4", "b.mp4"]
    assert named(read_videos(tmp_path, "test")) == [("b.mp4", ("0",))]
    write(tmp_path, test="c.mp4 0\n")
    assert named(read_videos(tmp_path, "test")) == [("c.mp4", ("0",))]
    (tmp_path / "val.csv").unlink()
    with pytest.raises(DataError, match="has no val split; it has train, test"):
        read_videos(tmp_path, "val")
    with pytest.raises(ValueError, match="'dev' is unknown; allowed: train, val, test"):
        read_videos(tmp_path, "dev")


def test_what_needs_no_labels_prefers_lists_to_a_stray_video(tmp_path: Path) -> None:
    write(touch(tmp_path / "listed", "stray.mp4", "a/x.mp4"), train="a/x.mp4 run")
    assert named(read_unlabelled(tmp_path / "listed", "train")) == [("a/x.mp4", ("run",))]
    touch(tmp_path / "plain", "b.mp4", "a.mp4", "notes.txt")
    assert named(read_unlabelled(tmp_path / "plain", "train")) == [("a.mp4", ()), ("b.mp4", ())]


def test_unlabelled_lines_of_another_split_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path, train="a.mp4 0\n", test="b.mp4\n")
    assert named(read_videos(tmp_path, "train")) == [("a.mp4", ("0",))]
    with pytest.raises(DataError, match=r"test\.csv:1: 'b\.mp4' has no label; allowed: `path label`"):
        read_videos(tmp_path, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 0\nb.mp4 3\n", r"list\.csv:2: '3': '3' is no class; allowed: bend, run, jump, 0, 1, 2$"),
        ("a.mp4 -1\n", r"list\.csv:1: '-1': '-1' is no class"),
        ("a.mp4 0\n\nb.mp4 0 rnu\n", r"list\.csv:3: '0 rnu': 'rnu' is no class; allowed: bend, run"),
        ("a.mp4 0\nb.mp4\n", r"list\.csv:2: 'b\.mp4' has no label"),
        (",3\n", r"list\.csv:1: '3' has no label"),
        ("\n", r"list\.csv: names no videos; allowed: a list of `path label` lines"),
        ("a\0b", r"list\.csv: is not a list, which is a text file in UTF-8"),
    ],
)
def test_errors_of_lists(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, list=text, classes="bend\nrun\njump\n")
    with pytest.raises(DataError, match=message) as caught:
        read_videos(tmp_path / "list.csv")
    assert "\n" not in str(caught.value)


def test_more_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_videos(tmp_path / "nowhere")
    with pytest.raises(DataError, match="names no videos"):
        read_videos(tmp_path)
    write(tmp_path, list="a.mp4 0\nb.mp4 run\n")
    with pytest.raises(DataError, match=r"list\.csv:2: 'run': 'run' is a name where others are integers"):
        read_videos(tmp_path / "list.csv")
    write(tmp_path, train="a.mp4 0\n", classes="run\nrun\n")
    with pytest.raises(DataError, match=r"classes\.txt: 'run' occurs 2 times; allowed: each name once"):
        read_videos(tmp_path)
    (tmp_path / "train.txt").touch()
    with pytest.raises(DataError, match=r"holds both train\.csv and train\.txt; keep one"):
        read_videos(tmp_path)
    (tmp_path / "video.mp4").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"video\.mp4: is not a list"):
        read_videos(tmp_path / "video.mp4")


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "run/b.mp4", "run/a.AVI", "run/deep/er/c.mkv", "run/notes.txt", "run/.hidden.mp4")
    touch(
        tmp_path,
        "10/1.jpg",
        "10/clip/1.jpg",
        "10/clip/2.jpg",
        "10/v.mp4",
        ".git/x.mp4",
        "stray.mp4",
        "docs/x.txt",
    )
    touch(tmp_path, "run/thumbs/d.mp4", "run/thumbs/d.jpg")
    expected = ["10/clip", "10/v.mp4", "run/a.AVI", "run/b.mp4", "run/deep/er/c.mkv", "run/thumbs/d.mp4"]
    for split in (None, "train", "test"):
        videos = read_videos(tmp_path, split)
        assert sorted(named(videos)) == [(path, (path.split("/")[0],)) for path in expected]
        assert videos.classes == ("10", "run")
        assert not videos.multi_label
    assert splits(tmp_path) == ()
    assert read_videos(tmp_path, classes=("x", "run", "10")).items[0].labels == (2,)
    with pytest.raises(DataError, match=r"10/v\.mp4: '10': '10' is no class; allowed: x, run"):
        read_videos(tmp_path, classes=("x", "run"))


def test_split_folders_of_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/bend/b.mp4", "val/swim/c.mp4")
    assert splits(tmp_path) == ("train", "val")
    videos = read_videos(tmp_path, "train")
    assert named(videos) == [("train/bend/b.mp4", ("bend",)), ("train/run/a.mp4", ("run",))]
    assert videos.classes == ("bend", "run", "swim")
    assert len(read_videos(tmp_path).items) == 3
    assert named(read_videos(tmp_path, "test")) == [("val/swim/c.mp4", ("swim",))]
    touch(tmp_path, "bus/d.mp4")  # is `train` a vehicle?
    with pytest.raises(DataError, match=r"holds train, val, which are splits by their names, beside .*: bus; move"):
        read_videos(tmp_path)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/v.mp4", "data/run/w.mp4")
    (tmp_path / "data" / "run" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "run" / "loop").symlink_to(tmp_path / "data")
    found = [str(path.relative_to(tmp_path)) for path in find_videos(tmp_path / "data")]
    assert found == ["data/run/w.mp4", "data/run/link/v.mp4"]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 100),
)
def test_hold_out(sizes: list[int], fraction: float, seed: int) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    items = tuple(VideoItem(Path(f"{i}.mp4"), (label,)) for i, label in enumerate(labels))
    videos = VideoList(items, tuple(map(str, range(len(sizes)))), False, Path("x"))
    rest, held = hold_out(videos, fraction, seed)
    order = {item: at for at, item in enumerate(items)}
    assert sorted(rest.items + held.items, key=order.__getitem__) == list(items)
    assert list(held.items) == sorted(held.items, key=order.__getitem__)
    counts = Counter(item.labels[0] for item in held.items)
    for label, size in enumerate(sizes):
        assert counts[label] == (min(size - 1, max(1, round(fraction * size))) if fraction else 0)
    assert hold_out(videos, fraction, seed) == (rest, held)


def test_hold_out_draws_at_random_and_checks_its_fraction() -> None:
    items = tuple(VideoItem(Path(f"{i}.mp4"), (i % 2,)) for i in range(40))
    videos = VideoList(items, ("a", "b"), False, Path("x"))
    assert len({hold_out(videos, 0.5, seed)[1] for seed in range(5)}) == 5
    for fraction in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"{fraction} is outside"):
            hold_out(videos, fraction, 0)


def test_hold_out_of_several_labels_keeps_every_class() -> None:
    items = tuple(VideoItem(Path(f"{i}.mp4"), (i % 3, 3 + i % 4)) for i in range(24))
    rest, held = hold_out(VideoList(items, tuple("abcdefg"), True, Path("x")), 0.3, 0)
    assert {label for item in rest.items for label in item.labels} == set(range(7))
    assert 4 <= len(held.items) <= 8


@pytest.mark.parametrize(("name", "train", "test"), [("weizmann", 60, 30), ("utd_mhad_depth", 431, 430)])
def test_real_folders(shared_data: Path, name: str, train: int, test: int) -> None:
    folder = shared_data / name
    assert splits(folder) == ("train", "test")
    videos = read_videos(folder, "train")
    assert (len(videos.items), len(read_videos(folder, "test").items)) == (train, test)
    assert videos.classes == tuple((folder / "classes.txt").read_text().split())
    for item in videos.items:
        assert item.path.is_file()
        assert item.path.parent.name.endswith(videos.classes[item.labels[0]])


def test_an_unknown_class_is_answered_with_the_names_of_the_others(tmp_path: Path) -> None:
    """All of them, before their numbers."""
    names = [f"action {letter}" for letter in "abcdefghijkl"]
    (tmp_path / "classes.txt").write_text("\n".join(names))
    (tmp_path / "train.csv").write_text("a.mp4 12\n")
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError) as refused:
        read_videos(tmp_path, "train")
    assert f"allowed: {', '.join(names)}, 0, 1" in str(refused.value)
