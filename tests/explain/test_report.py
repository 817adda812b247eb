"""The page on a model, on generated videos."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timesformer.cli import main
from timesformer.evaluation.evaluate import Evaluation
from timesformer.explain import report
from timesformer.explain.report import mistakes, write_report
from timesformer.video.clips import BadVideo
from timesformer.video.items import VideoItem
from timesformer.video.synthetic import write_dataset


class _Balanced(HTMLParser):
    """Sees that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img", "br", "li", "p"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("li", "p"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(file: Path) -> str:
    page = file.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page), "nothing from elsewhere"
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    return "\n".join(parser.texts)


def evaluation(tmp_path: Path) -> Evaluation:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01], [0.4, 0.6]], np.float32)
    items = tuple(VideoItem(tmp_path / f"<i>{n}.mp4", (label,)) for n, label in enumerate((0, 0, 1, 1)))
    return Evaluation(("a&b", "c"), items, scores, False, (BadVideo("x", "x: is damaged"),))


def test_mistakes_are_the_most_confident_first(tmp_path: Path) -> None:
    found = mistakes(evaluation(tmp_path))
    assert [(mistake.index, mistake.predicted) for mistake in found] == [(2, "a&b"), (1, "c")]
    assert found[0].score == pytest.approx(0.99)


def test_names_are_text_and_nothing_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(file, title="<script>", evaluation=evaluation(tmp_path), configuration={"lr": 0.1, "steps": [1, 2]})
    assert "<script>" not in file.read_text()
    text = read(file)
    assert "50.00%" in text
    assert "a&b" in text
    assert "x: is damaged" in text
    assert "lr: 0.1" in text
    write_report(file, title="empty")
    assert "empty" in read(file)


def test_training_and_testing_write_one(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", "appearance", train=16, val=8, test=8, size=32, num_frames=8)
    (data / "train.csv").open("a").write("gone.mp4 0\n")
    run, out = tmp_path / "run", tmp_path / "test"
    small = ["epochs=2", "model.depth=1", "model.embed_dim=16", "model.image_size=32", "data.workers=0"]
    command = [
        "train",
        "--data",
        str(data),
        "--out",
        str(run),
        "--recipe",
        "demo",
        "--set",
        *small,
        "max_bad_share=0.5",
    ]
    assert main(command) == 0
    text = read(run / "report.html")
    assert "Training: run" in text
    assert "could not be read: 1" in text
    assert "embed_dim: 16" in text
    assert (run / "report.html").read_text().count('alt="loss and accuracy') == 1
    assert main(["evaluate", str(run), "--data", str(data), "--out", str(out), "--workers", "1"]) == 0
    page = (out / "report.html").read_text()
    assert "The most confident mistakes" in read(out / "report.html")
    assert page.count('alt="frames" src="data:image/jpeg') >= 1
    assert 'alt="confusion matrix"' in page


@pytest.mark.parametrize("multi_label", [False, True])
def test_curves_are_called_what_they_are(multi_label: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def picture(figure: Any, text: str) -> str:
        drawn.append(figure)
        return ""

    monkeypatch.setattr(report, "_picture", picture)
    epochs = [{"epoch": 1, "loss": 2.0, "top1": 0.5, "validation_accuracy": 0.25}]
    several = dataclasses.replace(evaluation(tmp_path), multi_label=multi_label)
    write_report(tmp_path / "r.html", title="t", evaluation=several, epochs=epochs)
    axes = drawn[0].axes[1]
    texts = [axes.get_ylabel(), *(line.get_label() for line in axes.lines)]
    assert any("mAP" in text for text in texts) == multi_label
    assert ("top-1" in axes.get_ylabel()) != multi_label
