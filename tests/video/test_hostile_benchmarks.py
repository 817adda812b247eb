"""Annotation files of benchmarks from somebody else: one clear line, and no path that leads out of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from timesformer.video.benchmarks import benchmark_entries, read_benchmark
from timesformer.video.items import DataError


def diving(folder: Path, train: Any, vocabulary: Any = (["Back", "15som", "05Twis", "FREE"],)) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "Diving48_V2_train.json").write_text(train if isinstance(train, str) else json.dumps(train))
    (folder / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    return folder


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "..", "a/../../b", "a\\..\\b", "a\0b"])
@pytest.mark.parametrize("benchmark", ["Diving-48", "Kinetics"])
def test_a_name_does_not_lead_out_of_the_folder(name: str, benchmark: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    if benchmark == "Diving-48":
        diving(folder, [{"vid_name": name, "label": 0}])
        (entry,) = benchmark_entries(folder)["train"]
        parts = 2
    else:
        folder.mkdir()
        name = name.replace("\0", "")
        rows = f'label,youtube_id,time_start,time_end,split\n"{name}",{name},0,10,train\n'
        (folder / "kinetics_train.csv").write_text(rows)
        (entry,) = benchmark_entries(folder)["train"]
        parts = 3
    assert entry.path.is_relative_to(folder)
    assert ".." not in entry.path.parts
    assert len(entry.path.relative_to(folder).parts) == parts
    assert "\0" not in str(entry.path)


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ([{"vid_name": None, "label": 0}], "entry 1: vid_name=None"),
        ([{"vid_name": "a", "label": 0}, {"vid_name": ["a"], "label": 0}], r"entry 2: vid_name=\['a'\]"),
        ([{"vid_name": "a", "label": {"b": 1}}], r"entry 1: label=\{'b': 1\}"),
        ('[{"vid_name": "a", "label": NaN}]', "entry 1: label=nan"),
        ([{"vid_name": "a", "label": True}], "entry 1: label=True"),
        ("[" * 100_000, "deep"),
        ("{}", "is no list of objects"),
    ],
)
def test_wrong_types_are_named(train: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_benchmark(diving(tmp_path, train))
    assert str(caught.value).startswith(f"{tmp_path / 'Diving48_V2_train.json'}: ")
    assert "\n" not in str(caught.value)


def test_large_files_and_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps({"a": "9" * 5000}))
    (tmp_path / "something-something-v2-train.json").write_text("[]")
    with pytest.raises(DataError, match="is no object of labels and their numbers"):
        read_benchmark(tmp_path)
    folder = diving(tmp_path / "diving", [{"vid_name": "a" * 200, "label": 0}])
    monkeypatch.setenv("TIMESFORMER_MAX_LIST_BYTES", "100")
    with pytest.raises(DataError, match="more than 100 bytes"):
        read_benchmark(folder)


def test_titles_of_tasks_are_read_in_one_pass(tmp_path: Path) -> None:
    """A line of spaces, of which each could be the last, and an id that is no number."""
    rows = "".join(f"v{i},1,7\n" for i in range(100))
    (tmp_path / "HowTo100M_v1.csv").write_text(f"video_id,rank,task_id\n{rows}")
    (tmp_path / "task_ids.csv").write_text(f'1,{" " * 60_000}x\n{"9" * 5000},y\n"7" , "Make, a cake" \n')
    (tmp_path / "v1.mp4").touch()
    videos = read_benchmark(tmp_path).videos
    assert videos.classes == ("Make, a cake",)
