"""Bulk inference by Ray Data: decoding on CPUs, the model on GPUs where there are any, on one machine or a cluster."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from timesformer.evaluation.bulk import BulkJob, Engine, Row
from timesformer.evaluation.views import Part
from timesformer.predictor import VideoClassifier
from timesformer.video.clips import load_by, loaders
from timesformer.video.preprocessing import Preprocessing

_MOST_TASKS = 10_000  # that Ray keeps account of at a time
_Block = dict[str, Any]  # a row of Ray Data: start and stop of a block of videos, and what became of it, pickled


def ray_engine(replicas: int | None = None) -> Engine:
    """An engine on the cluster of RAY_ADDRESS, or on a Ray of this machine's own.

    Actors are as many as there is work for: up to `BulkJob.workers` that decode, each with a CPU, and `replicas` with a
    model, each with a GPU or else a CPU. What is lost with a machine is done again by others.

    Args:
        replicas: models at a time; by default one for each GPU, or one.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy
    except ImportError as error:
        raise ImportError(f"this engine needs the extra `ray`: pip install 'timesformer[ray]' ({error})") from error

    def engine(job: BulkJob, classifier: VideoClassifier, blocks: Sequence[range]) -> Iterator[tuple[range, list[Row]]]:
        started = not ray.is_initialized()
        if started:
            ray.init(**({} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}))
        try:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            rows = [{"start": block.start, "stop": block.stop} for block in blocks]
            decoded = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_TASKS)).map(
                _Decoder,
                fn_constructor_args=(job, classifier.preprocessing),
                compute=ActorPoolStrategy(min_size=1, max_size=job.workers),
                num_cpus=1,
            )
            found = decoded.map(
                _Model,
                fn_constructor_args=(job,),
                compute=ActorPoolStrategy(min_size=1, max_size=replicas or max(1, gpus)),
                **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
            )
            for row in found.iter_rows():
                yield range(row["start"], row["stop"]), pickle.loads(row["content"])
        finally:
            if started:
                ray.shutdown()

    return engine


class _Decoder:
    """Views of a block of videos, of a long one the first part; decoded in a process of its own, which may be lost."""

    def __init__(self, job: BulkJob, preprocessing: Preprocessing) -> None:
        self.job = job
        # Started afresh: a copy of this process would have Ray's locks, but not its threads.
        self.pool = loaders(job.dataset(preprocessing), workers=1, method="spawn").__enter__()

    def __call__(self, block: _Block) -> _Block:
        numbers = [(number,) for number in range(block["start"], block["stop"])]
        parts = [
            (number, (part.views.numpy(), part.left) if isinstance(part, Part) else part)
            for number, part in load_by(self.pool, numbers, self.job.time_limit)
        ]
        return {**block, "content": pickle.dumps(parts)}


class _Model:
    """Rows of the videos of a block. It decodes what follows the first part of a long video itself."""

    def __init__(self, job: BulkJob) -> None:
        self.job, self.classifier = replace(job, workers=0), job.source.load()  # no copies of a process of Ray's

    def __call__(self, block: _Block) -> _Block:
        parts = [
            (number, Part(torch.from_numpy(part[0]), part[1]) if isinstance(part, tuple) else part)
            for number, part in pickle.loads(block["content"])
        ]
        return {**block, "content": pickle.dumps(self.job.rows(self.classifier, parts))}
