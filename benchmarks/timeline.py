"""Does a timeline's memory grow with the video? Peak memory and time for a video of minutes, and for one of an hour.

A model of the recipe `scratch`'s size with random weights, clips side by side; each video in a process of its
own. The hour is generated; so is the shorter one, unless it is given.

    python benchmarks/timeline.py [VIDEO]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from decode import write_video
from machine import in_own_process, memory, write_result

import timesformer
from timesformer.evaluation.timeline import timeline
from timesformer.video.preprocessing import Preprocessing


def measure(video: Path) -> dict[str, Any]:
    model = timesformer.create_model("timesformer_small", image_size=64, patch_size=8, num_classes=8)
    model.preprocessing = Preprocessing(8, 4, image_size=64).to_dict()
    classifier = timesformer.VideoClassifier(model)
    started = time.perf_counter()
    found = timeline(classifier, video)
    seconds, length = time.perf_counter() - started, float(found.times[-1, 1])
    return {
        "seconds of video": round(length),
        "clips": len(found.scores),
        "peak memory, mib": round(memory("VmHWM") / 2**20),
        "ms a second of video": round(1000 * seconds / length, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        short, hour = args.video or Path(folder) / "short.mp4", Path(folder) / "hour.mp4"
        if not args.video:
            write_video(short, 180, 144, seconds=234, fps=25)
        write_video(hour, 180, 144, seconds=3600, fps=25)
        found = {"minutes": in_own_process(measure, short), "an hour": in_own_process(measure, hour)}
    peaks = [figures["peak memory, mib"] for figures in found.values()]
    write_result(
        "timeline", {"peak memory of the hour over the minutes": round(peaks[1] / peaks[0], 3), "videos": found}
    )


if __name__ == "__main__":
    main()
