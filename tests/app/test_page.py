"""The page in a real browser: Chromium, driven by Playwright, where both are installed."""

from __future__ import annotations

import http.server
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.app.conftest import Server
from timesformer.video.synthetic import write_video

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="no browser is installed")]


@pytest.fixture
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(server: Server, browser: Any) -> Iterator[Any]:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(server.address)
    yield page
    assert not [text for text in complaints if "Content Security Policy" in text], "it needs all that it may do"
    assert all(url.startswith((server.address, "blob:", "data:")) for url in asked), "nothing from elsewhere"


DONE = "document.getElementById('state').hidden"


def wait_for(page: Any, expression: str, seconds: float = 60) -> None:
    """Wait until an expression is true. Playwright's own way evaluates in the page, whose policy forbids it."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(100)


def test_a_sample_is_answered_and_explained(page: Any) -> None:
    page.click("text=clip.mp4")
    wait_for(page, f"document.getElementById('seen').src && {DONE}", 60)
    assert page.locator("#top .row").count() == 3
    scores = [float(text.removesuffix(" %")) for text in page.locator("#top .row span:last-child").all_inner_texts()]
    assert sum(scores) == pytest.approx(100, abs=0.2)
    wait_for(page, "document.getElementById('seen').videoWidth > 0", 20)
    assert page.locator("#curves polyline").count() == 3, "it is longer than two clips"
    box, title = page.locator("#drop").bounding_box(), page.locator("h1").bounding_box()
    assert box["y"] >= title["y"] + title["height"], "nothing lies over the title"


def test_an_own_file_and_then_a_wrong_one(page: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "<b>own.mp4", np.zeros((8, 32, 32, 3), np.uint8), fps=8)
    page.set_input_files("#file", str(tmp_path / "<b>own.mp4"))
    wait_for(page, f"document.getElementById('seen').src && {DONE}", 60)
    assert page.locator("#over").is_hidden(), "one clip is all there is"
    (tmp_path / "notes.txt").write_text("no video")
    page.set_input_files("#file", str(tmp_path / "notes.txt"))
    wait_for(page, "document.getElementById('error').textContent", 60)
    assert "notes.txt" in page.inner_text("#error")
    assert page.locator("#answer").is_hidden()


def test_a_file_that_browsers_do_not_play(page: Any, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "old.avi"), "w") as out:
        stream = out.add_stream("mpeg4", rate=8)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(40):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")))
        out.mux(stream.encode())
    page.set_input_files("#file", str(tmp_path / "old.avi"))
    wait_for(page, f"document.getElementById('seen').src && {DONE}", 60)
    assert page.locator("#video").is_hidden()
    assert page.locator("#unplayed").is_visible()
    wait_for(page, "document.getElementById('seen').videoWidth > 0", 20)
    assert page.inner_text("#most") == "The clip in its middle looks most like"
    assert page.locator("#curves text").all_text_contents()[-2:] == ["time (s)", "score"]


def test_the_film_of_one_video_is_gone_while_the_next_is_looked_at(page: Any, tmp_path: Path) -> None:
    page.click("text=clip.mp4")
    wait_for(page, f"document.getElementById('seen').videoWidth > 0 && {DONE}", 60)
    write_video(tmp_path / "next.mp4", np.zeros((8, 32, 32, 3), np.uint8), fps=8)
    page.route("**/explain*", lambda route: route.abort())
    page.set_input_files("#file", str(tmp_path / "next.mp4"))
    wait_for(page, f"document.getElementById('error').textContent && {DONE}", 60)
    assert page.locator("#top .row").count() == 3
    assert page.evaluate("document.getElementById('seen').videoWidth") == 0, "nothing of the video before"


ATTACK = """async server => {
  const video = new FormData();
  video.append("video", new Blob(["x"]), "a.mp4");
  const asked = {samples: {}, "samples/clip.mp4": {}, predict: {method: "POST", body: video}};
  const answers = [];
  for (const [address, how] of Object.entries(asked)) for (const mode of ["cors", "no-cors"])
    await fetch(server + address, {mode, ...how}).then(async a => answers.push(await a.text()), () => 0);
  const frame = document.createElement("iframe");
  frame.src = server;
  document.body.append(frame);
  await new Promise(done => frame.onload = done);
  return answers.join("");
}"""


class Attack(http.server.BaseHTTPRequestHandler):
    """A page of another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<body>harmless</body>")

    def log_message(self, *_: object) -> None:
        pass


def test_the_page_of_another_site_gets_nothing(server: Server, browser: Any) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Attack) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        page, answers = browser.new_page(), []
        page.on("response", lambda answer: answers.append((answer.url, answer.status)))
        page.goto(f"http://127.0.0.1:{other.server_port}/")
        assert page.evaluate(ATTACK, server.address) == ""
        other.shutdown()
    asked = [status for url, status in answers if url.startswith(server.address)]
    assert asked
    assert set(asked) == {403}, "so it was not at work for it either"
