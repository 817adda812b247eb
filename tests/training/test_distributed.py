"""Training in several processes (Gloo, on the CPU) against the same in one: steps, checkpoints, what goes wrong."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import timesformer
from timesformer import distributed
from timesformer.files import remove_unfinished
from timesformer.training import checkpoint
from timesformer.training.checkpoint import Progress, latest_readable, load_checkpoint, save_checkpoint
from timesformer.training.errors import TrainingError
from timesformer.training.loop import Report, train
from timesformer.training.order import StepOrder
from timesformer.training.recipe import load_recipe
from timesformer.training.stop import StopRequest
from timesformer.video.datasets import read_videos
from timesformer.video.items import VideoItem
from timesformer.video.synthetic import write_dataset

# All that is random is on. Three micro-batches a step: of two processes one has a turn without clips, of four two.
SETTINGS = [
    "model={name: timesformer_tiny, num_frames: 2, image_size: 32, patch_size: 16, embed_dim: 24, num_heads: 2, "
    "depth: 2, drop_path: 0.3}",
    "data={sampling: segments, short_side: [1, 1.25], scale: null, workers: 0, cache: null, trim: 0, rand_augment: 5, "
    "erasing: 0.5, mixup: 0.8, cutmix: 1, validation: 0}",
    *("optimizer.name=sgd", "optimizer.lr=0.05", "optimizer.clip_grad=null", "precision=float32", "ema=0.9"),
    *("batch_size=8", "micro_batch_size=3", "steps=null", "epochs=9", "validate_every=4", "checkpoint_minutes=60"),
]


@dataclass(frozen=True)
class Run:
    """A training, and what may happen to it: a plain description, for other processes.

    Attributes:
        out: folder of the run.
        changes: of the recipe.
        broken: paths of videos that can't be read, to be trained on as well.
        resume: go on.
        stop_at: step in which the last process gets SIGUSR1.
    """

    out: Path
    changes: tuple[str, ...] = ()
    broken: tuple[Path, ...] = ()
    resume: bool = False
    stop_at: int = 0


def do(run: Run, data: Path) -> None:
    """Do a run in this process; process 0 writes the losses after each step to `losses.json`, beside the run's own."""
    rank = distributed.rank()
    videos = read_videos(data, "train")
    videos = replace(videos, items=(*videos.items, *(VideoItem(file, (0,)) for file in run.broken)))
    losses: list[float] = []

    def on_report(report: Report) -> None:
        if report.validation is None:
            losses.append(report.loss)
            if len(losses) == run.stop_at and rank == distributed.world_size() - 1:
                os.kill(os.getpid(), signal.SIGUSR1)

    recipe = load_recipe("scratch", [*SETTINGS, *run.changes])
    outcome = "done"
    try:
        train(
            videos, run.out, recipe,
            validation=read_videos(data, "val"), resume=run.resume, on_report=on_report,
        )  # fmt: skip
    except (KeyboardInterrupt, TrainingError) as error:
        outcome = f"{type(error).__name__}: {error}"
    run.out.mkdir(exist_ok=True)  # one that was refused leaves none
    told = distributed.gather(outcome)
    if rank == 0:
        name = "losses_resumed.json" if run.resume else "losses.json"
        (run.out / name).write_text(json.dumps({"losses": losses, "outcomes": told}))


def together(processes: int, runs: Sequence[Run], data: Path) -> None:
    """Do runs, one after the other, in several processes; one that hangs fails."""
    if processes == 1:
        for run in runs:
            do(run, data)
        return
    arguments = (processes, f"tcp://127.0.0.1:{free_port()}", runs, data)
    started = torch.multiprocessing.spawn(_process, arguments, nprocs=processes, join=False)
    until = time.monotonic() + 300
    while not started.join(timeout=5):
        if time.monotonic() > until:
            for process in started.processes:
                process.kill()
            pytest.fail("the processes wait for one another")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _process(rank: int, processes: int, address: str, runs: Sequence[Run], data: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    for run in runs:
        do(run, data)
    distributed.leave()


def losses(out: Path, name: str = "losses.json") -> list[float]:
    told: list[float] = json.loads((out / name).read_text())["losses"]
    return told


def outcomes(out: Path) -> list[str]:
    told: list[str] = json.loads((out / "losses.json").read_text())["outcomes"]
    return told


def weights(out: Path, model: str = "last") -> dict[str, torch.Tensor]:
    return timesformer.load_model(out / model).state_dict()


def assert_same_weights(one: Path, other: Path, model: str = "last", tolerance: float = 0) -> None:
    second = weights(other, model)
    for name, value in weights(one, model).items():
        torch.testing.assert_close(second[name], value, atol=tolerance, rtol=tolerance, msg=name)


def assert_same_run(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    """The same losses, scores and weights, up to what the order of additions does."""
    np.testing.assert_allclose(losses(other), losses(one), atol=tolerance)
    for model in ("last", "best"):
        assert_same_weights(one, other, model, tolerance)
    first_lines, second_lines = ((run / "metrics.jsonl").read_text().splitlines() for run in (one, other))
    for first_line, second_line in zip(first_lines, second_lines, strict=True):
        assert json.loads(second_line) == pytest.approx(json.loads(first_line), abs=tolerance)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "appearance"
    return write_dataset(folder, "appearance", train=48, val=8, test=0, size=40, num_frames=8)


SHARDED = ("parallel=fsdp",)
# Muon for matrices, AdamW for the rest: both keep states that are cut up and put together again. Muon computes in
# bfloat16; shards that were made orthogonal by themselves would change losses by 6e-3 and weights by 3e-2.
MUON = ("optimizer.name=muon", "optimizer.lr=1e-2", "optimizer.clip_grad=0.5", "epochs=2", "validate_every=1")
BROKEN = ("batch_size=2", "micro_batch_size=1", "data.mixup=0", "data.cutmix=0", "epochs=1", "max_bad_share=0.5")


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs in one process."""
    folder = tmp_path_factory.mktemp("runs")
    together(1, [Run(folder / "one"), Run(folder / "one_muon", MUON)], data)
    return folder


@pytest.fixture(scope="module")
def runs(alone: Path, data: Path) -> Path:
    """The same folder, with runs in two processes, and others."""
    folder = alone
    broken = tuple(folder / f"broken_{number}.mp4" for number in range(20))
    for file in broken:
        file.write_bytes(b"this is no video")
    shared = [
        Run(folder / "ddp"),
        Run(folder / "fsdp", SHARDED),
        Run(folder / "fsdp_muon", (*MUON, *SHARDED), stop_at=8),
        Run(folder / "ddp_broken", BROKEN, broken),
        Run(folder / "fsdp_broken", (*BROKEN, *SHARDED), broken),
        Run(folder / "too_many_broken", (*BROKEN, "max_bad_share=0.1"), broken),
        Run(folder / "not_finite", ("optimizer.lr=1e6",)),
    ]
    together(1, [Run(folder / "one_broken", BROKEN, broken)], data)
    together(2, shared, data)
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_take_the_steps_of_one(runs: Path, parallel: str) -> None:
    """54 steps; dropped paths, mixing, erasing, the average of weights and blank turns all included."""
    assert len(losses(runs / "one")) == 54
    assert outcomes(runs / parallel) == ["done", "done"]
    assert_same_run(runs / "one", runs / parallel)
    assert max(losses(runs / "one")) - min(losses(runs / "one")) > 0.1, "there was something to learn"


def test_one_process_asked_to_stop_stops_all_and_no_step_is_lost(runs: Path, data: Path) -> None:
    """A run in shards, stopped in its second epoch, goes on whole in one process."""
    run = runs / "fsdp_muon"
    assert outcomes(run) == ["Interrupted: stopped by SIGUSR1"] * 2
    assert len(losses(run)) == 8
    progress, states = load_checkpoint(run / "checkpoint.pt")
    assert (progress.epoch, progress.step) == (1, 2)
    assert not any("DTensor" in str(type(value)) for value in states["model"].values())
    together(1, [Run(run, MUON, resume=True)], data)
    whole = losses(run) + losses(run, "losses_resumed.json")
    np.testing.assert_allclose(whole, losses(runs / "one_muon"), atol=1e-3)
    assert_same_weights(runs / "one_muon", run, tolerance=1e-2)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_process_left_without_a_video_takes_part(runs: Path, parallel: str) -> None:
    """Steps in which all videos of the first process are broken, of the second, and of both."""
    order = StepOrder(68, 2, 1, seed=0, epochs=1)
    read = [video < 48 for ((_, video),) in order.micro_batches(0, 0)]
    assert {*zip(read[::2], read[1::2], strict=True)} == {(True, True), (True, False), (False, True), (False, False)}
    run = runs / f"{parallel}_broken"
    assert outcomes(run) == ["done", "done"]
    assert_same_run(runs / "one_broken", run)
    listed = (run / "bad_videos.txt").read_text()
    assert len(listed.splitlines()) == 20
    assert listed == (runs / "one_broken" / "bad_videos.txt").read_text()


def test_what_ends_a_run_ends_it_in_all_processes(runs: Path) -> None:
    for one, other in (outcomes(runs / name) for name in ("too_many_broken", "not_finite")):
        assert one == other
    assert "of 68 videos failed to decode" in outcomes(runs / "too_many_broken")[0]
    assert "try an optimizer.lr below" in outcomes(runs / "not_finite")[1]


def test_process_0_alone_writes(runs: Path) -> None:
    assert {path.name for path in (runs / "fsdp").iterdir()} == {
        "best", "last", "checkpoint.pt", "recipe.yaml", "metrics.jsonl", "tensorboard", "losses.json",
        "videos.json",
    }  # fmt: skip
    assert len(list((runs / "fsdp" / "tensorboard").iterdir())) == 1


@given(
    num_videos=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    micro=st.none() | st.integers(1, 12),
    world=st.integers(1, 5),
)
@settings(deadline=None, max_examples=60)
def test_processes_share_every_step(num_videos: int, batch_size: int, micro: int | None, world: int) -> None:
    orders = [StepOrder(num_videos, batch_size, micro, 3, 2, rank, world) for rank in range(world)]
    alone = [key for part in StepOrder(num_videos, batch_size, micro, 3, 2).micro_batches(0, 0) for key in part]
    parts = [order.micro_batches(0, 0) for order in orders]
    found = []
    for _ in range(2):
        for step in range(orders[0].steps):
            turns = [order.turns(step) for order in orders]
            assert len({len(each) for each in turns}) == 1, "as many turns in all processes"
            places = {
                place: next(keys)
                for each, keys in zip(turns, parts, strict=True)
                for place in each
                if place is not None
            }
            assert sorted(places) == list(range(len(places)))
            if micro is None:
                assert max(map(len, places.values())) == math.ceil(sum(map(len, places.values())) / world)
            found += [key for place in sorted(places) for key in places[place]]
    assert found == alone, "the steps of one process"
    assert all(next(keys, None) is None for keys in parts)


def saved(folder: Path, step: int, size: int = 10_000) -> None:
    """A checkpoint of the smallest model, most of whose bytes are those of `size` numbers of its optimizer's state."""
    model = timesformer.create_model(
        "timesformer_tiny", embed_dim=4, num_heads=1, depth=1, num_frames=1, image_size=2, patch_size=2, num_classes=2
    )
    states = {"optimizer": {"momentum": torch.full((size,), float(step))}, "model": model.state_dict(), "run": {}}
    states |= {"architecture": model.architecture, "config": asdict(model.config), "preprocessing": None}
    save_checkpoint(folder, Progress(step=step), states)


def newest(folder: Path) -> int:
    file = latest_readable(folder)
    assert file is not None
    return load_checkpoint(file)[0].step


@pytest.mark.parametrize("damage", ["empty", "half", "end", "bit", "name"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, step)
    assert newest(tmp_path) == 3
    file = tmp_path / "checkpoint.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= damage == "bit"
    if damage == "name":  # in the list of what is in it
        content[content.rindex(b"data.pkl")] = 0xFF
    file.write_bytes(content[: {"empty": 0, "half": len(content) // 2, "end": -30}.get(damage)])
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == 2
    assert f"{file} can't be read" in caplog.text
    saved(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.previous.pt", "checkpoint.pt", "checkpoint.unreadable.pt",
    ]  # fmt: skip
    assert load_checkpoint(tmp_path / "checkpoint.previous.pt")[0].step == 2, "what is good is not pushed out"
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt can't be read .*previous\.pt can't be read .*: remove"):
        latest_readable(tmp_path)


def test_without_a_latest_checkpoint_there_is_the_one_before(tmp_path: Path) -> None:
    assert latest_readable(tmp_path) is None
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    (tmp_path / "checkpoint.pt").rename(tmp_path / ".123.checkpoint.pt")  # killed while it was being written
    assert newest(tmp_path) == 1
    remove_unfinished(tmp_path, "checkpoint*.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.previous.pt"]


def test_a_disk_without_links_keeps_two_checkpoints_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("links are not for this disk")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2, 3):
        saved(tmp_path, step)
    assert [load_checkpoint(file)[0].step for file in checkpoint.checkpoints(tmp_path)] == [3, 2]


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("a disk of a given size can't be mounted here")
    try:
        saved(disk, 1)
        saved(disk, 2)
        with pytest.raises(
            TrainingError, match=r"checkpoint\.pt can't be written \(No space left on device\): make room"
        ):
            saved(disk, 3, size=100_000)
        assert newest(disk) == 2
        assert {path.name for path in disk.iterdir()} == {"checkpoint.pt", "checkpoint.previous.pt"}
        saved(disk, 4)
        assert newest(disk) == 4
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_on_a_full_disk_says_so_and_goes_on_from_the_last_good_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = torch.save, []

    def fill(states: object, file: object) -> None:
        calls.append(None)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        save(states, file)

    run = Run(tmp_path / "run", ("epochs=1", "checkpoint_minutes=0"))
    monkeypatch.setattr(torch, "save", fill)
    together(1, [run], data)
    assert outcomes(run.out) == [
        f"TrainingError: {run.out}/checkpoint.pt can't be written (No space left on device): make room, then go on "
        f"(--resume) from {run.out}/checkpoint.pt"
    ]
    shutil.copytree(run.out, tmp_path / "damaged")
    together(1, [replace(run, resume=True)], data)
    assert losses(run.out, "losses_resumed.json")[0] == losses(run.out)[2]
    assert len(losses(run.out, "losses_resumed.json")) == 6 - 2

    damaged = tmp_path / "damaged" / "checkpoint.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    together(1, [replace(run, out=damaged.parent, resume=True)], data)
    assert losses(damaged.parent, "losses_resumed.json")[:2] == losses(run.out)[1:]
    assert_same_weights(run.out, damaged.parent)


def test_a_signal_that_comes_twice_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("timesformer.training.stop.time", SimpleNamespace(monotonic=lambda: now))
    with StopRequest() as stop:
        assert stop.asked is None
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.asked is signal.SIGUSR1
        now = 2.0
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_first_node_of_slurm() -> None:
    names = {"localhost": "localhost", "a1,a2": "a1", "gpu[03-06,9],big1": "gpu03", "n[7,9]-ib": "n7-ib"}
    for listed, first in names.items():
        assert distributed._first_node(listed) == first


def test_processes_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "120007"}
    expected = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n2", "MASTER_PORT": "20007"}
    assert distributed._from_slurm({**slurm, "SLURM_STEP_NODELIST": "n[2-3]"}) == expected
    own = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
    assert distributed._from_slurm({**slurm, **own}) == {**expected, **own}
    assert distributed._from_slurm({**slurm, "SLURM_NTASKS": "1"}) == {}
    assert distributed._from_slurm({}) == {}


def command(data: Path, out: Path, *changes: str) -> list[str]:
    """A run from the command line, with loader processes, that goes on where it was."""
    return [
        "timesformer", "train", "--data", str(data), "--out", str(out), "--resume",
        "--set", *SETTINGS, "data.workers=1", *changes,
    ]  # fmt: skip


def wait_for_epochs(process: subprocess.Popen[str], out: Path, count: int) -> None:
    while not (out / "metrics.jsonl").exists() or len((out / "metrics.jsonl").read_bytes().splitlines()) < count:
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_process_of_slurm_stops_all_with_a_code_to_queue_again_by(
    data: Path, tmp_path: Path, sign: signal.Signals, code: int
) -> None:
    environment = {**os.environ, "SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *command(data, tmp_path / "run", "epochs=100000", "validate_every=100000")],
            env={**environment, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    wait_for_epochs(processes[0], tmp_path / "run", 1)
    processes[1].send_signal(sign)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [code, code]
    assert errors[0].strip().endswith("interrupted: the same command with --resume goes on from here")
    assert "interrupted" not in errors[1], "one process speaks"
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")[0].epoch >= 1


def test_a_loader_that_is_killed_changes_nothing(data: Path, tmp_path: Path) -> None:
    killed = 0

    def kill(report: Report) -> None:
        nonlocal killed
        if report.step == 1:  # once an epoch
            for loader in torch.multiprocessing.active_children():
                loader.kill()
                killed += 1

    choices = load_recipe("scratch", [*SETTINGS, "data.workers=1"])
    train(read_videos(data, "train"), tmp_path / "alone", choices)
    train(read_videos(data, "train"), tmp_path / "run", choices, on_report=kill)
    assert killed > 1
    assert_same_weights(tmp_path / "alone", tmp_path / "run")
    assert not (tmp_path / "run" / "bad_videos.txt").exists()


def launched(processes: int, arguments: Sequence[str], *options: str) -> subprocess.Popen[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *options, "-m"]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, *arguments],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_sigterm_to_torchrun_loses_no_step(data: Path, tmp_path: Path) -> None:
    """What torchrun passes on, and what reaches processes directly, come to one request."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    choices = ("epochs=12", "validate_every=12")
    subprocess.run([sys.executable, "-m", *command(data, alone, *choices)], check=True, capture_output=True)
    process = launched(2, command(data, run, *choices))
    wait_for_epochs(process, run, 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.killpg(process.pid, signal.SIGTERM)
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "interrupted: the same command with --resume goes on from here" in errors
    progress, _ = load_checkpoint(run / "checkpoint.pt")
    assert 2 <= progress.epoch < 12
    assert progress.epoch == len((run / "metrics.jsonl").read_text().splitlines()), "the last step is in it"
    process = launched(2, command(data, run, *choices))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same_weights(alone, run, tolerance=1e-4)


@pytest.mark.slow
def test_torchrun_starts_again_what_was_killed(data: Path, tmp_path: Path) -> None:
    """At once: what the first processes left in its store does not mislead those after them."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    choices = ("epochs=12", "validate_every=12", "checkpoint_minutes=0")
    subprocess.run([sys.executable, "-m", *command(data, alone, *choices)], check=True, capture_output=True)
    process = launched(2, command(data, run, *choices), "--max-restarts", "2")
    for epoch in (2, 4):
        wait_for_epochs(process, run, epoch)
        before = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(before[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "connectFullMesh failed" not in errors
    assert_same_weights(alone, run, tolerance=1e-4)


@pytest.mark.slow
def test_four_processes_take_the_steps_of_one_and_go_on_from_two(alone: Path, data: Path, tmp_path: Path) -> None:
    stopped = [Run(tmp_path / parallel, (f"parallel={parallel}", *MUON), stop_at=8) for parallel in ("ddp", "fsdp")]
    together(2, stopped, data)
    swapped = [  # how processes share the model may change as well
        Run(run.out, (f"parallel={other}", *MUON), resume=True)
        for run, other in zip(stopped, ("fsdp", "ddp"), strict=True)
    ]
    whole = [Run(tmp_path / "whole_ddp"), Run(tmp_path / "whole_fsdp", (*SHARDED, "activation_checkpointing=true"))]
    together(4, [*swapped, *whole], data)
    for run in whole:
        assert_same_run(alone / "one", run.out)
    for run in stopped:
        found = losses(run.out) + losses(run.out, "losses_resumed.json")
        np.testing.assert_allclose(found, losses(alone / "one_muon"), atol=1e-3)


@pytest.mark.slow
def test_bfloat16_frozen_blocks_and_shares_of_the_batch(data: Path, tmp_path: Path) -> None:
    """Without micro_batch_size each process takes its share of the batch; nothing is drawn for a whole micro-batch."""
    same = ("data.mixup=0", "data.cutmix=0", "model.drop_path=0", "micro_batch_size=null", "epochs=2")
    kinds = {
        "bfloat16": ((*same, "precision=bfloat16"), 2e-2),
        "frozen": ((*same, "frozen_blocks=1", "optimizer.name=adamw", "optimizer.lr=1e-3"), 1e-3),
    }
    for processes in (1, 2):
        runs = [
            Run(tmp_path / f"{name}_{parallel}_{processes}", (*changes, f"parallel={parallel}"))
            for name, (changes, _) in kinds.items()
            for parallel in ("ddp", "fsdp")
        ]
        together(processes, runs, data)
    for name, (_, tolerance) in kinds.items():
        for parallel in ("ddp", "fsdp"):
            one, two = (losses(tmp_path / f"{name}_{parallel}_{processes}") for processes in (1, 2))
            np.testing.assert_allclose(two, one, atol=tolerance)


@pytest.mark.slow
def test_batch_norms_normalise_micro_batches_and_share_their_statistics(data: Path, tmp_path: Path) -> None:
    baseline = (
        "model={name: slow_r50, num_frames: 2, image_size: 32, width: 8, depths: [1, 1, 1, 1], dropout: 0}",
        "initialization=released", "epochs=1", "ema=0", "optimizer.lr=0.01", "data.mixup=0", "data.cutmix=0",
    )  # fmt: skip
    runs = [Run(tmp_path / "two", baseline), Run(tmp_path / "refused", (*baseline, *SHARDED))]
    together(1, [Run(tmp_path / "one", baseline)], data)
    together(2, runs, data)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-3)
    from timesformer import models

    one, two = (models.load(tmp_path / name / "last").state_dict() for name in ("one", "two"))
    moved = [name for name in one if name.endswith("running_mean")]
    assert moved
    for name in moved:
        assert two[name].abs().max() > 0
    message = (tmp_path / "refused" / "losses.json").read_text()
    assert "parallel=fsdp: only a Transformer's blocks are sharded" in message


@pytest.mark.slow
def test_compiled_runs_are_shared_alike(data: Path, tmp_path: Path) -> None:
    """Compiled, paths are dropped by other draws; all else is as it is without."""
    compiled = ("compile=true", "epochs=1", "model.drop_path=0", "validate_every=1")
    together(1, [Run(tmp_path / "plain", compiled[1:]), Run(tmp_path / "one", compiled)], data)
    kinds = {"ddp": (), "fsdp": (*SHARDED, "activation_checkpointing=true")}
    together(2, [Run(tmp_path / name, (*compiled, *changes)) for name, changes in kinds.items()], data)
    for name in ("one", *kinds):
        np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / "plain"), atol=1e-3)
