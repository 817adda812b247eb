"""The command line as a user meets it: real processes, real files, good and bad input."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from timesformer.cli import main
from timesformer.training.recipe import load_recipe
from timesformer.video import decode
from timesformer.video.synthetic import write_dataset

QUICK = [
    "model={name: timesformer_tiny, num_frames: 4, image_size: 32, patch_size: 16, embed_dim: 24, depth: 1}",
    "data={sampling: segments, short_side: [1, 1.25], flip: 0, workers: 1}", "epochs=2", "steps=null", "batch_size=16",
]  # fmt: skip


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("cli") / "videos", "appearance", train=32, val=16, test=16, size=40, num_frames=8
    )


@pytest.fixture(scope="session")
def run(data: Path) -> Path:
    out = data.parent / "run"
    assert main(["train", "--data", str(data), "--out", str(out), "--set", *QUICK]) == 0
    return out


def test_train_evaluate_predict(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (run / "best").is_dir()
    assert main(["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / "e"), "--crops", "3"]) == 0
    out = capsys.readouterr().out
    assert "top1" in out
    assert "videos                       16" in out
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["videos"] == 16
    video = str(next(data.glob("*/test_*.mp4")))
    assert main(["predict", str(run), video, "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == video
    assert len(lines) == 4
    assert all("%" in line for line in lines[1:])


def test_json_is_all_that_stands_on_standard_output(run: Path, data: Path, tmp_path: Path) -> None:
    videos = [str(path) for path in sorted(data.glob("*/test_*.mp4"))[:2]]
    command = [sys.executable, "-m", "timesformer", "predict", str(run), *videos, "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)
    assert [result["video"] for result in results] == videos
    assert [set(entry) for entry in results[0]["top"]] == [{"label", "score"}] * 5
    file = tmp_path / "e.json"
    assert main(["evaluate", str(run), "--data", str(data), "--split", "val", "--json", str(file)]) == 0
    assert {"model", "clips", "crops", "videos", "bad_videos", "top1", "top5", "per_class"} <= set(
        json.loads(file.read_text())
    )


def test_one_bad_video_does_not_end_a_prediction(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    good = str(next(data.glob("*/test_*.mp4")))
    assert main(["predict", str(run), str(tmp_path / "text.mp4"), good]) == 1
    captured = capsys.readouterr()
    assert good in captured.out
    assert captured.err.count("error:") == 1
    assert "text.mp4" in captured.err
    assert main(["predict", str(run), good, "--hop", "4"]) == 1
    assert "--hop, --threshold: only with --timeline" in capsys.readouterr().err
    assert main(["predict", str(run), good, "--calibrate", str(data)]) == 1
    assert "--calibrate: only with --dtype int8" in capsys.readouterr().err
    assert main(["predict", str(run), good, "--dtype", "int8"]) == 1
    assert "--dtype int8: needs --calibrate DIR" in capsys.readouterr().err


def test_a_crash_of_a_decoder_does_not_end_a_prediction(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crashes, good = map(str, sorted(data.glob("*/test_*.mp4"))[:2])
    init = decode.VideoReader.__init__

    def open_(self: Any, path: str | Path, **options: Any) -> None:
        if str(path) == crashes:
            faulthandler.disable()  # whose report would be in the way
            os.kill(os.getpid(), signal.SIGSEGV)
        init(self, path, **options)

    monkeypatch.setattr(decode.VideoReader, "__init__", open_)
    assert main(["predict", str(run), crashes, good]) == 1
    captured = capsys.readouterr()
    assert good in captured.out
    assert f"{crashes}: kills the process that works on it (SIGSEGV)" in captured.err


def test_resume_takes_the_recipe_of_the_run(run: Path, data: Path, tmp_path: Path) -> None:
    again = shutil.copytree(run, tmp_path / "again")
    before = (again / "last" / "model.safetensors").read_bytes()
    assert main(["train", "--data", str(data), "--out", str(again), "--resume"]) == 0
    assert (again / "last" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "nowhere", "a.mp4"], "nowhere: no such file or folder"),
        (["evaluate", "RUN", "--data", "nowhere"], "nowhere: no such file or folder"),
        (["train", "--data", "nowhere", "--out", "OUT"], "nowhere: no such file or folder"),
        (["train", "--data", "DATA", "--out", "RUN"], "holds a run already"),
        (["train", "--data", "DATA", "--out", "OUT", "--recipe", "best"], "recipe 'best' is neither a file nor one of"),
        (["train", "--data", "DATA", "--out", "OUT", "--set", "epochs=x"], "epochs"),
        (
            ["train", "--data", "DATA", "--out", "OUT", "--set", "model.heads=2"],
            "timesformer_tiny has no option 'heads': did you mean",
        ),
        (["train", "--data", "DATA", "--out", "OUT", "--set", "init=nowhere"], "nowhere: no such file or folder"),
        (["check", "nowhere"], "nowhere"),
    ],
)
def test_a_failing_job_is_one_clear_line(
    arguments: list[str], message: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": str(run), "DATA": str(data), "OUT": str(tmp_path / "out")}
    assert main([places.get(argument, argument) for argument in arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ")
    assert message in error[-1]


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["train"], ["predict", "model"], ["evaluate", "m", "--data", "d", "--crops", "2"],
     ["predict", "m", "v", "--clips", "0"], ["predict", "m", "v", "--clips", "all"],
     ["predict", "m", "v", "--top", "0"], ["check", "d", "--workers", "-1"]],
)  # fmt: skip
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


def test_check(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(data), "--json", "-"]) == 0
    json.loads(capsys.readouterr().out)
    broken = shutil.copytree(data, tmp_path / "broken")
    victim = next(broken.glob("*/train_*.mp4"))
    victim.write_bytes(victim.read_bytes()[:100])
    assert main(["check", str(broken)]) == 1
    assert victim.name in capsys.readouterr().out


def test_every_real_clip_is_predicted_or_named(run: Path, shared_data: Path) -> None:
    """No traceback, no crash, no hang, on whatever kind of file."""
    clips = shared_data / "clips"
    files = sorted(path for folder in (clips, clips / "derived") for path in folder.iterdir() if path.is_file())
    files.remove(clips / "SOURCES.txt")  # would be a list of videos
    assert len(files) > 50
    command = [sys.executable, "-m", "timesformer", "predict", str(run), *map(str, files), "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    results = json.loads(done.stdout)
    assert [result["video"] for result in results] == [str(path) for path in files]
    failed = [result for result in results if "error" in result]
    assert done.returncode == (1 if failed else 0)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("predict: ")]  # progress
    assert len(lines) == len(failed)
    for result, line in zip(failed, lines, strict=True):
        assert Path(result["video"]).name in line
    broken = {"empty.mp4", "garbage.mp4", "text_named.mp4"}
    assert broken <= {Path(result["video"]).name for result in failed}
    assert len(failed) <= 12


def test_videos_held_out_of_class_folders_are_listed_for_testing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my videos, all"
    for path in data.glob("*/train_*.mp4"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    out = tmp_path / "run"
    assert main(["train", "--data", str(folder), "--out", str(out), "--set", *QUICK, "data.validation=0.25"]) == 0
    assert f"evaluate {out} --data {out / 'held_out.csv'}" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--data", str(out / "held_out.csv"), "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["videos"] == 8
    assert "has no test split" not in captured.err
    assert "the model was chosen by 8 of these 8 videos" in " ".join(captured.err.split())
    listed = (out / "held_out.csv").read_bytes()
    other = ["train", "--data", str(folder), "--out", str(out), "--set", *QUICK, "data.validation=0.25", "seed=5"]
    assert main(other) == main([*other, "--resume"]) == 1
    assert (out / "held_out.csv").read_bytes() == listed, "a run that is refused changes nothing"
    assert main(["evaluate", str(out), "--data", str(folder), "--json", "-"]) == 0
    assert "has no test split; this is all of it" in capsys.readouterr().err


def test_print_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    arguments = ["train", "--data", "x", "--out", "y", "--print-recipe"]
    assert main([*arguments, "--set", "epochs=7"]) == 0
    file.write_text(capsys.readouterr().out)
    assert "epochs: 7" in file.read_text()
    assert load_recipe(str(file)) == load_recipe("scratch", ["epochs=7"])


@pytest.mark.parametrize(
    ("send", "sign", "code"),
    [
        (os.killpg, signal.SIGINT, 1),
        (os.killpg, signal.SIGTERM, 75),
        (os.kill, signal.SIGTERM, 75),
        (os.killpg, signal.SIGUSR1, 75),
    ],  # Ctrl-C, and what a scheduler sends, reach the loader's processes too
)
def test_an_interrupted_run_saves_its_last_step(
    data: Path, tmp_path: Path, send: Callable[[int, int], None], sign: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "timesformer", "train", "--data", str(data), "--out", str(out), "--set", *QUICK]
    process = subprocess.Popen([*command, "epochs=100000"], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.1)
    send(process.pid, sign)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.strip().endswith("interrupted: the same command with --resume goes on from here")
    assert "Traceback" not in errors
    assert (out / "checkpoint.pt").exists()


def test_convert_there_and_back(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, destination, form in (
        (run, "hf", "huggingface"), (tmp_path / "hf", "model.pyth", "released"),
        (tmp_path / "model.pyth", "own", "timesformer"),
    ):  # fmt: skip
        assert main(["convert", str(source), str(tmp_path / destination), "--to", form]) == 0
    first, last = (Path(folder) / "model.safetensors" for folder in (run / "last", tmp_path / "own"))
    assert first.read_bytes() == last.read_bytes()
    capsys.readouterr()
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    assert (
        main(
            ["convert", str(run), str(tmp_path / "x"), "--to", "timesformer", "--classes", str(tmp_path / "names.txt")]
        )
        == 1
    )
    assert "names.txt: 2 names for a model of 8 classes" in " ".join(capsys.readouterr().err.split())
    assert main(["convert", str(run), str(tmp_path), "--to", "released"]) == 1
    assert "is a folder; name a file" in " ".join(capsys.readouterr().err.split())


def test_help_does_not_wait_for_pytorch() -> None:
    code = "import sys, timesformer.cli; timesformer.cli._parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_class_names_for_a_model_that_has_none(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from timesformer import load_model

    model = load_model(run)
    torch.save({"model_state": model.state_dict()}, tmp_path / "bare.pyth")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"name {number}" for number in range(8)))
    video = next(data.rglob("*.mp4"))
    heads = f"num_heads={model.config.num_heads}"
    assert main(["predict", str(tmp_path / "bare.pyth"), str(video), "--set", heads, "--classes", str(names)]) == 0
    assert "name " in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "bare.pyth"), str(video), "--set", "heads=3"]) == 1
    assert "--set 'heads': did you mean num_heads?" in " ".join(capsys.readouterr().err.split())
