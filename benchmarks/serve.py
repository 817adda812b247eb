"""The server's throughput and latencies with 8 clients at once, against the model's own speed in one process.

200 requests to `timesformer serve` (one worker) in turn with 200 predictions by the same classifier, round after round.
A request that is refused (503) is asked again after the time that the server names.

    python benchmarks/serve.py [--clients 8] [--requests 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from machine import write_result

import timesformer
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import render, write_video


def make(folder: Path) -> tuple[Path, Path]:
    """A model of the recipe `scratch`'s size, with random weights, and a video of 2 seconds."""
    model = timesformer.create_model("timesformer_small", image_size=64, patch_size=8, num_classes=8)
    model.classes = tuple("abcdefgh")
    model.preprocessing = Preprocessing(8, 4, image_size=64).to_dict()
    model.save_pretrained(folder / "model")
    write_video(folder / "video.mp4", render("motion", 0, np.random.default_rng(0), size=128, num_frames=32), 16)
    return folder / "model", folder / "video.mp4"


def start(model: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "timesformer", "serve", str(model), "--port", str(port)])
    address = f"http://127.0.0.1:{port}/"
    while True:
        try:
            urllib.request.urlopen(f"{address}healthz")
            return process, address
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)


def ask(address: str, content: bytes) -> tuple[float, int]:
    """Seconds until the answer, and how often it was put off."""
    started, put_off = time.perf_counter(), 0
    while True:
        answer = httpx.post(f"{address}predict", files={"video": ("video.mp4", content)}, timeout=300)
        if answer.status_code == 200:
            return time.perf_counter() - started, put_off
        assert answer.status_code == 503, answer.text
        put_off += 1
        time.sleep(float(answer.headers["Retry-After"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, video = make(Path(folder))
        classifier = timesformer.VideoClassifier.from_pretrained(model)
        content = video.read_bytes()
        process, address = start(model)
        served, alone, latencies, put_off = [], [], [], 0
        try:
            with ThreadPoolExecutor(args.clients) as clients:
                for turn in range(1 + args.rounds):
                    started = time.perf_counter()
                    found = list(clients.map(lambda _: ask(address, content), range(args.requests)))
                    between = time.perf_counter()
                    for _ in range(args.requests):
                        classifier.predict(video)
                    if turn:
                        served.append(args.requests / (between - started))
                        alone.append(args.requests / (time.perf_counter() - between))
                        print(f"round {turn}: {served[-1]:.1f} requests a second, {alone[-1]:.1f} predictions")
                        latencies += [seconds for seconds, _ in found]
                        put_off += sum(times for _, times in found)
        finally:
            process.terminate()
            process.wait()
    quantiles = statistics.quantiles(latencies, n=20)
    write_result(
        "serve",
        {
            "clients": args.clients,
            "requests": args.requests * args.rounds,
            "lost": args.requests * args.rounds - len(latencies),
            "put off": put_off,
            "ratios": {
                "served over predicted in one process": round(statistics.median(served) / statistics.median(alone), 3)
            },
            "requests a second": round(statistics.median(served), 1),
            "predictions a second": round(statistics.median(alone), 1),
            "latency, ms": {"median": round(1000 * quantiles[9]), "95 %": round(1000 * quantiles[18])},
        },
    )


if __name__ == "__main__":
    main()
