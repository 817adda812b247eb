"""A server under whatever is sent to it: real and broken files, and more requests than it can do at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import Server

pytestmark = pytest.mark.slow


def resident_mb(server: Server) -> float:
    """Memory of the server and of its worker."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in [pid, *children]]
    return sum(pages) * 4096 / 2**20


def uploads(server: Server) -> list[Path]:
    """What the server keeps in its folder for temporary files, beside the name of the owner."""
    return [path for path in server.temporary.rglob("*") if path.is_dir() and path.parent != server.temporary]


def post(server: Server, path: Path, action: str = "predict") -> httpx.Response:
    with path.open("rb") as file:
        return httpx.post(f"{server.address}{action}", files={"video": (path.name, file)}, timeout=300)


def test_every_real_file_is_answered_or_refused_with_a_reason(server: Server, shared_data: Path) -> None:
    clips = shared_data / "clips"
    files = sorted(path for folder in (clips, clips / "derived") for path in folder.iterdir() if path.is_file())
    assert len(files) > 50
    memory, codes = [resident_mb(server)], []
    for _ in range(3):
        for path in files:
            answer = post(server, path)
            codes.append(answer.status_code)
            assert answer.status_code == 200 or 400 <= answer.status_code < 500, f"{path}: {answer.text}"
            if answer.status_code != 200:
                assert path.name in answer.json()["error"] or answer.status_code == 413
        memory.append(resident_mb(server))
    assert httpx.get(f"{server.address}healthz").status_code == 200
    assert not uploads(server), "no temporary files are left"
    print(f"{codes.count(200)} answered, {len(codes) - codes.count(200)} refused; MB before and after rounds: {memory}")
    assert codes.count(200) > len(codes) / 2
    assert memory[3] < memory[1] + 32, "memory does not grow"


@pytest.mark.parametrize("clients", [8, 24])
def test_no_request_of_a_crowd_is_lost(server: Server, video: Path, clients: int) -> None:
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda _: post(server, video), range(200)))
    codes = [answer.status_code for answer in answers]
    assert set(codes) == ({200} if clients == 8 else {200, 503}), "eight may wait"
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status_code == 503)
    assert all(len(answer.json()["top"]) == 3 for answer in answers if answer.status_code == 200)
    assert not uploads(server)
