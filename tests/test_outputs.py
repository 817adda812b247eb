"""What commands write: nothing of the user's is lost, whatever --out names; options that do not apply are refused."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import timesformer
from timesformer.cli import main
from timesformer.lock import lock_file, output_lock
from timesformer.text import json_text, shown, text_of
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_dataset


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and four videos."""
    folder = tmp_path_factory.mktemp("original")
    write_dataset(folder / "data", "appearance", train=4, val=0, test=4, size=32, num_frames=8)
    torch.manual_seed(0)
    model = timesformer.create_model(
        num_classes=8, num_frames=2, image_size=32, patch_size=16, embed_dim=24, depth=1, num_heads=2
    )
    model.classes = tuple((folder / "data" / "classes.txt").read_text().split())
    model.preprocessing = Preprocessing(num_frames=2, stride=2, image_size=32).to_dict()
    model.save_pretrained(folder / "model")
    torch.save({"model_state": model.state_dict()}, folder / "bare.pt2")
    return folder


@pytest.fixture
def work(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with `model`, `data`, `a.mp4`, and things that no command may touch."""
    folder = Path(shutil.copytree(original, tmp_path / "work"))
    shutil.copy(next(folder.glob("data/*/test_*.mp4")), folder / "a.mp4")
    for name in (
        "f.safetensors.parts/notes.txt", "table.parquet/part-000000.parquet", "shards/shard-000000.tar",
        "shards2/shard-000000.json", "shards3/notes.txt", "a.mp4.csv", "results/results.md",
        "evaluated/predictions.csv",
        "run/metrics.jsonl", "run2/recipe.yaml", "run3/last/config.json", "g.safetensors.bad.txt", "labels.txt",
        "a=b.mp4",
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("mine")
    (folder / "run2" / "recipe.yaml").write_text("epochs: 1\n")
    monkeypatch.chdir(folder)
    return folder


def state(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


REFUSED = [
    ("embed model data --out f.safetensors", "f.safetensors.parts: holds notes.txt, which this job did not write"),
    ("embed model data --out g.safetensors", "g.safetensors.bad.txt: exists without g.safetensors"),
    ("embed model data --out a.mp4", "--out a.mp4: the name must end in .safetensors or .parquet"),
    ("embed model data --out table.parquet", "table.parquet: holds part-000000.parquet, which this job did not"),
    ("predict model a.mp4 --out table.parquet", "table.parquet: holds part-000000.parquet, which this job did not"),
    ("predict model a.mp4 --timeline", "a.mp4.json: exists, and a timeline did not write it|a.mp4.csv: exists, and a"),
    ("predict model a.mp4 --json a.mp4", "--json a.mp4: is an input of the command"),
    ("predict model a.mp4 --json model/config.json", "--json model/config.json: is an input of the command"),
    ("predict model a.mp4 --classes labels.txt --json labels.txt", "--json labels.txt: is an input of the command"),
    ("predict model a=b.mp4 --json a=b.mp4", "--json a=b.mp4: is an input of the command"),
    ("check data --json data/test.csv", "--json data/test.csv: is a file of data, which is an input"),
    ("check data --json data", "--json data: is a folder; name a file"),
    ("evaluate model --data data --out evaluated", "evaluated/predictions.csv: exists, and an evaluation did not"),
    ("evaluate model --data data --out a.mp4", "--out a.mp4: is a file; name a folder"),
    ("evaluate model --data data --out data", "--out data: is an input of the command"),
    ("explain model a.mp4 --out a.mp4", "--out a.mp4: is an input of the command"),
    ("explain model a.mp4 --out a.jpg", "--out a.jpg: the name must end in .mp4, .gif, .png, .svg or .pdf"),
    ("export bare.pt2 --to torch --out bare.pt2 --set num_heads=2", "--out bare.pt2: is an input of the command"),
    ("export model --to onnx --out model", "--out model: is a folder; name a file"),
    ("export model --to torch --out m.bin", "--out m.bin: the name must end in .onnx or .pt2"),
    ("convert model model --to timesformer", "destination model: is an input of the command"),
    ("convert model model/model.safetensors --to released", "must end in .pyth, .pth or .pt"),
    ("convert model a.mp4 --to huggingface", "destination a.mp4: is a file; name a folder"),
    ("convert model data --to huggingface", "data: there is something else"),
    ("pack data --out shards", "shards: holds shard-000000.tar, which pack did not write"),
    ("pack data --out shards2", "shards2: holds shard-000000.json, which pack did not write"),
    ("pack data --out shards3", "shards3: holds notes.txt, which pack did not write"),
    ("pack data --out data", "is an input of the command"),
    ("pack data --out data/shards", "data/shards: lies in data, which is an input"),
    ("train --data data --out data", "--out data: is an input of the command"),
    ("train --data data --out run --set epochs=1", "run/metrics.jsonl: exists, and no run wrote it"),
    ("train --data data --out run2 --recipe run2/recipe.yaml", "the run would replace its recipe"),
    ("train --data data --out run3", "run3/last: exists, and no run wrote it"),
    ("reproduce figure2 --out results", "results.md: exists, and no experiment wrote it"),
    ("reproduce table1 --data data --out data", "--out data: is an input of the command"),
    ("schemes --out s.jpeg", "--out s.jpeg: the name must end in .png, .svg or .pdf"),
    ("schemes --out labels.txt/s.png", "labels.txt is no folder"),
    ("map f.safetensors --out m.doc", "--out m.doc: the name must end in .png, .svg, .pdf or .html"),
    ("profile model --sweep frames=2 --out labels.txt", "--out labels.txt: the name must end in .png, .svg or .pdf"),
    # options that do not apply
    ("predict model a.mp4 --timeline --top 5 --clips 1 --crops 1", "--top, --clips, --crops: not with --timeline"),
    ("predict model a.mp4 --timeline --workers 2 --time-limit 600", "--workers, --time-limit: not with --timeline"),
    ("predict model a.mp4 --timeline --engine local", "--engine: not with --timeline"),
    ("predict model a.mp4 --replicas 2", "--replicas: only with --out FOLDER.parquet"),
    ("predict model a.mp4 --threshold 0.5", "--hop, --threshold: only with --timeline"),
    ("profile model --sweep frames=2 --no-measure", "--no-measure: not with --sweep"),
    ("profile model --sweep frames=2 --dtype float32", "--dtype: not with --sweep"),
    ("profile model --sweep frames=2 --frames 2", "--frames: a sweep goes over all"),
    ("profile model --sweep frames=2 --set attention=axial", "--set attention=axial: a sweep goes over all"),
    ("profile model --no-measure --dtype bfloat16", "--dtype: not with --no-measure"),
    ("map f.safetensors --out m.png --top 3", "--top: only with --near"),
    ("explain model a.mp4 --out e.png --class x --heads max", "--heads: not with --class"),
    ("evaluate model --data data/test.csv --split val", "--split: data/test.csv is a list, which is read whole"),
    ("train --data data --val data --out new --set data.validation=0.5", "--set data.validation=0.5: with --val"),
    ("reproduce figure3 --seeds 2 --out new", "--seeds: figure3: nothing is trained for that"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused_in_a_line_before_any_work(
    line: str, message: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(work)
    code = main(line.split())
    assert code == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert [part for part in message.split("|") if part in error[-1]], error
    assert state(work) == before


def test_what_a_command_wrote_is_replaced_by_it_and_goes_on(work: Path) -> None:
    (work / "a.mp4.csv").unlink()
    for line in (
        "predict model a.mp4 --timeline", "evaluate model --data data --out e --json e.json", "pack data --out s",
        "embed model data --out x.safetensors", "embed model data --out x.parquet", "schemes --out s.png",
        "convert model other --to huggingface", "reproduce figure2 --out r",
    ):  # fmt: skip
        assert main(line.split()) == 0, line
        names = {name for name in state(work) if not name.startswith("model")}
        assert main(line.split()) == 0, line
        assert {name for name in state(work) if not name.startswith("model")} == names
        assert not [name for name in names if "lock" in name]


def test_a_part_of_another_job_is_not_taken(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet: Any = importlib.import_module("pyarrow.parquet")
    shutil.rmtree(work / "table.parquet")
    assert main(["predict", "model", "a.mp4", "--out", "table.parquet"]) == 0
    assert main(["predict", "model", "a.mp4", "--out", "other.parquet", "--top", "2"]) == 0
    part = work / "table.parquet" / "part-000000.parquet"
    foreign = parquet.read_table(work / "other.parquet" / "part-000000.parquet")
    for name, table in (("part-000000.parquet", foreign), ("part-000007.parquet", parquet.read_table(part))):
        own = part.read_bytes()
        parquet.write_table(table, part.with_name(name))
        assert main(["predict", "model", "a.mp4", "--out", "table.parquet"]) == 1
        assert f"{name}: is no part of this job" in capsys.readouterr().err
        part.with_name(name).unlink()
        part.write_bytes(own)
    part.write_bytes(own[:100])
    assert main(["predict", "model", "a.mp4", "--out", "table.parquet"]) == 1
    assert "is no part of this job, or is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "out", "folder"),
    [
        ("train --data data --out o", "o", True),
        ("pack data --out o", "o", True),
        ("predict model a.mp4 --out o.parquet", "o.parquet", True),
        ("embed model data --out o.parquet", "o.parquet", True),
        ("embed model data --out o.safetensors", "o.safetensors", False),
        ("reproduce figure2 --out o", "o", True),
        ("evaluate model --data data --out o", "o", True),
        ("predict model a.mp4 --timeline --out o", "o/a.mp4", False),
        ("demo --out o", "o", True),
        ("convert model o --to timesformer", "o", True),
    ],
)
def test_a_locked_output_is_refused(
    line: str, out: str, folder: bool, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In another process, of which the lock is forged: the process that started this one."""
    with output_lock(out, folder=folder):
        file = lock_file(out, folder=folder)
        held = json.loads(file.read_text())
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(held | {"pid": os.getppid(), "started": "", "command": "timesformer x"}))
    before = state(work)
    assert main(line.split()) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert f"is being written by process {os.getppid()} on" in error
    assert "(timesformer x)" in error
    assert state(work) == before


def test_sigterm_gives_the_lock_back(work: Path) -> None:
    shutil.rmtree(work / "shards")
    code = "import time, timesformer.video.pack as p; from timesformer.cli import main\n"
    code += "p._pack = lambda *_: (print('begun', flush=True), time.sleep(60))\nmain('pack data --out shards'.split())"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert (work / "shards" / ".timesformer.lock").exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not (work / "shards").exists()


NAME = b"a\xff\x1b]0;title\x07\xe2\x80\xae[red].mp4"
SHOWN = "a\\xff\\x1b]0;title\\x07\\u202e[red].mp4"


def test_a_name_of_any_bytes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet: Any = importlib.import_module("pyarrow.parquet")
    folder = work / "odd"
    for number in range(3):
        (folder / os.fsdecode(b"c\xff\x1b[31m")).mkdir(parents=True, exist_ok=True)
        shutil.copy("a.mp4", folder / os.fsdecode(b"c\xff\x1b[31m") / os.fsdecode(b"%d" % number + NAME))
    video = str(next(folder.rglob("0*.mp4")))
    capsys.readouterr()
    for arguments in (
        ["predict", "model", video], ["predict", "model", video, "--timeline", "--out", "t"],
        ["predict", "model", video, "--json", "-"], ["predict", "model", video, "--out", "t.parquet"],
        ["explain", "model", video, "--out", "e.png"], ["explain", "model", video, "--out", "e.mp4"],
        ["embed", "model", "odd", "--out", "f2.safetensors"], ["map", "f2.safetensors", "--out", "m.png"],
        ["map", "f2.safetensors", "--out", "m.html"], ["map", "f2.safetensors", "--near", video],
        ["check", "odd", "--json", "c.json"], ["check", "odd"], ["pack", "odd", "--out", "s"],
        ["predict", "model", video + "x"], ["check", "odd\x1b[2J"],
    ):  # fmt: skip
        code = main(arguments)
        captured = capsys.readouterr()
        for text in (captured.out, captured.err):
            assert "\x1b" not in text.replace("\x1b[31merror", ""), arguments
            assert "\u202e" not in text
            assert "\x07" not in text
            text.encode("utf-8")
        # The three videos are the same one, which `check` tells.
        assert code == (arguments[0] == "check" or arguments[-1] == video + "x"), captured.err
        if arguments == ["predict", "model", video]:
            assert captured.out.splitlines()[0].endswith(f"0{SHOWN}")
    table = parquet.read_table(work / "t.parquet")["path"].to_pylist()
    assert [text_of(video)] == table
    for file in (*work.glob("t/*.json"), work / "c.json", *work.glob("t/*.csv"), work / "m.html"):
        text = file.read_text(encoding="utf-8")
        assert "\\ud" not in text.lower()


def test_texts() -> None:
    assert shown(os.fsdecode(NAME)) == SHOWN
    assert shown("a\nb\tc\x9b\r\x7f\u2028", lines=True) == "a\nb\tc\\x9b\\r\\x7f\\u2028"
    assert shown("日本語 é 👩‍👩‍👧") == "日本語 é 👩‍👩‍👧"
    assert json.loads(json_text({"a": ["\x7f\x1b\u202e", "\udcff"]})) == {"a": ["\x7f\x1b\u202e", "\\xff"]}
    assert all(" " <= char <= "~" or char == "\n" for char in json_text(["\x7f\x1b\u202e\x9b é"]))


@pytest.mark.parametrize(
    "line",
    ["train --data x --out y --print-recipe", "--help", "predict --help", "check data --json -", "predict model a.mp4"],
)
def test_a_closed_pipe_is_quiet(line: str, work: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "timesformer", *line.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)


def test_an_encoding_that_lacks_a_character(work: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shutil.copy("a.mp4", "é.mp4")
    command = [sys.executable, "-m", "timesformer", "predict", "model", "é.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "\\xe9.mp4"
