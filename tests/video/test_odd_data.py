"""Lists and folders as people have them: each is read as it is meant, or refused with the reason."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from timesformer.evaluation.bulk import find_inputs
from timesformer.video.datasets import read_videos, splits, write_list
from timesformer.video.items import DataError, fault_of
from timesformer.video.lists import read_list

NFC, NFD = (unicodedata.normalize(form, "plié") for form in ("NFC", "NFD"))


@dataclass(frozen=True)
class Case:
    """Files (text, or None for an empty one), and what they are read as: a refusal's words, or labels by video."""

    files: dict[str, str | None]
    labels: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    refused: str = ""
    said: tuple[str, ...] = ()
    split: str | None = None
    splits: tuple[str, ...] | None = None
    classes: tuple[str, ...] = ()
    model: tuple[str, ...] | None = None
    data: str = ""


def listed(text: str, **expected: object) -> Case:
    return Case({"list.csv": text}, data="list.csv", **expected)  # type: ignore[arg-type]


def folders(*videos: str, **expected: object) -> Case:
    return Case(dict.fromkeys(videos), **expected)  # type: ignore[arg-type]


AB = {"a.mp4": "run", "b.mp4": "jump"}
TWO = "a.mp4,run\nb.mp4,jump\n"
TRAIN = ("x/run/a.mp4", "x/jump/b.mp4")


def split_case(train: str, other: str, other_split: str) -> Case:
    files = [f"{train}/run/a.mp4", f"{train}/jump/b.mp4", f"{other}/run/c.mp4", f"{other}/jump/d.mp4"]
    labels: dict[str, str | tuple[str, ...]] = {files[0]: "run", files[1]: "jump"}
    return Case(dict.fromkeys(files), labels, split="train", splits=("train", other_split), classes=("jump", "run"))


def header_case(header: str, separator: str = ",") -> Case:
    return listed(f"{header}\na.mp4{separator}run\nb.mp4{separator}jump\n", labels=AB, classes=("jump", "run"))


CASES = {
    # folders of splits
    "split_validation": split_case("train", "validation", "val"),
    "split_valid": split_case("train", "valid", "val"),
    "split_Train_Val": split_case("Train", "Val", "val"),
    "split_training_testing": split_case("training", "testing", "test"),
    "split_TRAIN_TEST": split_case("TRAIN", "TEST", "test"),
    "split_dev": split_case("train", "dev", "val"),
    "split_eval": split_case("train", "eval", "test"),
    "split_twice": folders(
        "train/run/a.mp4", "val/run/b.mp4", "validation/run/c.mp4", refused="val.*validation.*keep one"
    ),
    "split_and_annotations": folders(
        "train/run/a.mp4",
        "train/jump/b.mp4",
        "test/run/c.mp4",
        "annotations/x.json",
        "__MACOSX/train/run/a.mp4",
        labels={"train/run/a.mp4": "run", "train/jump/b.mp4": "jump"},
        split="train",
        splits=("train", "test"),
        said=("annotations",),
        classes=("jump", "run"),
    ),
    "split_and_class": folders("train/run/a.mp4", "test/run/b.mp4", "bus/c.mp4", refused="train.*bus.*(move|rename)"),
    "split_and_extras": folders("train/run/a.mp4", "extras/run/b.mp4", refused="train.*extras.*(move|rename)"),
    "train_is_a_class": folders(
        "train/a.mp4", "bus/b.mp4", labels={"train/a.mp4": "train", "bus/b.mp4": "bus"}, splits=(), said=("'train'",)
    ),
    "split_without_classes": folders("train/a.mp4", "test/b.mp4", refused="train.*no class folders"),
    "lists_by_other_names": Case(
        {"Training.csv": TWO, "validation.txt": "c.mp4 run\n"},
        labels={"c.mp4": "run"},
        split="val",
        splits=("train", "val"),
        classes=("jump", "run"),
    ),
    "two_lists_of_a_split": Case(
        {"train.csv": TWO, "training.csv": TWO}, refused=r"train\.csv and training\.csv; keep one"
    ),
    "list_of_another_name": Case({"labels.csv": TWO, "a.mp4": None}, refused=r"names no videos.*labels\.csv"),
    # class folders
    "wrapper": folders(
        "UCF101/run/a.mp4",
        "UCF101/jump/b.mp4",
        labels={"UCF101/run/a.mp4": "run", "UCF101/jump/b.mp4": "jump"},
        said=("UCF101",),
        classes=("jump", "run"),
    ),
    "wrapper_of_splits": folders(
        "UCF101/train/run/a.mp4",
        "UCF101/train/jump/b.mp4",
        "UCF101/test/run/c.mp4",
        split="test",
        labels={"UCF101/test/run/c.mp4": "run"},
        splits=("train", "test"),
        said=("UCF101",),
        classes=("jump", "run"),
    ),
    "one_class": folders("run/a.mp4", labels={"run/a.mp4": "run"}, said=("one class",)),
    "one_class_of_frames": folders(
        "run/clip1/1.jpg", "run/clip2/1.jpg", labels={"run/clip1": "run", "run/clip2": "run"}, said=("one class",)
    ),
    "class_without_videos": folders(
        "run/a.mp4",
        "jump/b.mp4",
        "wave/c.h264",
        "bend/.keep",
        said=("wave", r"\.h264", "bend"),
        labels={"run/a.mp4": "run", "jump/b.mp4": "jump"},
        classes=("jump", "run"),
    ),
    "junk": folders(
        "run/a.mp4",
        "run/._a.mp4",
        "run/@eaDir/a.mp4/SYNOVIDEO.jpg",
        "jump/b.mp4",
        "__MACOSX/run/._a.mp4",
        "@eaDir/x/SYNOVIDEO.jpg",
        "lost+found/x",
        labels={"run/a.mp4": "run", "jump/b.mp4": "jump"},
        classes=("jump", "run"),
    ),
    "decomposed_folder": folders(
        f"{NFD}/a.mp4", "run/b.mp4", labels={f"{NFD}/a.mp4": NFC, "run/b.mp4": "run"}, classes=(NFC, "run")
    ),
    "classes_txt_decomposed": Case(
        {"classes.txt": f"{NFD}\nrun\n", f"{NFC}/a.mp4": None, "run/b.mp4": None},
        labels={f"{NFC}/a.mp4": NFC, "run/b.mp4": "run"},
        classes=(NFC, "run"),
    ),
    # headers and columns
    **{
        f"header_{header}": header_case(header)
        for header in (
            "path,label",
            "video_path,label",
            "filename,class",
            "file_path,label",
            "filepath,target",
            "video_id,label",
            "clip_name,tag",
            "name,category",
            "path,class_name",
            '"path","label"',
            "video,action",
            "Video Path,Label",
            "path,labels",
            "video,label_id",
            "# path,label",
            "video_id,action_id",
            "video_name,tag",
        )
    },
    "header_tab": header_case("path\tlabel", "\t"),
    "header_semicolon": header_case("path;label", ";"),
    "header_pipe": header_case("path|label", "|"),
    "header_blank": header_case("Path Label", " "),
    "header_unknown": listed(
        "media,emotion\na.mp4,run\nb.mp4,jump\n", refused=r"list\.csv:1.*media.*emotion.*path.*label"
    ),
    "label_first": listed("label,path\nrun,a.mp4\njump,b.mp4\n", labels=AB),
    "three_columns": listed(
        "path,label,split\na.mp4,run,train\nb.mp4,jump,train\nc.mp4,jump,validation\n",
        labels=AB,
        split="train",
        splits=("train", "val"),
        said=("split",),
    ),
    "bad_split": listed("path,label,split\na.mp4,run,train\nb.mp4,jump,foo\n", refused=r"list\.csv:3.*'foo'.*train"),
    "split_without_header": listed("a.mp4,run,train\nb.mp4,jump,test\n", refused="split.*header"),
    "pandas_index": listed(",path,label\n0,a.mp4,run\n1,b.mp4,jump\n", labels=AB, said=("label",)),
    "pandas_index_without_header": listed(
        "0,a.mp4,run\n1,b.mp4,jump\n2,c.mp4,run\n", labels=AB | {"c.mp4": "run"}, said=("number",)
    ),
    "unknown_columns": listed(
        "path,label,duration,scene_type\na.mp4,run,3.5,in\nb.mp4,jump,2,out\n",
        labels=AB,
        said=("duration", "scene_type"),
        classes=("jump", "run"),
    ),
    "name_and_number": listed("video_path,label,label_id\na.mp4,run,0\nb.mp4,jump,1\n", labels=AB, said=("label_id",)),
    "name_and_path": listed("clip_name,clip_path,label\na,a.mp4,run\nb,b.mp4,jump\n", labels=AB, said=("clip_name",)),
    "two_label_columns": listed("path,class,action\na.mp4,run,x\nb.mp4,jump,y\n", refused="class.*action"),
    "spans": listed("path,start,end,label\na.mp4,1,2,run\na.mp4,3,4,jump\n", refused=r"list\.csv:1.*start.*end.*span"),
    "span_frames": listed("video,label,start_frame\na.mp4,run,1\n", refused="start_frame.*span"),
    "row_too_long": listed("label,path,x\nrun,a.mp4,1\njump,b,c.mp4,2\n", refused=r"list\.csv:3.*4.*3"),
    "slowfast_frames": listed(
        'original_vido_id video_id frame_id path labels\n1 0 0 1/1_1.jpg ""\n', refused="frame_id.*frame"
    ),
    # labels
    "empty": listed('a.mp4,run\nb.mp4,""\n', refused=r"list\.csv:2.*no label"),
    "empty_quoted": listed('"a.mp4","run"\n"b.mp4",""\n', refused=r"list\.csv:2.*no label"),
    "blank": listed('a.mp4,run\nb.mp4," "\n', refused=r"list\.csv:2.*no label"),
    "empty_tab": listed('a.mp4\trun\nb.mp4\t""\n', refused=r"list\.csv:2.*no label"),
    **{
        f"missing_{word}": listed(f"a.mp4,run\nb.mp4,{word}\n", refused=r"list\.csv:2.*no label")
        for word in ("nan", "NaN", "None", "null")
    },
    "empty_cell": listed("label,path\nrun,a.mp4\n,b.mp4\n", refused=r"list\.csv:3.*no label"),
    "class_called_none": Case(
        {"list.csv": "a.mp4,None\nb.mp4,run\n", "classes.txt": "None\nrun\n"},
        labels={"a.mp4": "None", "b.mp4": "run"},
        data="list.csv",
    ),
    "blank_in_a_name": listed(
        "seq02_10.avi,big hug\nb.avi,hug\n",
        labels={"seq02_10.avi": "big hug", "b.avi": "hug"},
        classes=("big hug", "hug"),
    ),
    "words": listed(
        "a.mp4 run outdoor\nb.mp4 run\n", labels={"a.mp4": ("run", "outdoor"), "b.mp4": "run"}, said=("several labels",)
    ),
    "pipe": listed(
        "a.mp4,run|outdoor\nb.mp4,run\n",
        labels={"a.mp4": ("run", "outdoor"), "b.mp4": "run"},
        said=("several labels", r"'\|'"),
    ),
    "semicolon": listed(
        "a.mp4,run;outdoor\nb.mp4,run\n",
        labels={"a.mp4": ("run", "outdoor"), "b.mp4": "run"},
        said=("several labels", "';'"),
    ),
    "quoted_comma": listed(
        'a.mp4,"run,outdoor"\nb.mp4,run\n',
        labels={"a.mp4": ("run", "outdoor"), "b.mp4": "run"},
        said=("several labels", "','"),
    ),
    "quoted_indices": listed(
        'path,label_indices\na.mp4,"0,2"\nb.mp4,"1,2"\n', labels={"a.mp4": ("0", "2"), "b.mp4": ("1", "2")}
    ),
    "comma_in_a_name": listed(
        'a.mp4,"making tea, hot"\nb.mp4,run\n',
        labels={"a.mp4": "making tea, hot", "b.mp4": "run"},
        said=("','",),
        classes=("making tea, hot", "run"),
    ),
    "comma_in_classes_txt": Case(
        {"list.csv": 'a.mp4,"making tea, hot"\nb.mp4,hot\n', "classes.txt": "hot\nmaking tea, hot\n"},
        data="list.csv",
        labels={"a.mp4": "making tea, hot", "b.mp4": "hot"},
    ),
    "from_one": listed("a.mp4 1\nb.mp4 2\n", labels={"a.mp4": "1", "b.mp4": "2"}, classes=("1", "2")),
    "from_2024": listed("a.mp4 2024\nb.mp4 2025\n", labels={"a.mp4": "2024", "b.mp4": "2025"}, said=("2024 of",)),
    "floats": listed("a.mp4,0.0\nb.mp4,1.0\n", labels={"a.mp4": "0", "b.mp4": "1"}, classes=("0", "1")),
    "decimals": listed("a.mp4,0.5\nb.mp4,1.0\n", refused=r"list\.csv:1.*'0\.5'"),
    "case_differs": listed("a.mp4,Run\nb.mp4,run\n", labels={"a.mp4": "Run", "b.mp4": "run"}, said=("Run.*run",)),
    "named_twice": listed("a.mp4,run\na.mp4,jump\n", refused="", labels={"a.mp4": "jump"}, said=("more than once",)),
    "label_with_a_suffix": listed(
        "a.mp4,opening x.ts file\nb.mp4,run\n", labels={"a.mp4": "opening x.ts file", "b.mp4": "run"}
    ),
    "decomposed_label": listed(
        f"a.mp4,{NFC}\nb.mp4,{NFD}\nc.mp4,run\n",
        labels={"a.mp4": NFC, "b.mp4": NFC, "c.mp4": "run"},
        classes=(NFC, "run"),
    ),
    # classes of a model
    "numbers_are_names": listed(
        "a.mp4 2\nb.mp4 10\n", model=("1", "10", "11", "2"), labels={"a.mp4": "2", "b.mp4": "10"}, said=("names",)
    ),
    "names_or_indices": listed("a.mp4 0\nb.mp4 1\n", model=("1", "10", "2"), refused="'1'.*name.*index"),
    "indices": listed("a.mp4 0\nb.mp4 2\n", model=("x", "y", "z"), labels={"a.mp4": "x", "b.mp4": "z"}),
    "model_decomposed": listed(f"a.mp4,{NFC}\n", model=("run", NFD), labels={"a.mp4": NFD}),
    "folder_of_a_model": folders(
        f"{NFC}/a.mp4", "run/b.mp4", model=("run", NFD), labels={f"{NFC}/a.mp4": NFD, "run/b.mp4": "run"}
    ),
    "classes_without_videos": Case(
        {"list.csv": "a.mp4 0\nb.mp4 wave\n", "classes.txt": "run\njump\nwave\n"},
        data="list.csv",
        labels={"a.mp4": "run", "b.mp4": "wave"},
        classes=("run", "jump", "wave"),
        said=("1 of 3: jump",),
    ),
    # paths
    "backslash": Case(
        {"list.csv": "run\\a.mp4,run\njump\\b.mp4,jump\n", "run/a.mp4": None, "jump/b.mp4": None},
        data="list.csv",
        labels={"run/a.mp4": "run", "jump/b.mp4": "jump"},
        said=("backslash",),
    ),
    "comment": listed("# mine\na.mp4,run\nb.mp4,jump\n", labels=AB, said=("'#'",)),
}


def lay_out(folder: Path, files: dict[str, str | None]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text or "", encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_odd_data(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    lay_out(tmp_path, case.files)
    source = tmp_path / case.data
    if case.refused:
        with pytest.raises(DataError, match=case.refused) as caught:
            read_videos(source, case.split, case.model)
        assert "\n" not in str(caught.value)
        return
    videos = read_videos(source, case.split, case.model)
    labels = {item.path.relative_to(tmp_path).as_posix(): item.labels for item in videos.items}
    expected = {path: (names,) if isinstance(names, str) else names for path, names in case.labels.items()}
    assert {path: tuple(videos.classes[label] for label in own) for path, own in labels.items()} == expected
    assert videos.multi_label == any(len(names) > 1 for names in expected.values())
    if case.classes:
        assert videos.classes == case.classes
    if case.splits is not None:
        assert splits(source) == case.splits
    for words in case.said:
        assert re.search(words, "\n".join(videos.notes)), videos.notes


def test_names_that_are_numbers_come_back_from_a_list_that_was_written(tmp_path: Path) -> None:
    lay_out(tmp_path, dict.fromkeys(f"data/{name}/{name}.mp4" for name in ("1", "10", "11", "2")))
    videos = read_videos(tmp_path / "data")
    assert videos.classes == ("1", "10", "11", "2")
    write_list(tmp_path / "held_out.csv", videos)
    again = read_videos(tmp_path / "held_out.csv", classes=videos.classes)
    assert {item.path.stem: again.classes[item.labels[0]] for item in again.items} == {
        name: name for name in ("1", "10", "11", "2")
    }


@pytest.mark.parametrize("inner", ["run", "run/deep"])
def test_a_class_folder_that_cannot_be_read_is_refused(
    inner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, {"run/deep/a.mp4": None, "jump/b.mp4": None})
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path) == str(tmp_path / inner):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=rf"{inner}: cannot be read: Permission denied"):
        read_videos(tmp_path)


def test_an_address_with_one_slash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("https:/host/a.mp4,run\nC:/b.mp4,jump\n")
    address, drive = read_list(tmp_path / "list.csv").entries
    assert "it is an address" in fault_of(address.path)
    assert fault_of(drive.path) == ""


def test_inputs_are_the_paths_of_a_list_with_columns(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("label,path,notes\nrun,a.mp4,x\n,b.mp4,y\n")
    assert find_inputs([tmp_path / "list.csv"]) == (tmp_path / "a.mp4", tmp_path / "b.mp4")
