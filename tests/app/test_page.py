"""The page in a real browser: Chromium, driven by Playwright, where both are installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.app.conftest import Server
from timesformer.video.synthetic import write_video

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="no browser is installed")]


@pytest.fixture
def page(server: Server) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.address)
        yield page
        assert all(url.startswith((server.address, "blob:", "data:")) for url in asked), "nothing from elsewhere"
        browser.close()


DONE = "document.getElementById('state').hidden"


def test_a_sample_is_answered_and_explained(page: Any) -> None:
    page.click("text=clip.mp4")
    page.wait_for_function(f"document.getElementById('seen').src && {DONE}", timeout=60_000)
    assert page.locator("#top .row").count() == 3
    scores = [float(text.removesuffix(" %")) for text in page.locator("#top .row span:last-child").all_inner_texts()]
    assert sum(scores) == pytest.approx(100, abs=0.2)
    page.wait_for_function("document.getElementById('seen').videoWidth > 0", timeout=20_000)
    assert page.locator("#curves polyline").count() == 3, "it is longer than two clips"
    box, title = page.locator("#drop").bounding_box(), page.locator("h1").bounding_box()
    assert box["y"] >= title["y"] + title["height"], "nothing lies over the title"


def test_an_own_file_and_then_a_wrong_one(page: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "<b>own.mp4", np.zeros((8, 32, 32, 3), np.uint8), fps=8)
    page.set_input_files("#file", str(tmp_path / "<b>own.mp4"))
    page.wait_for_function(f"document.getElementById('seen').src && {DONE}", timeout=60_000)
    assert page.locator("#over").is_hidden(), "one clip is all there is"
    (tmp_path / "notes.txt").write_text("no video")
    page.set_input_files("#file", str(tmp_path / "notes.txt"))
    page.wait_for_function("document.getElementById('error').textContent", timeout=60_000)
    assert "notes.txt" in page.inner_text("#error")
    assert page.locator("#answer").is_hidden()
