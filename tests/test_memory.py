"""A process that decodes gets no more memory than it may, and what needs more costs its own video only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from timesformer.memory import is_out_of_memory
from timesformer.video.check import check_videos
from timesformer.video.clips import BadVideo, load
from timesformer.video.synthetic import write_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")


class Hungry:
    """Samples: the number as a tensor; for odd ones, after taking a gigabyte."""

    def __init__(self, take: Any) -> None:
        self.take = take

    def __getitem__(self, key: int) -> torch.Tensor:
        if key % 2:
            self.take()
        return torch.tensor(key)

    def failed(self, key: int, reason: str) -> BadVideo:
        return BadVideo(str(key), reason)


@pytest.mark.parametrize(
    "take", [lambda: np.ones(2**27), lambda: torch.ones(2**27, dtype=torch.float64), lambda: bytearray(2**30)]
)
def test_a_video_that_needs_too_much_memory_is_a_bad_one(take: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESFORMER_MAX_WORKER_BYTES", str(2**28))
    samples = list(load(Hungry(take), workers=1, sampler=range(4)))
    assert [sample.item() for sample in samples[::2]] == [0, 2]
    for number, sample in zip((1, 3), samples[1::2], strict=True):
        assert sample.path == str(number)
        assert "memory ran out" in sample.reason
        assert "TIMESFORMER_MAX_WORKER_BYTES" in sample.reason


def test_a_batch_that_needs_too_much_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESFORMER_MAX_WORKER_BYTES", str(2**28))
    batches = load(Hungry(None), workers=1, batch_sampler=[[0, 2]], collate_fn=lambda _: np.ones(2**27))
    with pytest.raises(RuntimeError, match=r"a batch of 2 videos: memory ran out.*TIMESFORMER_MAX_WORKER_BYTES"):
        list(batches)


def test_checking_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video of large frames with little memory; one of small ones is read all the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_video(tmp_path / "a" / "large.mp4", np.zeros((2, 2048, 4096, 3), np.uint8), fps=8)
    write_video(tmp_path / "b" / "small.mp4", np.zeros((8, 32, 32, 3), np.uint8), fps=8)
    monkeypatch.setenv("TIMESFORMER_MAX_WORKER_BYTES", str(2**23))
    report = check_videos(tmp_path, workers=1)
    assert report.readable == 1
    (problem,) = report.problems
    assert problem.path.name == "large.mp4"
    assert "TIMESFORMER_MAX_WORKER_BYTES" in problem.reason


def test_the_limit_counts_from_what_the_process_has() -> None:
    """A process that holds 300 MB already may take 200 MB more, and no 400."""
    program = (
        "from timesformer.memory import limit_memory; first = bytearray(300 * 2**20); limit_memory();"
        "second = bytearray(150 * 2**20)\ntry: third = bytearray(400 * 2**20)\nexcept MemoryError: print('refused')"
    )
    env = {**os.environ, "TIMESFORMER_MAX_WORKER_BYTES": str(200 * 2**20)}
    result = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert result.stdout == "refused\n"


def test_what_counts_as_memory_that_ran_out() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
