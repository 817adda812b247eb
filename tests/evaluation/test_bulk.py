"""Tables of labels and features: one row for each input, whatever happens to it and however often the job is killed."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import timesformer
from timesformer.cli import main
from timesformer.evaluation import bulk, features, parts
from timesformer.evaluation.bulk import BulkJob, find_inputs, run_bulk
from timesformer.evaluation.features import video_features
from timesformer.evaluation.views import Part
from timesformer.predictor import ClassifierSource, VideoClassifier
from timesformer.video.items import VideoItem, VideoList
from timesformer.video.pack import pack
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.shards import VideoPath
from timesformer.video.synthetic import write_dataset

parquet: Any = importlib.import_module("pyarrow.parquet")  # as `tests` are checked without its types


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 videos and a broken one."""
    folder = tmp_path_factory.mktemp("data") / "videos"
    write_dataset(folder, "appearance", train=0, val=0, test=20, size=32, num_frames=12)
    (folder / "more").mkdir()
    (folder / "more" / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of which the first is a pipe, so that it can't be read; one test lets its reader hang."""
    folder = tmp_path_factory.mktemp("hanging") / "video"
    folder.mkdir()
    os.mkfifo(folder / "0.png")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ClassifierSource:
    torch.manual_seed(0)
    model = timesformer.create_model(
        num_classes=8, num_frames=4, image_size=32, patch_size=16, embed_dim=24, depth=2, num_heads=3
    )
    model.preprocessing = Preprocessing(num_frames=4, stride=2, image_size=32).to_dict()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return ClassifierSource(folder)


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(out.glob("part-*.parquet")) for row in parquet.read_table(file).to_pylist()]


def check_labels(found: list[dict[str, Any]], inputs: tuple[VideoPath, ...], source: ClassifierSource) -> None:
    classifier = source.load()
    assert [row["path"] for row in found] == [str(path) for path in inputs]
    for row, path in zip(found, inputs, strict=True):
        assert set(row) == {"path", "labels", "scores", "error"}
        if row["error"] is None:
            expected = classifier.predict(path, top=3)
            assert row["labels"] == [label for label, _ in expected]
            assert row["scores"] == pytest.approx([score for _, score in expected], abs=1e-6)
        else:
            assert row["labels"] is row["scores"] is None


def test_every_video_has_a_row(
    data: Path, hanging: Path, source: ClassifierSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view_parts = parts.view_parts

    def sometimes_endless(path: VideoPath, *arguments: Any, **options: Any) -> Iterator[Part]:
        while path == hanging:
            time.sleep(1)
        return view_parts(path, *arguments, **options)

    monkeypatch.setattr(parts, "view_parts", sometimes_endless)  # of the processes too, which are forked
    monkeypatch.setattr(features, "PART", 8)
    inputs = find_inputs([data])
    inputs = (*inputs[:5], hanging, inputs[2], *inputs[5:], Path("nowhere.mp4"))
    job = BulkJob(source, inputs, "labels", top=3, time_limit=2)
    seen: list[int] = []
    result = run_bulk(job, tmp_path / "out.parquet", on_videos=seen.append)
    assert (result.videos, result.errors) == (24, 3)
    assert sum(seen) == 24
    found = rows(tmp_path / "out.parquet")
    check_labels(found, inputs, source)
    errors = {row["path"]: row["error"] for row in found if row["error"]}
    assert errors == {
        str(data / "more" / "broken.mp4"): f"{data / 'more' / 'broken.mp4'}: is not a video, or is damaged or cut off",
        str(hanging): f"{hanging}: takes more than 2 s",
        "nowhere.mp4": "nowhere.mp4: no such file",
    }
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 24, "the folder is one table to other programs"
    whole = run_bulk(job, tmp_path / "again.parquet")
    assert whole == result
    assert rows(tmp_path / "again.parquet") == found


def test_features_are_those_of_embed(data: Path, source: ClassifierSource, tmp_path: Path) -> None:
    inputs = find_inputs([data])
    run_bulk(BulkJob(source, inputs, "features", clips=2), tmp_path / "out.parquet")
    found = {row["path"]: row for row in rows(tmp_path / "out.parquet")}
    assert found[str(data / "more" / "broken.mp4")]["features"] is None
    classifier: VideoClassifier = source.load()
    videos = VideoList(tuple(VideoItem(path, ()) for path in inputs), (), False, data)
    features, _ = video_features(classifier.model, videos, classifier.preprocessing, clips=2, workers=0)
    assert len(features.paths) == 20
    for path, values in zip(features.paths, features.values, strict=True):
        np.testing.assert_allclose(found[path]["features"], values, atol=1e-6)


def killed_often(source: ClassifierSource, data: Path, out: Path, engine: str, times: int) -> list[list[str]]:
    """Kill a job each time that it has written a part more; the parts that were there each time."""
    code = f"""
import time
from pathlib import Path
from timesformer.evaluation import bulk, features
from timesformer.predictor import ClassifierSource, VideoClassifier
features.PART = 4
rows = bulk.BulkJob.rows
def slowly(*args):
    time.sleep(0.3)
    return rows(*args)
bulk.BulkJob.rows = slowly
source = ClassifierSource(Path({str(source.model)!r}))
job = bulk.BulkJob(source, bulk.find_inputs([{str(data)!r}]), "labels", top=3)
{engine}
bulk.run_bulk(job, Path({str(out)!r}), engine=engine)
"""
    seen: list[list[str]] = []
    for _ in range(times):
        before = len(seen[-1]) if seen else 0
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        while len(list(out.glob("part-*.parquet"))) <= before:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen.append(sorted(f"{file.name} {file.stat().st_mtime_ns}" for file in out.glob("part-*.parquet")))
    return seen


def test_a_job_that_is_killed_again_and_again(
    data: Path, source: ClassifierSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    seen = killed_often(source, data, out, "engine = bulk.local_engine", times=3)
    assert all(set(earlier) < set(later) for earlier, later in itertools.pairwise(seen))
    assert len(seen[-1]) < 6
    monkeypatch.setattr(features, "PART", 4)
    inputs = find_inputs([data])
    run_bulk(BulkJob(source, inputs, "labels", top=3), out)
    check_labels(rows(out), inputs, source)
    assert set(seen[-1]) < {f"{file.name} {file.stat().st_mtime_ns}" for file in out.glob("part-*.parquet")}


def test_another_job_is_refused(data: Path, source: ClassifierSource, tmp_path: Path) -> None:
    inputs = find_inputs([data])[:3]
    out = tmp_path / "out.parquet"
    job = BulkJob(source, inputs, "labels")
    run_bulk(job, out)
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    run_bulk(job, out, engine=never)
    model = timesformer.load_model(source.model)
    with torch.no_grad():
        model.norm.weight[0] += 1
    model.save_pretrained(tmp_path / "other")
    for other in (
        BulkJob(source, inputs[:2], "labels"),
        BulkJob(source, inputs, "labels", top=2),
        BulkJob(source, inputs, "features"),
        BulkJob(ClassifierSource(tmp_path / "other"), inputs, "labels"),
    ):
        with pytest.raises(ValueError, match=r"out\.parquet holds the output for other videos, another model"):
            run_bulk(other, out)
    assert {file: file.stat().st_mtime_ns for file in out.glob("part*")}.items() <= before.items()
    with pytest.raises(ValueError, match="0 videos, top=5: each must be at least 1"):
        run_bulk(BulkJob(source, (), "labels"), tmp_path / "none")


def never(*_: Any) -> Iterator[Any]:
    raise AssertionError("there is nothing left to do")


def test_inputs(data: Path, hanging: Path, tmp_path: Path) -> None:
    videos = find_inputs([data])
    assert len(videos) == 21
    pack(data, tmp_path / "shards")
    packed = find_inputs([tmp_path / "shards"])
    assert len(packed) == 20
    (tmp_path / "list.txt").write_text(f"{videos[1]}\n{videos[2]} some label\n")
    assert find_inputs([tmp_path / "list.txt"]) == videos[1:3]
    assert find_inputs([str(hanging), "gone.mp4", str(videos[3]), str(packed[4])]) == (
        hanging, Path("gone.mp4"), videos[3], packed[4],
    )  # fmt: skip


def test_commands(data: Path, source: ClassifierSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(source.model), tmp_path / "out.parquet"
    assert main(["predict", model, str(data), "--out", str(out), "--top", "3", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"out": str(out), "videos": 21, "errors": 1}
    assert "21 rows, 1 of them with an error" in captured.err
    check_labels(rows(out), find_inputs([data]), source)
    assert main(["embed", model, str(data), "--out", str(tmp_path / "features.parquet")]) == 0
    assert len(rows(tmp_path / "features.parquet")[0]["features"]) == 24
    for arguments, message in (
        (["predict", model, "a.mp4", "--out", "table"], "--out table: must end in .csv or .parquet, or be"),
        (["predict", model, "a.mp4", "--out", "t.parquet", "--timeline"], "timelines are written into a folder"),
        (["predict", model, "a.mp4", "--engine", "ray"], "only with --out FOLDER.parquet"),
        (["predict", model, "a.mp4", "--out", "t.parquet", "--replicas", "2"], "--replicas: only with --engine ray"),
        (["embed", model, str(data), "--out", "f.safetensors", "--engine", "ray"], "only with --out FOLDER.parquet"),
    ):
        assert main(arguments) == 1
        assert message in " ".join(capsys.readouterr().err.split())


def test_several_processes_share_the_parts(data: Path, source: ClassifierSource, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    code = "import sys; from timesformer.evaluation import features; features.PART = 4\n"
    code += "from timesformer.cli import main"
    (tmp_path / "run.py").write_text(f"{code}\nif __name__ == '__main__': sys.exit(main())")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["predict", str(source.model), str(data), "--out", str(out), "--top", "3", "--workers", "1"]
    done = subprocess.run([*torchrun, str(tmp_path / "run.py"), *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("21 rows, 1 of them with an error") == 1
    check_labels(rows(out), find_inputs([data]), source)


def test_without_pyarrow_or_ray(
    data: Path, source: ClassifierSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ["predict", str(source.model), str(data), "--out", str(tmp_path / "out.parquet")]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*command, "--engine", "ray"]) == 1
    assert "pip install 'timesformer[ray]'" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(command) == 1
    assert "pip install 'timesformer[bulk]'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out.parquet").exists()


RAY = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 2**27}


@pytest.fixture
def ray_engine() -> Iterator[Callable[..., bulk.Engine]]:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from timesformer.evaluation.ray_engine import ray_engine

    ray.init(**RAY)
    yield ray_engine
    ray.shutdown()


@pytest.mark.slow
def test_ray_equals_local(
    data: Path, hanging: Path, source: ClassifierSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    ray_engine: Callable[..., bulk.Engine],
) -> None:  # fmt: skip
    pack(data, tmp_path / "shards")
    inputs = (*find_inputs([data])[:10], hanging, *find_inputs([tmp_path / "shards"]), data / "more" / "broken.mp4")
    for want in ("labels", "features"):
        job = BulkJob(source, inputs, want, top=3, time_limit=5)  # type: ignore[arg-type]
        local, ray = tmp_path / f"{want}-local.parquet", tmp_path / f"{want}-ray.parquet"
        monkeypatch.setattr(features, "PART", 8)
        assert run_bulk(job, local) == run_bulk(job, ray, engine=ray_engine())
        assert rows(local) == rows(ray)
        assert len(rows(ray)) == 32
        assert sum(row["error"] is not None for row in rows(ray)) == 2


@pytest.mark.slow
def test_a_ray_job_that_is_killed(
    data: Path, source: ClassifierSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    out = tmp_path / "out.parquet"
    start = f"import ray; ray.init(**{RAY!r})\nfrom timesformer.evaluation.ray_engine import ray_engine\n"
    seen = killed_often(source, data, out, start + "engine = ray_engine()", times=2)
    assert set(seen[0]) < set(seen[1])
    monkeypatch.setattr(features, "PART", 4)
    inputs = find_inputs([data])
    run_bulk(BulkJob(source, inputs, "labels", top=3), out)  # and finished by the other engine
    check_labels(rows(out), inputs, source)
