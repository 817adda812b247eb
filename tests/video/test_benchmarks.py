"""The paper's benchmarks, in the formats in which their makers publish them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer.video.benchmarks import (
    Benchmark,
    benchmark_entries,
    benchmark_name,
    benchmark_splits,
    read_benchmark,
)
from timesformer.video.datasets import take_fraction
from timesformer.video.items import DataError, VideoItem, VideoList


def put(folder: Path, name: str, content: object) -> None:
    """Writes a text as it is, everything else as JSON."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        put(folder, name, "")


def read(data: Path, split: str | None = None, classes: tuple[str, ...] | None = None) -> Benchmark:
    found = read_benchmark(data, split, classes)
    assert found is not None
    return found


def named(found: Benchmark, folder: Path) -> list[tuple[str, str]]:
    """Paths below the folder, and names of classes."""
    items = found.videos.items
    assert all(len(item.labels) == 1 for item in items)
    return [(str(item.path.relative_to(folder)), found.videos.classes[item.labels[0]]) for item in items]


# Kinetics

TRAIN = """label,youtube_id,time_start,time_end,split,is_cc
"yoga",---QUuC4vJs,84,94,train,0
abseiling,-3B32lodo2M,59,69,train,0
"eating, noisily",0wR5jVB-WPk,417,427,train,1
"""
VALIDATE = """label,youtube_id,time_start,time_end,split
abseiling,0347ZoDXyP0,95,105,validate
yoga,zzz-0123456,1000,1010,validate
"""
TEST = """youtube_id,time_start,time_end,split
_-abcdefghi,0,10,test
"""


def kinetics(folder: Path) -> Path:
    put(folder, "kinetics-400_train.csv", TRAIN)
    put(folder, "kinetics-400_val.csv", VALIDATE)
    put(folder, "kinetics-400_test.csv", TEST)
    touch(
        folder,
        "train/yoga/---QUuC4vJs_000084_000094.mp4",
        "train/abseiling/-3B32lodo2M_000059_000069.mp4",
        "train/eating,_noisily/0wR5jVB-WPk_000417_000427.mp4",
        "val/abseiling/0347ZoDXyP0_000095_000105.mp4",
        "val/yoga/zzz-0123456_001000_001010.mp4",
    )
    return folder


def test_kinetics(tmp_path: Path) -> None:
    kinetics(tmp_path)
    assert benchmark_name(tmp_path) == "Kinetics"
    assert benchmark_splits(tmp_path) == ("train", "val")  # the test labels are secret
    found = read(tmp_path, "train")
    assert found.videos.classes == ("abseiling", "eating, noisily", "yoga")
    assert not found.videos.multi_label
    assert found.videos.source == tmp_path
    assert found.missing == ()
    assert named(found, tmp_path) == [
        ("train/yoga/---QUuC4vJs_000084_000094.mp4", "yoga"),
        ("train/abseiling/-3B32lodo2M_000059_000069.mp4", "abseiling"),
        ("train/eating,_noisily/0wR5jVB-WPk_000417_000427.mp4", "eating, noisily"),
    ]
    validation = [
        ("val/abseiling/0347ZoDXyP0_000095_000105.mp4", "abseiling"),
        ("val/yoga/zzz-0123456_001000_001010.mp4", "yoga"),
    ]
    assert named(read(tmp_path, "val"), tmp_path) == validation
    assert named(read(tmp_path, "test"), tmp_path) == validation
    assert len(read(tmp_path).videos.items) == 5
    with pytest.raises(ValueError, match="'dev' is unknown; allowed: train, val, test or None"):
        read(tmp_path, "dev")


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("train.csv", "validate.csv"),
        ("train.csv", "val.csv"),
        ("annotations/train.csv", "annotations/val.csv"),
        ("annotations/train.txt", "annotations/val.txt"),
        ("kinetics_600_train.csv", "kinetics_600_val.csv"),
        ("annotations/kinetics600_train.csv", "annotations/kinetics600_validation.csv"),
    ],
)
def test_names_of_annotations_of_kinetics(tmp_path: Path, train: str, validation: str) -> None:
    put(tmp_path, train, "\ufeff" + TRAIN.replace("\n", "\r\n"))
    put(tmp_path, validation, VALIDATE)
    touch(tmp_path, "0347ZoDXyP0_000095_000105.mp4", "---QUuC4vJs_000084_000094.mp4")
    assert benchmark_splits(tmp_path) == ("train", "val")
    classes = ("abseiling", "eating, noisily", "yoga")
    for data in (tmp_path, tmp_path / validation, (tmp_path / validation).parent):
        found = read(data, "val")
        assert named(found, tmp_path) == [("0347ZoDXyP0_000095_000105.mp4", "abseiling")]
        assert found.videos.classes == classes
        assert found.missing == ("zzz-0123456_001000_001010",)
    assert benchmark_splits(tmp_path / train) == ()
    assert named(read(tmp_path / train, "test"), tmp_path) == [("---QUuC4vJs_000084_000094.mp4", "yoga")]


@pytest.mark.parametrize(
    "path",
    [
        "0347ZoDXyP0.mkv",
        "val/0347ZoDXyP0_000095_000105.MP4",
        "val_256/abseiling/0347ZoDXyP0.webm",
        "compress/val/rock_climbing/0347ZoDXyP0_000095_000105.avi",
    ],
)
def test_places_of_videos_of_kinetics(tmp_path: Path, path: str) -> None:
    put(tmp_path, "val.csv", VALIDATE)
    touch(tmp_path, path, "0347ZoDXyP0_000095_000105.json", "._0347ZoDXyP0_000095_000105.mp4", "0347ZoDXyP0.mp4.part")
    found = read(tmp_path)
    assert named(found, tmp_path) == [(path, "abseiling")]
    assert found.videos.classes == ("abseiling", "yoga")  # there is no training list


def test_clip_that_was_cut_comes_before_the_whole_video(tmp_path: Path) -> None:
    put(tmp_path, "val.csv", VALIDATE)
    touch(tmp_path, "a/0347ZoDXyP0.mp4", "b/0347ZoDXyP0_000095_000105.mp4", "c/0347ZoDXyP0_000095_000105.mp4")
    assert named(read(tmp_path), tmp_path) == [("b/0347ZoDXyP0_000095_000105.mp4", "abseiling")]


def test_stray_and_missing_files(tmp_path: Path) -> None:
    kinetics(tmp_path)
    touch(tmp_path, "README.md", ".DS_Store", "train.zip", "train/yoga/other.mp4", "val/notes.json", "train.json/x")
    (tmp_path / "val/yoga/zzz-0123456_001000_001010.mp4").unlink()
    (tmp_path / "loop").symlink_to(tmp_path)
    found = read(tmp_path)
    assert len(found.videos.items) == 4
    assert found.missing == ("zzz-0123456_001000_001010",)


def test_linked_folders_of_videos_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "data/val.csv", VALIDATE)
    touch(tmp_path, "disk/abseiling/0347ZoDXyP0.mp4")
    (tmp_path / "data" / "videos").symlink_to(tmp_path / "disk")
    assert named(read(tmp_path / "data"), tmp_path) == [("data/videos/abseiling/0347ZoDXyP0.mp4", "abseiling")]


def test_labels_of_kinetics_that_are_none(tmp_path: Path) -> None:
    put(kinetics(tmp_path), "kinetics-400_val.csv", VALIDATE.replace("yoga", "swimming"))
    allowed = "allowed: abseiling, eating, noisily, yoga$"
    with pytest.raises(
        DataError, match=rf"400_val\.csv: zzz-0123456_001000_001010: 'swimming' is not in .*400_train\.csv; {allowed}"
    ):
        read(tmp_path, "val")
    assert len(read(tmp_path, "train").videos.items) == 3  # the other split does no harm
    put(tmp_path / "alone", "val.csv", VALIDATE.replace("yoga", ""))
    with pytest.raises(DataError, match=r"'' is not in .*val\.csv; allowed: abseiling$"):
        read(tmp_path / "alone")


def test_labels_are_mapped_to_the_classes_of_a_model(tmp_path: Path) -> None:
    kinetics(tmp_path)
    classes = ("Yoga", "swimming", "eating,_noisily", "abseiling")
    found = read(tmp_path, "train", classes)
    assert found.videos.classes == classes
    assert [item.labels for item in found.videos.items] == [(0,), (3,), (2,)]
    with pytest.raises(
        DataError, match=r"train\.csv: 0wR5.*: 'eating, noisily' is no class; allowed: yoga, abseiling$"
    ):
        read(tmp_path, "train", ("yoga", "abseiling"))
    assert len(read(tmp_path, "val", ("yoga", "abseiling")).videos.items) == 2
    nameless = read(tmp_path, "train", ("0", "1", "2"))  # a released checkpoint has no names
    assert [item.labels for item in nameless.videos.items] == [(2,), (0,), (1,)]


def test_message_where_no_video_of_kinetics_is_there(tmp_path: Path) -> None:
    kinetics(tmp_path)
    for path in tmp_path.glob("val/*/*"):
        path.rename(path.with_name("renamed-" + path.name))
    with pytest.raises(DataError) as caught:
        read(tmp_path, "test")
    place = f"{tmp_path}/val/abseiling/0347ZoDXyP0_000095_000105"
    assert str(caught.value) == (
        f"{tmp_path}: holds none of the 2 val videos that kinetics-400_val.csv lists; put them below it, in folders "
        f"of any name, such as {place}.mp4 (or of another video format, or a folder of frames: {place}/000001.jpg); "
        f"there are videos of train"
    )


def test_lists_of_paths_are_no_annotation_of_kinetics(tmp_path: Path) -> None:
    touch(tmp_path, "abseiling/a.mp4")
    for data in (tmp_path, tmp_path / "abseiling/a.mp4", tmp_path / "nowhere"):
        assert (benchmark_name(data), benchmark_splits(data), read_benchmark(data)) == (None, None, None)
    for text in ("abseiling/a.mp4 0\n", "path,label\nabseiling/a.mp4,0\n", ""):
        put(tmp_path, "train.csv", text)
        assert read_benchmark(tmp_path) is None
        assert read_benchmark(tmp_path / "train.csv") is None
    put(tmp_path, "annotations/kinetics_train.csv", TRAIN)  # the user's own lists come first
    assert read_benchmark(tmp_path) is None
    assert benchmark_name(tmp_path / "annotations") == "Kinetics"
    put(tmp_path, "val.csv", VALIDATE)
    with pytest.raises(DataError, match=r"val\.csv is an annotation of Kinetics, train\.csv a list of `path label`"):
        read_benchmark(tmp_path)
    put(tmp_path, "mine.csv", TRAIN)  # no split in its name
    touch(tmp_path, "---QUuC4vJs.mp4")
    assert named(read(tmp_path / "mine.csv"), tmp_path) == [("---QUuC4vJs.mp4", "yoga")]


def test_releases_of_kinetics_side_by_side(tmp_path: Path) -> None:
    kinetics(tmp_path)
    put(tmp_path, "kinetics_600_train.csv", TRAIN.replace("yoga", "zorbing"))
    with pytest.raises(
        DataError, match=r"several releases: kinetics-400_train\.csv, kinetics_600_train\.csv; keep one"
    ):
        read(tmp_path)
    assert read(tmp_path / "kinetics_600_train.csv").videos.classes[-1] == "zorbing"
    assert read(tmp_path / "kinetics-400_val.csv").videos.classes[-1] == "yoga"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TRAIN.replace("84", "soon"), r"train\.csv:2: 'soon' is no number"),
        (TRAIN + "yoga\n", r"train\.csv:5: has 1 of 6 columns"),
        (TEST, r"train\.csv: of Kinetics: lists no videos with labels; allowed: a list with labels"),
        (TRAIN.split("\n")[0], r"holds none of the 0 train videos that train\.csv lists$"),
    ],
)
def test_broken_annotation_of_kinetics(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "train.csv", text)
    for data in (tmp_path, tmp_path / "train.csv"):
        with pytest.raises(DataError, match=message) as caught:
            read(data)
        assert "\n" not in str(caught.value)
    put(tmp_path, "validate.csv", VALIDATE)
    put(tmp_path, "val.csv", VALIDATE)
    with pytest.raises(DataError, match=r"holds both val\.csv and validate\.csv; keep one"):
        read(tmp_path)


# Something-Something-V2

LABELS = {"Closing something": "1", "Approaching something with your camera": "0", "Putting something, then that": "2"}
SOMETHING = {
    "labels": LABELS,
    "train": [
        {"id": "78687", "label": "closing a box", "template": "Closing [something]", "placeholders": ["a box"]},
        {
            "id": "42326",
            "label": "putting cup, then spoon",
            "template": "Putting [something], then [that]",
            "placeholders": ["cup", "spoon"],
        },
    ],
    "validation": [
        {
            "id": "74225",
            "label": "approaching door with your camera",
            "template": "Approaching [something] with your camera",
            "placeholders": ["door"],
        }
    ],
    "test": [{"id": "1420"}],
}


def something(folder: Path, prefix: str = "something-something-v2-") -> Path:
    for name, content in SOMETHING.items():
        put(folder, f"{prefix}{name}.json", content)
    return folder


@pytest.mark.parametrize("prefix", ["something-something-v2-", "", "labels/", "annotations/something-something-v2-"])
@pytest.mark.parametrize(
    "video", ["20bn-something-something-v2/{}.webm", "{}.webm", "videos/{}.mp4", "frames/{0}/{0}_000001.jpg"]
)
def test_something(tmp_path: Path, prefix: str, video: str) -> None:
    something(tmp_path, prefix)
    touch(tmp_path, *(video.format(name) for name in (78687, 42326, 74225, 1420)))
    assert benchmark_name(tmp_path) == "Something-Something-V2"
    assert benchmark_splits(tmp_path) == ("train", "val")
    found = read(tmp_path, "train")
    assert found.videos.classes == (
        "Approaching something with your camera",
        "Closing something",
        "Putting something, then that",
    )
    place = video.format if "frames" not in video else "frames/{}".format
    closing, putting = (place(78687), "Closing something"), (place(42326), "Putting something, then that")
    approaching = (place(74225), "Approaching something with your camera")
    assert named(found, tmp_path) == [closing, putting]
    assert named(read(tmp_path, "test"), tmp_path) == [approaching]
    assert named(read(tmp_path), tmp_path) == [closing, putting, approaching]
    assert found.missing == ()
    if prefix == "":
        assert named(read(tmp_path / "train.json", "val"), tmp_path) == [closing, putting]


def test_answers_to_the_test_of_something(tmp_path: Path) -> None:
    put(something(tmp_path, "labels/"), "labels/test-answers.csv", "1420;Putting something, then that\n")
    touch(tmp_path, "1420.webm")
    assert benchmark_splits(tmp_path) == ("train", "val", "test")
    assert named(read(tmp_path, "test"), tmp_path) == [("1420.webm", "Putting something, then that")]


def test_frame_lists_beside_something_are_passed_over(tmp_path: Path) -> None:
    frame_list = 'original_vido_id video_id frame_id path labels\n74225 0 0 74225/74225_000001.jpg "0"\n'
    put(something(tmp_path), "val.csv", frame_list)
    touch(tmp_path, "74225/74225_000001.jpg", "README.md", ".DS_Store", "20bn-something-something-v2-00.zip")
    found = read(tmp_path)
    assert named(found, tmp_path) == [("74225", "Approaching something with your camera")]
    assert found.missing == ("78687", "42326")
    put(tmp_path, "val.csv", "74225.webm 0\n")
    assert read_benchmark(tmp_path) is None


def test_empty_folder_is_no_video_and_one_of_videos_is_searched(tmp_path: Path) -> None:
    something(tmp_path)
    (tmp_path / "frames" / "78687").mkdir(parents=True)
    touch(tmp_path, "42326/42326.webm")
    found = read(tmp_path, "train")
    assert named(found, tmp_path) == [("42326/42326.webm", "Putting something, then that")]
    assert found.missing == ("78687",)


def test_labels_of_something_that_are_none(tmp_path: Path) -> None:
    touch(something(tmp_path), "78687.webm")
    wrong = json.dumps(SOMETHING["validation"]).replace("camera", "phone")
    put(tmp_path, "something-something-v2-validation.json", wrong)
    message = (
        r"v2-validation\.json: 74225: 'Approaching something with your phone' is not in .*v2-labels\.json; "
        r"allowed: Approaching something with your camera, Closing something, Putting"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path, "val")
    assert len(read(tmp_path, "train").videos.items) == 1


def test_message_where_no_video_of_something_is_there(tmp_path: Path) -> None:
    something(tmp_path)
    touch(tmp_path, "20bn-something-something-v2/78687.webm.zip")
    with pytest.raises(DataError, match=rf"such as {tmp_path}/20bn-something-something-v2/78687\.webm \(or of"):
        read(tmp_path, "train")
    with pytest.raises(DataError, match=r"none of the 3 train and val videos that .*-train\.json, .*-validation\.json"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", "{", r"v2-train\.json: is not JSON: "),
        ("train", {}, r"v2-train\.json: is no list of objects with id and template"),
        ("train", [{"id": "1"}], r"v2-train\.json: entry 1 is no object with id and template"),
        ("labels", {"a": "1", "b": "2"}, r"v2-labels\.json: is no object of labels and their numbers, from 0 up"),
        ("labels", ["a"], r"v2-labels\.json: is no object of labels and their numbers"),
    ],
)
def test_broken_annotation_of_something(tmp_path: Path, name: str, content: object, message: str) -> None:
    put(something(tmp_path), f"something-something-v2-{name}.json", content)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_files_of_something_that_list_no_labelled_videos(tmp_path: Path) -> None:
    something(tmp_path)
    for name in ("test", "labels"):
        with pytest.raises(
            DataError, match=rf"v2-{name}\.json: of Some.* no videos with labels; allowed: .*v2-train\.json"
        ):
            read(tmp_path / f"something-something-v2-{name}.json")
    (tmp_path / "something-something-v2-labels.json").unlink()
    put(tmp_path, "mine.csv", "a.mp4 0\n")
    assert read_benchmark(tmp_path / "mine.csv") is None
    with pytest.raises(DataError, match=r"v2-labels\.json: is not there, and tells what the labels of Something"):
        read(tmp_path)


def test_files_of_the_same_names_as_those_of_something(tmp_path: Path) -> None:
    put(tmp_path, "train.json", [])
    put(tmp_path, "validation.json", [])
    assert read_benchmark(tmp_path) is None
    put(tmp_path, "labels.json", ["run", "jump"])
    assert read_benchmark(tmp_path) is None


# Diving-48


def diving(folder: Path) -> Path:
    put(folder, "Diving48_vocab.json", [["Back", "15som", "05Twis", "FREE"], ["Forward", "Dive", "NoTwis", "PIKE"]])
    dive = {"vid_name": "_8Vy3dlHg2w_00000", "label": 1, "start_frame": 0, "end_frame": 76}
    put(folder, "Diving48_V2_train.json", [dive, dive | {"vid_name": "_8Vy3dlHg2w_00001", "label": 0}])
    put(folder, "Diving48_V2_test.json", [dive | {"vid_name": "tTrNtPiqaEA_00008"}])
    touch(folder, *(f"rgb/{name}.mp4" for name in ("_8Vy3dlHg2w_00000", "_8Vy3dlHg2w_00001", "tTrNtPiqaEA_00008")))
    return folder


def test_diving(tmp_path: Path) -> None:
    diving(tmp_path)
    touch(tmp_path, "README.md", ".DS_Store", "Diving48_rgb.tar.gz", "rgb/other.mp4")
    assert benchmark_name(tmp_path) == "Diving-48"
    assert benchmark_splits(tmp_path) == ("train", "test")
    found = read(tmp_path, "train")
    assert found.videos.classes == ("Back 15som 05Twis FREE", "Forward Dive NoTwis PIKE")
    back, forward = found.videos.classes
    assert named(found, tmp_path) == [("rgb/_8Vy3dlHg2w_00000.mp4", forward), ("rgb/_8Vy3dlHg2w_00001.mp4", back)]
    for data in (tmp_path, tmp_path / "Diving48_V2_test.json"):
        assert named(read(data, "test"), tmp_path) == [("rgb/tTrNtPiqaEA_00008.mp4", forward)]
    with pytest.raises(DataError, match="has no val split; it has train, test"):
        read(tmp_path, "val")
    (tmp_path / "rgb/_8Vy3dlHg2w_00000.mp4").unlink()
    found = read(tmp_path, "train")
    assert (len(found.videos.items), found.missing) == (1, ("_8Vy3dlHg2w_00000",))


def test_errors_of_diving(tmp_path: Path) -> None:
    diving(tmp_path)
    put(tmp_path, "Diving48_V2_test.json", [{"vid_name": "tTrNtPiqaEA_00008", "label": 48}])
    with pytest.raises(
        DataError, match=r"V2_test\.json: tTrNtPiqaEA_00008: '48' is not in .*vocab\.json; allowed: 0, 1$"
    ):
        read(tmp_path, "test")
    (tmp_path / "rgb").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    with pytest.raises(DataError, match=rf"such as {tmp_path}/rgb/_8Vy3dlHg2w_00000\.mp4 \(or"):
        read(tmp_path, "train")
    put(tmp_path, "Diving48_vocab.json", {"Back": 0})
    with pytest.raises(DataError, match=r"Diving48_vocab\.json: is no list of classes"):
        read(tmp_path, "train")
    (tmp_path / "Diving48_vocab.json").unlink()
    with pytest.raises(DataError, match=rf"{tmp_path}/Diving48_vocab\.json: is not there, and tells what the labels"):
        read(tmp_path, "train")


# HowTo100M


def howto(folder: Path, titles: str = "id\ttask_name\n7\tFold, Then Iron\n20\tMake a Kite\n5\tRare\n") -> Path:
    """Tasks 7 and 20 of 120 videos each, 5 of 99; one more video is in both 5 and 20."""
    rows = [f"{task}-{i:08d}a,Home and Garden,Laundry,{i + 1},{task}" for task in (20, 7) for i in range(119)]
    rows += [f'5-{i:08d}a,"Arts, Crafts",,{i + 1},5' for i in range(99)]
    rows += ["shared-5-20,Home,,3,5", "shared-5-20,Home,,2,20", "shared-7-20,Home,,2,20", "shared-7-20,Home,,2,7"]
    put(folder, "HowTo100M_v1.csv", "video_id,category_1,category_2,rank,task_id\n" + "\n".join(rows) + "\n")
    put(folder, "task_ids.csv", titles)
    names = [row.partition(",")[0] for row in rows]
    touch(folder, *(f"videos/{name}.{('mp4', 'webm', 'mkv')[i % 3]}" for i, name in enumerate(names)))
    return folder


@pytest.mark.parametrize(
    "titles",
    [
        "id\ttask_name\n7\tFold, Then Iron\n20\tMake a Kite\n5\tRare\n",
        "20\tMake a Kite\n7\tFold, Then Iron\n",
        "20,Make a Kite\r\n7,Fold, Then Iron\r\n",
        'task_id,title\n20,"Make a Kite"\n7,"Fold, Then Iron"\n',
    ],
)
def test_howto(tmp_path: Path, titles: str) -> None:
    howto(tmp_path, titles)
    touch(tmp_path, "README.txt", ".DS_Store", "howto100m_captions.zip", "videos/other.mp4")
    for data in (tmp_path, tmp_path / "HowTo100M_v1.csv"):
        assert benchmark_name(data) == "HowTo100M"
        assert benchmark_splits(data) == ("train", "test")
        train, test = read(data, "train"), read(data, "test")
        assert train.videos.classes == ("Fold, Then Iron", "Make a Kite")
        assert (len(train.videos.items), len(test.videos.items)) == (170, 70)
    both = train.videos.items + test.videos.items
    assert len({item.path for item in both}) == 240
    assert Counter(item.labels for item in both) == {(0,): 120, (1,): 120}
    labels = {item.path.stem: item.labels[0] for item in both}
    assert (labels["shared-5-20"], labels["shared-7-20"]) == (1, 0)  # by rank, then by id
    assert {labels[item.path.stem] for item in test.videos.items} == {0, 1}


def test_split_of_howto_is_always_the_same(tmp_path: Path) -> None:
    howto(tmp_path)
    train = read(tmp_path, "train").videos.items
    test = [item.path.stem for item in read(tmp_path, "test").videos.items]
    assert test[:6] == ["20-00000011a", "20-00000013a", "20-00000015a", "20-00000019a", "20-00000020a", "20-00000022a"]
    gone = [item.path for item in train[:3]]
    for path in gone:
        path.unlink()
    header, *rows = (tmp_path / "HowTo100M_v1.csv").read_text().splitlines()
    put(tmp_path, "HowTo100M_v1.csv", "\n".join([header, *reversed(rows)]))
    found = read(tmp_path, "train")
    assert set(found.videos.items) == set(train[3:])
    assert set(found.missing) == {path.stem for path in gone}


def test_errors_of_howto(tmp_path: Path) -> None:
    howto(tmp_path, "7\tFold, Then Iron\n")
    with pytest.raises(DataError, match=r"HowTo100M_v1\.csv: 20-\d+a: '20' is not in .*task_ids\.csv; allowed: 7$"):
        read(tmp_path, "train")
    put(tmp_path, "task_ids.csv", "7\tSame\n20\tSame\n")
    assert read(tmp_path, "train").videos.classes == ("Same (7)", "Same (20)")
    (tmp_path / "videos").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    with pytest.raises(DataError, match=rf"none of the 70 test .* such as {tmp_path}/videos/[^/]*\.mp4 \(or"):
        read(tmp_path, "test")
    text = (tmp_path / "HowTo100M_v1.csv").read_text()
    put(tmp_path, "HowTo100M_v1.csv", text.replace(",2,7\n", ",second,7\n"))
    with pytest.raises(DataError, match=r"HowTo100M_v1\.csv:\d+: 'second' is no number"):
        read(tmp_path, "train")
    put(tmp_path, "HowTo100M_v1.csv", "\n".join(text.splitlines()[:50]))
    with pytest.raises(DataError, match="none of its 1 tasks has 100 videos"):
        read(tmp_path, "train")
    put(tmp_path, "HowTo100M_v1.csv", text.replace("task_id", "task"))
    with pytest.raises(DataError, match="has no column task_id; it has video_id, category_1"):
        read(tmp_path, "train")
    (tmp_path / "task_ids.csv").unlink()
    with pytest.raises(DataError, match=r"task_ids\.csv: is not there, and tells what the labels of HowTo100M"):
        read(tmp_path, "train")


# What `check` needs


def test_entries(tmp_path: Path) -> None:
    diving(tmp_path)
    (tmp_path / "rgb").rename(tmp_path / "videos")
    (tmp_path / "videos/tTrNtPiqaEA_00008.mp4").unlink()
    parts = benchmark_entries(tmp_path)
    assert parts is not None
    assert {split: [(entry.path, entry.text) for entry in part] for split, part in parts.items()} == {
        "train": [
            (tmp_path / "videos/_8Vy3dlHg2w_00000.mp4", "Forward Dive NoTwis PIKE"),
            (tmp_path / "videos/_8Vy3dlHg2w_00001.mp4", "Back 15som 05Twis FREE"),
        ],
        "test": [(tmp_path / "rgb/tTrNtPiqaEA_00008.mp4", "Forward Dive NoTwis PIKE")],
    }
    assert benchmark_entries(tmp_path / "videos") is None


# Parts of the data


def labelled(*labels: tuple[int, ...]) -> VideoList:
    items = tuple(VideoItem(Path(f"{i}.mp4"), each) for i, each in enumerate(labels))
    count = max((label for each in labels for label in each), default=-1) + 1
    return VideoList(items, tuple(map(str, range(count))), any(len(each) > 1 for each in labels), Path("x"))


FRACTIONS = st.floats(0, 1, exclude_min=True)


@given(labels=st.lists(st.integers(0, 5), max_size=80), small=FRACTIONS, large=FRACTIONS, seed=st.integers(0, 99))
def test_fraction(labels: list[int], small: float, large: float, seed: int) -> None:
    videos = labelled(*((label,) for label in labels))
    small, large = sorted((small, large))
    part, more = (take_fraction(videos, fraction, seed) for fraction in (small, large))
    assert set(part.items) <= set(more.items) <= set(videos.items)
    assert list(part.items) == [item for item in videos.items if item in set(part.items)]  # the old order
    sizes, kept = Counter(labels), Counter(item.labels[0] for item in part.items)
    assert kept == {label: max(1, round(size * small)) for label, size in sizes.items()}
    assert all(abs(kept[label] - size * small) <= 1 for label, size in sizes.items())
    assert take_fraction(videos, small, seed) == part
    assert take_fraction(videos, 1.0, seed) == videos


@given(
    labels=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True).map(tuple), max_size=60),
    small=FRACTIONS,
    large=FRACTIONS,
    seed=st.integers(0, 99),
)
def test_fraction_of_several_labels(labels: list[tuple[int, ...]], small: float, large: float, seed: int) -> None:
    videos = labelled(*labels)
    small, large = sorted((small, large))
    part, more = (take_fraction(videos, fraction, seed) for fraction in (small, large))
    assert set(part.items) <= set(more.items)
    classes = {label for each in labels for label in each}
    assert {label for item in part.items for label in item.labels} == classes
    assert abs(len(part.items) - len(labels) * small) <= 2 * len(classes)
    assert take_fraction(videos, 1.0, seed) == videos


def test_fraction_is_random_and_checked() -> None:
    videos = labelled(*((i % 2,) for i in range(40)))
    assert len({take_fraction(videos, 0.5, seed) for seed in range(5)}) == 5
    for fraction in (0, -0.25, 1.01, float("nan")):
        with pytest.raises(ValueError, match=rf"fraction: {fraction} is outside 0 < fraction <= 1"):
            take_fraction(videos, fraction, 0)
