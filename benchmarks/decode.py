"""Decoding the frames of a clip against other libraries: 8 frames spread over a video, every one exact.

Two H.264 files that are made for it: 10 s of 340 x 256, and 60 s of 720p, with usual keyframes. Frames are decoded and
converted to RGB at full size by each; libraries that are not installed are left out. All in turn in this process. The
others: `pip install decord opencv-python-headless "torchcodec==0.13.*"`, the last beside an FFmpeg of the system's.

    python benchmarks/decode.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from machine import interleaved, write_result
from numpy.typing import NDArray

from timesformer.video.decode import VideoReader

Frames = NDArray[np.uint8]


def write_video(path: Path, width: int, height: int, seconds: int, fps: int = 30) -> int:
    """A moving, textured scene; the number of frames is written into a corner as bits."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (height // 8 + 64, width // 8 + 64, 3), dtype=np.uint8)
    scene = scene.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * fps):
            x, y = number % 300, number // 2 % 200
            frame = scene[y : y + height, x : x + width].copy()
            for bit in range(12):
                frame[:16, 16 * bit : 16 * bit + 16] = 255 * (number >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return seconds * fps


def numbers(frames: Frames) -> list[int]:
    """What is written into the corners."""
    return [
        sum(int(frame[4:12, 16 * bit + 4 : 16 * bit + 12].mean() > 127) << bit for bit in range(12)) for frame in frames
    ]


def ours(path: Path, indices: list[int]) -> Frames:
    with VideoReader(path) as video:
        return video.frames(np.array(indices)).numpy()


def plain_pyav(path: Path, indices: list[int]) -> Frames:
    """What a user of PyAV writes first: decode all, keep some."""
    wanted, found = set(indices), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                found.append(frame.to_ndarray(format="rgb24"))
            if number >= indices[-1]:
                break
    return np.stack(found)


def opencv(path: Path, indices: list[int]) -> Frames:
    import cv2

    capture, found = cv2.VideoCapture(str(path)), []
    for index in indices:
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        found.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    return np.stack(found)


def decord(path: Path, indices: list[int]) -> Frames:
    import decord as library

    frames: Frames = library.VideoReader(str(path)).get_batch(indices).asnumpy()
    return frames


def torchcodec(path: Path, indices: list[int], seek_mode: Literal["exact", "approximate"] = "exact") -> Frames:
    from torchcodec.decoders import VideoDecoder

    threads = 0  # as many as FFmpeg likes, as with the others; by itself it takes one
    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode=seek_mode)
    frames: Frames = decoder.get_frames_at(indices=indices).data.numpy()
    return frames


LIBRARIES: dict[str, tuple[str, Callable[[Path, list[int]], Frames]]] = {
    "ours": ("timesformer", ours),
    "PyAV, all frames": ("av", plain_pyav),
    "OpenCV": ("cv2", opencv),
    "decord": ("decord", decord),
    "torchcodec": ("torchcodec", torchcodec),
    "torchcodec, approximate": ("torchcodec", partial(torchcodec, seek_mode="approximate")),
}


def compare(path: Path, indices: list[int], rounds: int) -> dict[str, Any]:
    jobs, exact, failed = {}, {}, {}
    for name, (module, read) in LIBRARIES.items():
        if not find_spec(module):
            failed[name] = "not installed"
            continue
        try:
            exact[name] = numbers(read(path, indices)) == indices
        except Exception:  # a library that can't be loaded here must not end the others
            failed[name] = "could not be loaded"
            continue
        jobs[name] = lambda read=read: read(path, indices)
    seconds = interleaved(jobs, rounds=rounds, warm_up=1)
    others = {name: value for name, value in seconds.items() if name != "ours"}
    return {
        "speed over the best other": round(min(others.values()) / seconds["ours"], 3),
        "milliseconds": {name: round(1000 * value, 1) for name, value in seconds.items()},
        "exact": exact,
        "left_out": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short.mp4", Path(folder) / "long.mp4"
        write_video(short, 340, 256, 10)
        found["8 frames at stride 32 of 10 s, 340x256"] = compare(short, [22 + 32 * i for i in range(8)], args.rounds)
        frames = write_video(long, 1280, 720, 60)
        spread = [round((i + 0.5) * frames / 8) for i in range(8)]
        found["8 frames spread over 60 s, 1280x720"] = compare(long, spread, args.rounds)
        middle = [frames // 2 - 128 + 32 * i for i in range(8)]
        found["8 frames at stride 32 of 60 s, 1280x720"] = compare(long, middle, args.rounds)
    write_result("decode", found)


if __name__ == "__main__":
    main()
