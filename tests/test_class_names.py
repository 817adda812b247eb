"""Files of class names, read alike beside a list and for a model."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from timesformer.class_names import parse_class_names
from timesformer.model.tensors import WeightsError
from timesformer.model.weights import class_names
from timesformer.video.datasets import read_videos

NFC, NFD = (unicodedata.normalize(form, "plié") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("\ufeffrun\r\njump\r\n", ("run", "jump")),
        ("1 jump\n2 run\n", ("jump", "run")),
        ("1,run\n0,jump\n", ("jump", "run")),
        ("3 jump\n7 run\n", ("3 jump", "7 run")),
        (f"{NFD}\nrun\n", (NFC, "run")),
        ("a\u2028b\nrun\n", ("a\u2028b", "run")),
    ],
)
def test_a_file_is_read_alike_for_data_and_for_a_model(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8", newline="")
    (tmp_path / "list.csv").write_text(f'a.mp4,"{names[0]}"\nb.mp4,"{names[1]}"\n', encoding="utf-8")
    assert class_names(tmp_path / "classes.txt") == names
    videos = read_videos(tmp_path / "list.csv")
    assert videos.classes == names
    assert [item.labels for item in videos.items] == [(0,), (1,)]


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    assert parse_class_names("1 a\n2 b\n") == (("a", "b"), 1)
    (tmp_path / "names.txt").write_text(f"{NFC}\n{NFD}\n", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"names\.txt: .*'plié' occurs 2 times"):
        class_names(tmp_path / "names.txt")
