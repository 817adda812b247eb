"""What a worker process does for the server: classify and explain videos."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timesformer.memory import limit_memory
from timesformer.workers import JobError, is_unwanted


class ScoresError(Exception):
    """The model gives scores that are not numbers: a fault of its weights, not of a video."""


def make_classifier(
    source: str, options: dict[str, Any], longest: float, threads: int
) -> Callable[[dict[str, Any]], None]:
    """A function for jobs that `do` predict, explain or timeline, of the video at `path`.

    The answer is written to the file `answer`: a process that is frozen while it sends a large result through a pipe
    would block whoever reads it.
    """
    import torch

    from timesformer.class_colours import class_colours
    from timesformer.evaluation.timeline import timeline
    from timesformer.explain.explain import explain, write_explanation
    from timesformer.predictor import VideoClassifier
    from timesformer.video.decode import VideoReader

    torch.set_num_threads(threads)
    classifier = VideoClassifier.from_pretrained(source, **options)
    span = classifier.preprocessing.num_frames * classifier.preprocessing.stride
    limit_memory()  # now that the model is there, whose size is its owner's choice

    def do(job: dict[str, Any]) -> None:
        path, file = Path(job["path"]), Path(job["answer"])
        with VideoReader(path) as video:
            duration, frames = float(video.duration), len(video)
        if not duration <= longest:
            raise JobError(f"the video is {duration:.0f} s long; at most {longest:.0f} s are allowed")
        _stop_if_unwanted()
        if job["do"] == "explain":
            write_explanation(explain(classifier, path, of=job["of"]), file)
            return
        if job["do"] == "timeline":
            scored = timeline(classifier, path, on_clip=lambda done, total: _stop_if_unwanted())
            colours = class_colours(scored.classes)
            answer = {**scored.to_json(job["threshold"]), "video": job["name"]}
            answer["colours"] = [colours[name] for name in scored.classes]
        else:
            labels = classifier.predict(path, top=job["top"])
            top = [{"label": label, "score": score} for label, score in labels]
            answer = {"top": top, "duration": _finite(duration), "clips": frames / span}
        try:
            text = json.dumps(answer, allow_nan=False, separators=(",", ":"))
        except ValueError:
            raise ScoresError("the model gives scores that are not numbers") from None
        file.write_text(text, encoding="ascii")

    return do


def _stop_if_unwanted() -> None:
    if is_unwanted():
        raise JobError("nobody waits for the answer")


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
