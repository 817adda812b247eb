"""Samples are regular videos of their folder, and nothing that a link or a pipe leads to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.serving import ask, echo_app, get, serving

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes links and pipes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.mp4").write_bytes(b"secret")
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"a")
    (folder / "b & <b>.mp4").write_bytes(b"b")
    (folder / "link.mp4").symlink_to("a.mp4")
    (folder / "out.mp4").symlink_to("../outside/secret.mp4")
    (folder / "folder.mp4").symlink_to("../outside")
    (folder / "nowhere.mp4").symlink_to("nothing.mp4")
    (folder / "circle.mp4").symlink_to("circle.mp4")
    (folder / ".hidden.mp4").write_bytes(b"hidden")
    (folder / "red\x1b[31m.mp4").write_bytes(b"red")
    (folder / "notes.txt").write_bytes(b"notes")
    (folder / "inner.mp4").mkdir()
    (folder / "device.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.mp4")
    return folder


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    with serving(echo_app(samples=folder)) as port:
        yield port


def test_only_videos_of_the_folder_are_offered(port: int) -> None:
    names = json.loads(ask(port, get("/samples")).content)
    assert names == ["a.mp4", "b & <b>.mp4", "link.mp4"]
    answer = ask(port, get("/samples/a.mp4"))
    assert (answer.content, answer.headers["content-type"]) == (b"a", "video/mp4")
    assert ask(port, get("/samples/link.mp4")).content == b"a"
    assert ask(port, get("/samples/b%20%26%20%3Cb%3E.mp4")).content == b"b"
    refused = [
        "out.mp4", "folder.mp4", "folder.mp4/secret.mp4", "nowhere.mp4", "circle.mp4", ".hidden.mp4", "notes.txt", "..",
        "inner.mp4", "device.mp4", "pipe.mp4", "..%2Foutside%2Fsecret.mp4", "%2Fetc%2Fpasswd", "a.mp4%00", "a.mp4%2F",
    ]  # fmt: skip
    for name in refused:
        answer = ask(port, get(f"/samples/{name}"))
        assert answer.status == 404, name
        assert answer.error


def test_what_changed_meanwhile_is_missing(port: int, folder: Path) -> None:
    (folder / "a.mp4").unlink()
    for change in (
        lambda: None,
        lambda: (folder / "a.mp4").symlink_to("../outside/secret.mp4"),
        lambda: os.mkfifo(folder / "a.mp4"),
        lambda: (folder / "a.mp4").mkdir(),
    ):
        change()
        for name in ("a.mp4", "link.mp4"):
            answer = ask(port, get(f"/samples/{name}"))
            assert (answer.status, answer.error) == (404, "there is no such sample")
        path = folder / "a.mp4"
        if path.is_symlink() or path.exists():
            path.rmdir() if path.is_dir() else path.unlink()
    (folder / "a.mp4").write_bytes(b"again")
    assert ask(port, get("/samples/a.mp4")).content == b"again"
