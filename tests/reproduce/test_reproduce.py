"""Experiments in miniature: parts, verdicts, pages; and one that is really run, on few videos."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from timesformer.cli import main
from timesformer.reproduce import run as running
from timesformer.reproduce.experiment import Results
from timesformer.reproduce.experiments import EXPERIMENTS, table1
from timesformer.reproduce.report import markdown, verdicts, write_report
from timesformer.reproduce.run import full_parts, mini_parts, run
from timesformer.training.recipe import load_recipe, recipe_names
from timesformer.video.synthetic import write_dataset


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_part_has_a_recipe(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]()
    parts = mini_parts(experiment, tmp_path, range(2))
    assert len({part.folder(tmp_path) for part in parts}) == len(parts) == 4 * len(experiment.rows)
    for part in parts:
        load_recipe(part.recipe, part.settings)
    for row in experiment.rows:
        assert set(row.full.values()) <= set(recipe_names())
        assert row.paper.keys() <= experiment.columns.keys()


def test_the_same_parts_of_different_experiments_are_done_once(tmp_path: Path) -> None:
    def folders(name: str) -> dict[tuple[str, str], Path]:
        parts = mini_parts(EXPERIMENTS[name](), tmp_path, [0])
        return {(part.row, part.column): part.folder(tmp_path) for part in parts}

    divided = folders("table1")["divided_space_time", "ssv2"]
    assert divided == folders("table4")["space_time", "ssv2"] == folders("section4.7")["time_space", "ssv2"]
    assert divided != folders("table4")["space", "ssv2"]


def results(**ssv2: float) -> Results:
    scores = {"space_only": 12.0, "joint_space_time": 90.0, "divided_space_time": 97.0, "sparse_local_global": 80.0}
    scores |= {"axial": 85.0, **ssv2}
    return Results({
        **{(row, "ssv2"): [score - 1, score + 1] for row, score in scores.items()},
        **{(row, "k400"): [90.0, 90.0] for row in scores},
    })  # fmt: skip


def test_verdicts_follow_the_figures() -> None:
    assert [verdict["holds"] for verdict in verdicts(table1(), results())] == [True, True, True]
    assert [verdict["holds"] for verdict in verdicts(table1(), results(axial=98.0))] == [True, True, False]
    close = verdicts(table1(), results(space_only=80.0))[0]
    assert not close["holds"]
    assert close["points"] == pytest.approx(17)
    assert "does not hold" in markdown(table1(), results(space_only=80.0), "x")


def test_reports(tmp_path: Path) -> None:
    write_report(table1(), results(), tmp_path, "timesformer reproduce table1")
    page = (tmp_path / "table1.md").read_text()
    assert "| divided_space_time | 97.0 ± 1.4 | 59.5 | 90.0 ± 0.0 | 78.0 |" in page
    rows = list(csv.DictReader((tmp_path / "table1.csv").open()))
    assert len(rows) == 20
    content = json.loads((tmp_path / "table1.json").read_text())
    assert content["claims"][0]["points"] == 85
    assert Image.open(tmp_path / "table1.png").width > 500


def test_full_scale_takes_the_papers_recipes(tmp_path: Path) -> None:
    parts = full_parts(table1(), {"ssv2": tmp_path}, [0])
    assert [part.recipe for part in parts][-1] == "table1/ssv2_axial"
    with pytest.raises(ValueError, match="needs data: --data k400=DIR"):
        full_parts(table1(), {}, [0])
    with pytest.raises(ValueError, match="data set 'imagenet' is not one of k400, ssv2"):
        full_parts(table1(), {"imagenet": tmp_path}, [0])


def test_an_experiment_is_run_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        running, "write_dataset",
        lambda folder, task, **_: write_dataset(folder, task, train=16, val=0, test=8, size=32, num_frames=8),
    )  # fmt: skip
    monkeypatch.setattr(
        running, "load_recipe",
        lambda name, settings: load_recipe(name, [
            *settings, "epochs=1", "model.image_size=32", "model.embed_dim=16", "data.workers=0", "batch_size=8",
        ]),
    )  # fmt: skip
    experiment = EXPERIMENTS["section4.7"]()
    parts = mini_parts(experiment, tmp_path, [0])
    lines: list[str] = []
    first = run(experiment, parts, tmp_path, lines.append)
    assert len(lines) == 6
    assert lines[0].startswith("section4.7 1/6: time_space on appearance, seed 0: ")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert run(experiment, parts, tmp_path).scores == first.scores
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert all(0 <= score <= 100 for scores in first.scores.values() for score in scores)


def test_figures_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "figure2", "figure3", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"figure2.png", "figure3_frames.png", "figure3_size.png"}
    assert main(["reproduce", "table99", "--out", str(tmp_path)]) == 1
    assert "experiment 'table99' is not one of table1, table4" in " ".join(capsys.readouterr().err.split())
