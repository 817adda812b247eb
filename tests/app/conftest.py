"""A small model, a video, and a server of them in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import timesformer
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_video


@dataclass(frozen=True)
class Server:
    """`timesformer serve`, where it listens, and its folder for temporary files."""

    address: str
    process: subprocess.Popen[bytes]
    temporary: Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = timesformer.create_model(
        "timesformer_tiny", embed_dim=24, depth=2, num_heads=3, image_size=32, patch_size=8, num_frames=4, num_classes=3
    )
    model.classes = ("run", "jump", "sit")
    model.preprocessing = Preprocessing(num_frames=4, stride=2, image_size=32).to_dict()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "clip.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (20, 40, 64, 3), dtype=np.uint8), fps=10)
    return path


@pytest.fixture(scope="module")
def server(model: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-m", "timesformer", "serve", str(model), "--samples", str(video.parent)]
    process = subprocess.Popen([*command, "--port", str(port)], env={**os.environ, "TMPDIR": str(temporary)})
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}healthz")
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.5)
        yield Server(address, process, temporary)
    finally:
        process.terminate()
        process.wait(20)
