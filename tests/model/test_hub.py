"""The hub, as a stand-in on this machine answers: files, none, no right, no network, a cut line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.test_timesformer import make
from timesformer.model import hub
from timesformer.model.tensors import WeightsError
from timesformer.model.weights import convert, load_model


class Hub(BaseHTTPRequestHandler):
    folder: Path
    requests: list[str]

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


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of repositories that a stand-in for the hub serves, its cache apart from the user's own."""
    import huggingface_hub
    from huggingface_hub import constants, file_download

    Hub.folder, Hub.requests = tmp_path / "served", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    plain = file_download.hf_hub_download

    def download(*args: Any, **options: Any) -> str:
        return str(plain(*args, endpoint=endpoint, cache_dir=tmp_path / "cache", **options))

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
