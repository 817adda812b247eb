"""A server under mixed load for a while: good clips, broken ones, half requests, clients that leave, floods, idle
uploads, and workers that are killed or frozen.

Starts `timesformer serve` on this machine and watches it. Fails unless: every good answer is that of its own clip;
nothing is answered with a 5xx but 503 and 504, and every error is JSON; /healthz answers within a second throughout;
memory, descriptors and disk use are flat; and the server ends within 10 seconds of being asked to.

    python benchmarks/serve_soak.py [--minutes 20] [--clips FOLDER]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from machine import memory, write_result

import timesformer
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_video

WORKERS, MAX_MEGABYTES, MAX_SECONDS = 2, 8, 30
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'


def make(folder: Path, clips: Path | None) -> tuple[Path, dict[str, tuple[bytes, dict[str, float]]]]:
    """A tiny model, and clips with the answers that it gives to each in this process."""
    torch.manual_seed(0)
    model = timesformer.create_model(
        "timesformer_tiny", image_size=32, patch_size=8, num_frames=4, num_classes=8, embed_dim=24, depth=2, num_heads=3
    )
    torch.nn.init.normal_(model.get_submodule("head").weight)  # so that the answers differ from clip to clip
    model.classes = tuple("abcdefgh")
    model.preprocessing = Preprocessing(4, 2, image_size=32).to_dict()
    model.save_pretrained(folder / "model")
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 256, (1, 6, 8, 3), dtype=np.uint8)
        frames = np.kron(np.repeat(pixels, 12, 0), np.ones((1, 8, 8, 1), np.uint8))
        write_video(folder / f"{seed}.mp4", frames, 8)
    classifier = timesformer.VideoClassifier.from_pretrained(folder / "model")
    files = sorted(folder.glob("*.mp4"))
    if clips:
        files += [path for path in sorted(clips.iterdir()) if path.is_file() and path.stat().st_size < 2**20][:20]
    answers = {}
    for file in files:
        try:
            answers[file.name] = file.read_bytes(), dict(classifier.predict(file, top=8))
        except Exception as error:
            print(f"left out: {file.name}: {error}")
    return folder / "model", answers


class Soak:
    """The load, and what came of it."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], clips: dict[str, tuple[bytes, dict[str, float]]]):
        self.port, self.process, self.clips = port, process, clips
        self.address = f"http://127.0.0.1:{port}/"
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []
        self.client = httpx.Client(timeout=600, headers={"Connection": "close"}, limits=httpx.Limits())
        self.ended = threading.Event()

    def forever(self, do: Callable[[random.Random], None], seed: int, pause: float) -> threading.Thread:
        def repeat() -> None:
            chance = random.Random(seed)
            while not self.ended.wait(pause * chance.uniform(0.5, 1.5)):
                try:
                    do(chance)
                except (OSError, httpx.TransportError) as error:
                    self.statuses[f"{do.__name__}: {type(error).__name__}"] += 1
                except Exception as error:
                    self.faults.append(f"{do.__name__}: {type(error).__name__}: {error}")

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        return thread

    def check(self, kind: str, answer: httpx.Response) -> bool:
        """Whether it is a good answer; what must not be is noted."""
        self.statuses[f"{kind}: {answer.status_code}"] += 1
        if answer.status_code == 200:
            return True
        if answer.status_code >= 500 and answer.status_code not in (503, 504):
            self.faults.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
        if list(answer.json()) != ["error"]:
            self.faults.append(f"{kind}: {answer.text[:200]} is not as every error")
        return False

    def post(self, action: str, name: str, content: bytes) -> httpx.Response:
        return self.client.post(self.address + action, files={"video": (name, content)})

    def good(self, chance: random.Random) -> None:
        name = chance.choice(list(self.clips))
        content, expected = self.clips[name]
        answer = self.post("predict?top=8", name, content)
        if self.check("good", answer):
            scores = {entry["label"]: entry["score"] for entry in answer.json()["top"]}
            if max(abs(scores[label] - score) for label, score in expected.items()) > 1e-4:
                self.faults.append(f"good: the answer to {name} is that of another clip: {scores}, not {expected}")

    def others(self, chance: random.Random) -> None:
        name = chance.choice(list(self.clips))
        action = chance.choice(["timeline", "explain?format=png", "explain?format=mp4", "predict?top=x", "nowhere"])
        self.check(action, self.post(action, name, self.clips[name][0]))

    def broken(self, chance: random.Random) -> None:
        content = bytearray(self.clips[chance.choice(list(self.clips))][0])
        for _ in range(20):
            content[chance.randrange(len(content))] = chance.randrange(256)
        name = chance.choice(["a.mp4", "<b>\x1b[31m.mp4", "", "動.mp4"]) or "x"
        self.check("broken", self.post("predict", name, bytes(content[: chance.randrange(1, len(content))])))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def half(self, chance: random.Random) -> None:
        with self.connect() as connection:
            connection.sendall(HEAD[: chance.randrange(len(HEAD))])
            self.ended.wait(chance.uniform(0, 3))

    def leaver(self, chance: random.Random) -> None:
        content = PART + self.clips[chance.choice(list(self.clips))][0] + b"\r\n--x--\r\n"
        with self.connect() as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            self.ended.wait(chance.uniform(0, 0.2))

    def idle(self, chance: random.Random) -> None:
        with self.connect() as connection:
            connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + PART + bytes(chance.randrange(500_000)))
            connection.settimeout(60)
            with suppress(OSError):
                connection.recv(1000)

    def flood(self, chance: random.Random) -> None:
        connections = []
        try:
            for _ in range(700):
                connections.append(self.connect())
                connections[-1].sendall(b"GET /healthz HTTP/1.1\r\nHos")
            self.ended.wait(chance.uniform(0, 2))
        finally:
            for connection in connections:
                connection.close()

    def large(self, chance: random.Random) -> None:
        self.check("large", self.post("predict", "large.mp4", bytes((MAX_MEGABYTES + 1) * 2**20)))

    def kill(self, chance: random.Random) -> None:
        workers = workers_of(self.process.pid)
        if workers:
            number = chance.choice([signal.SIGKILL, signal.SIGSTOP])
            os.kill(chance.choice(workers), number)
            self.statuses[f"workers: {number.name}"] += 1


def workers_of(process: int) -> list[int]:
    """Its worker processes, by whichever of its threads they were started."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and b"spawn_main" in (folder / "cmdline").read_bytes():
                parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
                if int(parent) == process:
                    found.append(int(folder.name))
    return found


def watch_health(port: int, ended: Any, seconds: Any) -> None:
    """Ask /healthz again and again, in a process that does nothing else; its times, or -1 for a failure."""
    while not ended.wait(0.3):
        started = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                good = connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        except OSError:
            good = False
        seconds.put(time.perf_counter() - started if good else -1.0)


def state(process: int, folder: Path) -> dict[str, float]:
    """What the server holds now: memory in MB, descriptors, MB of uploads."""
    megabytes = 0.0
    for each in workers_of(process):
        with suppress(OSError, StopIteration):
            megabytes = max(megabytes, memory("VmRSS", each) / 2**20)
    sizes = 0
    for inner, _, files in os.walk(folder):  # of which some vanish meanwhile
        for file in files:
            with suppress(OSError):
                sizes += Path(inner, file).stat().st_size
    return {
        "server, MB": round(memory("VmRSS", process) / 2**20, 1),
        "largest worker, MB": round(megabytes, 1),
        "descriptors": len(os.listdir(f"/proc/{process}/fd")),
        "uploads, MB": round(sizes / 2**20, 2),
    }


def run(port: int, process: subprocess.Popen[bytes], folder: Path, clips: Any, minutes: float) -> dict[str, Any]:
    soak = Soak(port, process, clips)
    load: list[tuple[Callable[[random.Random], None], int, float]] = [
        (soak.good, 4, 0.2), (soak.others, 1, 1), (soak.broken, 2, 0.3), (soak.half, 8, 0.5), (soak.leaver, 2, 0.5),
        (soak.idle, 2, 20), (soak.flood, 1, 20), (soak.large, 1, 15), (soak.kill, 1, 30),
    ]  # fmt: skip
    threads = [
        soak.forever(do, 100 * number + copy, pause)
        for number, (do, copies, pause) in enumerate(load)
        for copy in range(copies)
    ]
    spawn = multiprocessing.get_context("spawn")
    times, health_ended = spawn.Queue(), spawn.Event()
    health = spawn.Process(target=watch_health, args=(port, health_ended, times), daemon=True)
    health.start()
    states, healthz, end = [], [], time.monotonic() + 60 * minutes
    while time.monotonic() < end and process.poll() is None:
        time.sleep(5)
        states.append(state(process.pid, folder))
        while not times.empty():
            healthz.append(times.get())
    health_ended.set()
    soak.ended.set()
    for thread in threads:
        thread.join(120)
    if process.poll() is not None:
        soak.faults.append(f"the server ended with {process.returncode}")
        return {"faults": soak.faults, "answers": dict(sorted(soak.statuses.items()))}
    half = len(states) // 2
    early, late = states[half // 2 : half], states[half:]
    peaks = {name: (max(s[name] for s in early), max(s[name] for s in late)) for name in states[0]}
    allowed = {"server, MB": 32, "largest worker, MB": 64, "descriptors": 200, "uploads, MB": 2 * MAX_MEGABYTES}
    for name, (before, after) in peaks.items():
        if after > before + allowed[name]:
            soak.faults.append(f"{name} grows: at most {before} in the second quarter, {after} in the second half")
    if min(healthz) < 0 or max(healthz) >= 1:
        soak.faults.append(f"/healthz took {max(healthz):.2f} s, and failed {healthz.count(-1.0)} times")
    if not any(key == "good: 200" for key in soak.statuses):
        soak.faults.append("no good clip was answered")
    return {
        "minutes": minutes,
        "answers": dict(sorted(soak.statuses.items())),
        "at most, in the second quarter and the second half": peaks,
        "healthz, ms": {
            "times": len(healthz),
            "median": round(1000 * statistics.median(healthz), 1),
            "at most": round(1000 * max(healthz), 1),
        },
        "faults": soak.faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="real clips to send as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, clips = make(folder, args.clips)
        uploads, log = folder / "uploads", folder / "log"
        uploads.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable, "-m", "timesformer", "serve", str(model), "--port", str(port), "--workers", str(WORKERS),
            "--max-megabytes", str(MAX_MEGABYTES), "--max-seconds", str(MAX_SECONDS), "--max-connections", "300",
        ]  # fmt: skip
        with log.open("wb") as lines:
            environment = {**os.environ, "TMPDIR": str(uploads)}
            process = subprocess.Popen(command, stdout=lines, stderr=lines, env=environment)
        try:
            while httpx_down(port):
                assert process.poll() is None, log.read_text()
                time.sleep(0.5)
            result = run(port, process, uploads, clips, args.minutes)
            started = time.monotonic()
            process.terminate()
            process.wait(60)
            result["seconds to stop"] = round(time.monotonic() - started, 1)
            result["log, kB"] = round(log.stat().st_size / 1000, 1)
            if result["seconds to stop"] > 10:
                result["faults"].append("it takes more than 10 s to stop")
            if log.stat().st_size > 2**20:
                result["faults"].append("the log is larger than 1 MB")
            if left := [str(path) for path in uploads.iterdir() if path.name.startswith("timesformer-")]:
                result["faults"].append(f"left over: {left}")
        finally:
            process.kill()
            process.wait()
        print(log.read_text(errors="replace")[-3000:])
    faults, result["faults"] = result["faults"], len(result["faults"])
    for fault in faults[:20]:
        print(f"fault: {fault}")
    write_result("serve_soak", json.loads(json.dumps(result)))
    sys.exit(1 if faults else 0)


def httpx_down(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code != 200
    except httpx.TransportError:
        return True


if __name__ == "__main__":
    main()
