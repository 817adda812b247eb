"""The hub, as a stand-in on this machine answers: files, none, no right, no network, a cut line; what is sent there."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants

from tests.model.test_timesformer import make
from timesformer import models
from timesformer.evaluation.evaluate import Evaluation
from timesformer.model import hub
from timesformer.model.tensors import WeightsError
from timesformer.model.weights import convert, load_model
from timesformer.video.items import VideoItem


class Hub(BaseHTTPRequestHandler):
    folder: Path
    requests: list[str]
    large: dict[str, bytes]  # content by its hash, before a commit names it
    private: dict[str, str]

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        owner, repository, *_, name = self.path.split("?")[0].strip("/").split("/")
        self.requests.append(name)
        errors = {"none": (401, "RepoNotFound"), "gated": (403, "GatedRepo")}
        file = self.folder / repository / name
        if owner in errors or not file.exists():
            status, code = errors.get(owner, (404, "EntryNotFound"))
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "first line\nsecond line".splitlines()[0])
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{owner}{len(content)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and owner == "cut" and name.startswith("model"):
            self.wfile.write(content[:100])
            self.connection.close()
        elif body:
            self.wfile.write(content)

    def do_POST(self) -> None:
        """What uploading asks for, in turn: a repository, how to send each file, where large ones go, the commit."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        place = self.path.split("?")[0].strip("/")
        address = f"http://{self.headers['Host']}"
        if self.headers["Authorization"] != "Bearer hf_good":
            self.reply({"error": "Invalid username or password."}, 401)
        elif place == "api/repos/create":
            asked = json.loads(content)
            self.private[asked["name"]] = asked["visibility"]
            (self.folder / asked["name"]).mkdir(parents=True, exist_ok=True)
            self.reply({"url": f"{address}/{asked['organization']}/{asked['name']}"})
        elif place == "api/validate-yaml":
            self.reply({"warnings": [], "errors": []})
        elif "/preupload/" in place:
            names = [file["path"] for file in json.loads(content)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            self.reply({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
        elif place.endswith("/lfs/objects/batch"):
            objects = json.loads(content)["objects"]
            actions = [{"upload": {"href": f"{address}/large/{each['oid']}"}} for each in objects]
            self.reply(
                {"objects": [{**each, "actions": how} for each, how in zip(objects, actions, strict=True)]},
                kind="application/vnd.git-lfs+json",
            )
        elif "/commit/" in place:
            _, _, owner, repository, *_ = place.split("/")
            for line in content.splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    data = base64.b64decode(part["value"]["content"])
                elif part["key"] == "lfsFile":
                    data = self.large[part["value"]["oid"]]
                else:
                    continue
                (self.folder / repository / part["value"]["path"]).write_bytes(data)
            self.reply({"commitUrl": f"{address}/{owner}/{repository}/commit/{'b' * 40}", "commitOid": "b" * 40})
        else:
            self.reply({"error": f"{place} is not known"}, 404)

    def do_PUT(self) -> None:
        self.large[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply({})

    def reply(self, value: Any, status: int = 200, kind: str = "application/json") -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of repositories that a stand-in for the hub serves, its cache apart from the user's own."""
    import huggingface_hub
    from huggingface_hub import file_download

    Hub.folder, Hub.requests, Hub.large, Hub.private = tmp_path / "served", [], {}, {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    plain = file_download.hf_hub_download

    def download(*args: Any, **options: Any) -> str:
        return str(plain(*args, cache_dir=tmp_path / "cache", **options))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    yield Hub.folder
    server.shutdown()
    server.server_close()


def test_models_come_from_the_hub_and_then_from_the_cache(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    model.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", served / "good", "huggingface")
    clip = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(load_model("someone/good")(clip), model(clip))
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    before = len(Hub.requests)
    assert torch.equal(load_model("someone/good")(clip), model(clip))
    assert len(Hub.requests) == before, "without network, from the cache"


def test_pickled_weights_where_there_are_no_others(served: Path, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", served / "old", "huggingface")
    weights = served / "old" / "model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(weights), served / "old" / "pytorch_model.bin")
    weights.unlink()
    assert load_model("someone/old").config.depth == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none/thing", "none/thing: no file or folder here, nor a public repository on http"),
        ("gated/thing", "gated/thing: .* gives it to those alone who were granted access"),
        ("someone/empty", "someone/empty: there is no config.json in this repository"),
        ("cut/good", "cut/good: model.safetensors can't be downloaded"),
    ],
)
def test_each_failure_is_one_clear_line(served: Path, tmp_path: Path, source: str, message: str) -> None:
    make().save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", served / "good", "huggingface")
    with pytest.raises(WeightsError, match=message) as error:
        load_model(source)
    assert "\n" not in str(error.value)


def test_nothing_in_the_cache_and_no_network(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    with pytest.raises(WeightsError, match=r"nobody/nothing: no file or folder here, .* can't be reached"):
        load_model("nobody/nothing")
    assert not Hub.requests


def test_a_model_goes_to_the_hub_and_comes_back(served: Path) -> None:
    model = make()
    model.classes = ("a | b", *(f"class {number}" for number in range(1, model.config.num_classes)))
    address = model.push_to_hub("someone/mine", data="Films of my own.", license="cc-by-4.0", private=True)
    assert address.endswith("/someone/mine")
    assert Hub.private == {"mine": "private"}
    assert {path.name for path in (served / "mine").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    again = load_model("someone/mine")
    clip = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(again(clip), model(clip))
    assert again.classes == model.classes
    card = (served / "mine" / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "cc-by-4.0"
    assert "Films of my own." in text
    assert "- a \\| b" in text


def test_a_baseline_goes_to_the_hub_and_comes_back(served: Path) -> None:
    options = {"width": 8, "depths": (1, 1, 1, 1), "num_classes": 4, "num_frames": 8, "image_size": 32}
    model = models.create("i3d_r50", **options).eval()
    model.push_to_hub("someone/i3d")
    clip = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(models.load("someone/i3d")(clip), model(clip))


def test_a_run_is_pushed_by_the_command_with_what_its_folder_says(served: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = make(num_classes=2)
    model.classes, model.multi_label = ("jump", "wave"), False
    model.save_pretrained(run / "best")
    (run / "recipe.yaml").write_text("epochs: 7\n")
    lines = [{"epoch": n, "step": 10 * n, "loss": 1 / n, "validation_accuracy": 0.5 + n / 10} for n in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = tuple(VideoItem(Path(f"{number}.mp4"), (number % 2,)) for number in range(4))
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]], dtype=np.float32)
    Evaluation(model.classes, items, scores, False, ()).write(run / "evaluation")

    code = (
        "import sys, torch, timesformer, timesformer.cli\n"
        "assert timesformer.cli.main(['push', sys.argv[1], 'someone/run']) == 0\n"
        "model = timesformer.load_model('someone/run')\n"
        "assert torch.equal(model.head.weight, timesformer.load_model(sys.argv[1]).head.weight)\n"
    )
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    about = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    about |= {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code, run], env=about, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{constants.ENDPOINT}/someone/run"]
    assert Hub.private == {"run": "public"}
    card = (served / "run" / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    (result,) = yaml.safe_load(head)["model-index"][0]["results"]
    assert {"type": "top1", "value": 0.75, "name": "top-1 accuracy"} in result["metrics"]
    for part in (
        "epochs: 7", "2 epochs, 20 steps; loss at the end 0.500. Best score in validation: 70.0%.",
        "| top-1 accuracy | 75.0% |", "| jump | 100.0% |", "| wave | 50.0% |", "![confusion matrix](confusion.png)",
        "- wave", "That of the weights is not stated.",
    ):  # fmt: skip
        assert part in text
    assert (served / "run" / "confusion.png").read_bytes() == (run / "evaluation" / "confusion.png").read_bytes()


def test_each_failure_to_upload_is_one_clear_line(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    with pytest.raises(ValueError, match="mine: not the id of a repository, which is owner/name"):
        model.push_to_hub("mine")
    with pytest.raises(ValueError, match=r"someone/a\.\.b: "):
        model.push_to_hub("someone/a..b")
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(PermissionError, match="someone/mine: not uploaded: log in first") as error:
        model.push_to_hub("someone/mine")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    with pytest.raises(ConnectionError, match=r"someone/mine: not uploaded: http.* can't be reached"):
        model.push_to_hub("someone/mine")
    assert not served.exists()
