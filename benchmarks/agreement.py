"""Do the fast kinds of a model still say the same? Top-1 of a trained model on real videos, against the plain one.

Kinds that `timesformer.prepare` makes, on one clip of each video of the test list; `int8` sets its ranges by some
of the training list.

    python benchmarks/agreement.py MODEL --data DIR [--calibrate 64]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from machine import write_result

import timesformer
from timesformer.evaluation.views import load_views, to_clips, view_logits
from timesformer.video.datasets import read_videos

KINDS = [(dtype, "torch") for dtype in ("float32", "bfloat16", "float8", "int8")]
KINDS += [(dtype, "openvino") for dtype in ("bfloat16", "int8")]


def compare(model: str, data: Path, count: int) -> dict[str, Any]:
    classifier = timesformer.VideoClassifier.from_pretrained(model)
    assert isinstance(classifier.model, timesformer.TimeSformer)
    tested, train = read_videos(data, "test"), read_videos(data, "train")
    views = torch.cat([load_views(item.path, classifier.preprocessing) for item in tested.items])
    labels = torch.tensor([item.labels[0] for item in tested.items])
    step = max(1, len(train.items) // count)
    calibration = [
        to_clips(load_views(item.path, classifier.preprocessing), classifier.preprocessing)
        for item in train.items[::step]
    ]
    plain = view_logits(classifier.model, views, classifier.preprocessing).argmax(dim=1)
    found = {"plain, float32": {"top1": _percent(plain == labels)}}
    for dtype, backend in KINDS:
        fast = timesformer.prepare(classifier.model, dtype, backend=backend, calibration=calibration)  # type: ignore[arg-type]
        top = view_logits(fast, views, classifier.preprocessing).argmax(dim=1)
        found[f"{backend}, {dtype}"] = {"top1": _percent(top == labels), "agreement": _percent(top == plain)}
    return {"videos": len(labels), "calibrated on": len(calibration), "percent": found}


def _percent(right: torch.Tensor) -> float:
    return round(100 * float(right.float().mean()), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibrate", type=int, default=64, help="videos, about (default: %(default)s)")
    args = parser.parse_args()
    found = compare(args.model, args.data, args.calibrate)
    write_result("agreement", found, "python benchmarks/agreement.py MODEL --data DIR")


if __name__ == "__main__":
    main()
