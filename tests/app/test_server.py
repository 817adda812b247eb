"""The HTTP API with real worker processes: answers, limits, and decoders that hang or die."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from fastapi.testclient import TestClient

import timesformer
from timesformer.app.pool import Job
from timesformer.app.server import Limits, create_app
from timesformer.cli import main
from timesformer.workers import JobError, Worker, WorkerLost


def make_strange(greeting: str) -> Any:
    """A worker that does what it is told, sleeping and dying too."""

    def do(job: Job) -> Any:
        if job["do"] == "sleep":
            time.sleep(job["seconds"])
        if job["do"] == "die":
            os._exit(9)
        if job["do"] == "fail":
            raise ValueError("not this one")
        return f"{greeting} {os.getpid()}"

    return do


BASE = "http://localhost"


def make_nothing() -> Any:
    raise RuntimeError("no model here")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(make_strange, ("hello",))
    worker.start()
    yield worker
    worker.stop()


def test_a_worker_goes_on_after_a_job_that_failed(worker: Worker) -> None:
    first = worker.run({"do": "greet"}, 10)
    with pytest.raises(JobError, match="not this one"):
        worker.run({"do": "fail"}, 10)
    assert worker.run({"do": "greet"}, 10) == first, "the same process"


@pytest.mark.parametrize("job", [{"do": "sleep", "seconds": 60}, {"do": "die"}])
def test_a_worker_that_hangs_or_dies_is_replaced(worker: Worker, job: Job) -> None:
    first = worker.run({"do": "greet"}, 10)
    started = time.monotonic()
    with pytest.raises(WorkerLost):
        worker.run(job, 0.5)
    assert time.monotonic() - started < 10
    again = worker.run({"do": "greet"}, 10)
    assert again.startswith("hello ")
    assert again != first


def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(JobError, match="no model here"):
        Worker(make_nothing, ()).start()


@pytest.fixture(scope="module")
def client(model: Path, video: Path) -> Iterator[TestClient]:
    limits = Limits(megabytes=0.5, duration=30, seconds=60)
    with TestClient(create_app(str(model), limits=limits, samples=video.parent), BASE) as client:
        yield client


def send(client: TestClient, address: str, content: bytes, name: str = "my film.mp4") -> Any:
    return client.post(address, files={"video": (name, content)})


def leftovers() -> set[Path]:
    """Uploads of any server."""
    return {path for path in Path(tempfile.gettempdir()).glob("timesformer-serve-*/*") if path.is_dir()}


def test_a_video_is_classified_as_by_the_classifier(client: TestClient, model: Path, video: Path) -> None:
    before = leftovers()
    answer = send(client, "/predict?top=2", video.read_bytes())
    assert answer.status_code == 200
    result = answer.json()
    expected = timesformer.VideoClassifier.from_pretrained(model).predict(video, top=2)
    assert [entry["label"] for entry in result["top"]] == [label for label, _ in expected]
    assert [entry["score"] for entry in result["top"]] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert result["duration"] == pytest.approx(2)
    assert result["clips"] == pytest.approx(20 / 8)
    assert leftovers() <= before, "temporary files are gone"


def test_a_video_is_explained(client: TestClient, video: Path, tmp_path: Path) -> None:
    film = send(client, "/explain", video.read_bytes())
    assert film.headers["content-type"] == "video/mp4"
    (tmp_path / "film.mp4").write_bytes(film.content)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 7
    assert send(client, "/explain?format=png&of=jump", video.read_bytes()).content.startswith(b"\x89PNG")
    wrong = send(client, "/explain?of=fly", video.read_bytes())
    assert wrong.status_code == 422
    assert "class 'fly' is not one of the model's" in wrong.json()["error"]


def test_a_timeline(client: TestClient, video: Path) -> None:
    result = send(client, "/timeline?threshold=0.1", video.read_bytes()).json()
    assert len(result["clips"]) == 3
    assert result["classes"] == ["run", "jump", "sit"]


def test_bad_uploads_are_one_clear_error(client: TestClient, video: Path) -> None:
    before = leftovers()
    broken = send(client, "/predict", b"no video at all", "notes.txt")
    assert broken.status_code == 422
    assert broken.json()["error"].startswith("notes.txt: ")
    assert "/tmp" not in broken.json()["error"]
    assert client.post("/predict").status_code == 415
    none = send(client, "/predict?top=0", video.read_bytes())
    assert none.status_code == 422
    assert none.json() == {"error": "top: Input should be greater than or equal to 1, not '0'"}
    assert client.post("/predict", data={"video": "x" * 10_000}).json()["error"].startswith("video: ")
    assert send(client, "/predict", video.read_bytes(), "../../../../etc/passwd").status_code == 200
    assert leftovers() <= before


def test_what_is_too_large_is_refused(client: TestClient) -> None:
    large = send(client, "/predict", bytes(2**20))
    assert large.status_code == 413
    assert large.json() == {"error": "at most 0.5 MB are allowed"}

    def chunks() -> Iterator[bytes]:  # without a length that tells
        yield b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
        for _ in range(64):
            yield bytes(2**14)
        yield b"\r\n--x--\r\n"

    streamed = client.post("/predict", content=chunks(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert streamed.status_code == 413


def test_what_is_too_long_is_refused(model: Path, video: Path) -> None:
    with TestClient(create_app(str(model), limits=Limits(duration=1)), BASE) as client:
        answer = send(client, "/predict", video.read_bytes())
        assert answer.status_code == 422
        assert answer.json()["error"] == "the video is 2 s long; at most 1 s are allowed"


def test_what_takes_too_long_is_ended_and_the_server_goes_on(model: Path, video: Path) -> None:
    with TestClient(create_app(str(model), limits=Limits(seconds=1e-3)), BASE) as client:
        before = leftovers()
        assert send(client, "/explain", video.read_bytes()).status_code == 504
        assert client.get("/healthz").json()["status"] == "ok"
        assert leftovers() <= before


def test_the_page_and_its_samples_need_nothing_from_elsewhere(client: TestClient, video: Path) -> None:
    page = client.get("/").text
    assert "http://www.w3.org/2000/svg" in page
    assert page.replace("http://www.w3.org/2000/svg", "").count("http") == 0
    assert client.get("/samples").json() == ["clip.mp4"]
    assert client.get("/samples/clip.mp4").content == video.read_bytes()
    for name in ("..%2f..%2fetc%2fpasswd", "config.json"):
        assert client.get(f"/samples/{name}").status_code == 404
    schema = client.get("/openapi.json").json()
    assert {"/predict", "/explain", "/healthz"} <= schema["paths"].keys()
    statuses = {"200", "400", "403", "408", "413", "415", "422", "500", "503", "504"}
    assert statuses == schema["paths"]["/predict"]["post"]["responses"].keys()


def test_a_model_that_cannot_be_loaded_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 1
    assert f"error: {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["..", "a\0b.mp4", "$x$.mp4", ".explained.mp4", "x" * 300 + ".mp4", "动作.mp4"])
def test_any_name_will_do(client: TestClient, video: Path, name: str) -> None:
    answer = client.post("timeline", files={"video": (name, video.read_bytes())})
    assert answer.status_code == 200, answer.text
    assert "/" not in answer.json()["video"], "not where the server keeps it"
    assert client.post("explain?format=png", files={"video": (name, video.read_bytes())}).status_code == 200


@pytest.mark.parametrize(("method", "address", "code"), [("GET", "nowhere", 404), ("GET", "predict", 405)])
def test_every_error_is_json_with_an_error(client: TestClient, method: str, address: str, code: int) -> None:
    answer = client.request(method, address)
    assert (answer.status_code, list(answer.json())) == (code, ["error"])


def test_a_fault_of_the_server_is_not_the_clients(video: Path, caplog: pytest.LogCaptureFixture, model: Path) -> None:
    app = create_app(str(model))
    with TestClient(app, BASE, raise_server_exceptions=False) as client:
        app.state.pool._workers[0].stop()
        app.state.pool._workers[0]._arguments = ("nowhere", {}, 10.0, 1)
        answer = client.post("predict", files={"video": ("a.mp4", video.read_bytes())})
    assert answer.status_code == 503
    assert "can't start a worker" in answer.json()["error"]
    assert "no worker can be started" in caplog.text


def test_what_cannot_be_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(model), "--samples=nowhere"]) == 1
    assert "--samples" in capsys.readouterr().err


def test_bounds_are_numbers_above_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", str(model), "--max-megabytes", "nan"])
    assert "'nan' is not a number above 0" in capsys.readouterr().err
