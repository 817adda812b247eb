"""Say what is going on in front of a camera, or in what another program sends, while it comes.

    python label_stream.py MODEL /dev/video0 --format v4l2        # a webcam on Linux; elsewhere avfoundation, dshow
    python label_stream.py MODEL rtsp://camera/stream
    ffmpeg -i … -f matroska - | python label_stream.py MODEL -    # a pipe

A line each quarter of a clip: seconds, the best class and its score.
"""

import argparse
import sys
from collections.abc import Iterator

import av
import numpy as np

import timesformer


def frames(source: str, form: str | None) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3), RGB, as they come."""
    with av.open(sys.stdin.buffer if source == "-" else source, format=form) as video:
        for frame in video.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source", help="device, address or file; - is standard input")
    parser.add_argument("--format", help="FFmpeg's name for the kind of source, where it can't be guessed")
    parser.add_argument("--fps", type=float, default=30, help="frames a second of the source (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="bfloat16 is faster on processors that have it")
    args = parser.parse_args()

    classifier = timesformer.VideoClassifier.from_pretrained(args.model).prepared(args.dtype)
    for number, labels in classifier.stream(frames(args.source, args.format), top=1):
        ((label, score),) = labels
        print(f"{number / args.fps:8.1f} s  {score:6.1%}  {label}", flush=True)


if __name__ == "__main__":
    main()
