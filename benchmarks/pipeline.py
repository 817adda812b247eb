"""Does the loader keep up? One training step of a tiny model on generated videos, against what its data takes.

All figures are shares of the training step, measured in turn in one process: below 1, a single loader process is
faster than the model. On a machine whose cores the model takes all, the shares add up.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from machine import interleaved, write_result

from timesformer.training.loop import make_model
from timesformer.training.optimizer import make_optimizer
from timesformer.training.recipe import load_recipe
from timesformer.video.clips import ClipDataset, collate
from timesformer.video.datasets import read_videos
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_dataset
from timesformer.video.transforms import TrainTransform

BATCH = 16


def main() -> None:
    shares = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (64, 240):
            data = write_dataset(Path(folder) / str(size), "motion", train=2 * BATCH, val=0, test=0, size=size)
            shares[f"videos of {size}x{size} px, 32 frames"] = measure(read_videos(data, "train"), Path(folder))
    write_result("pipeline", {"model": "recipe scratch", "batch": BATCH, "share_of_one_training_step": shares})


def measure(videos: VideoList, folder: Path) -> dict[str, float]:
    recipe = load_recipe("scratch", ["data.flip=0"])
    model = make_model(recipe, videos).train()
    optimizer = make_optimizer(model, recipe.optimizer)
    preprocessing, data = Preprocessing(**(model.preprocessing or {})), recipe.data
    low, high = (round(side * preprocessing.image_size) for side in data.short_side)
    transform = TrainTransform(
        preprocessing.image_size, (low, high), data.flip, data.scale, data.rand_augment, data.erasing
    )
    decoded, cached = (
        ClipDataset(videos, preprocessing, transform, seed=0, short_side=high, cache=cache)
        for cache in (None, folder / "frames")
    )

    def load(dataset: ClipDataset) -> object:
        torch.set_num_threads(1)  # as in a loader process
        batch = collate([dataset[0, index] for index in range(BATCH)])
        torch.set_num_threads(threads)
        return batch

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(batch.clips).float().logsumexp(1).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    threads = torch.get_num_threads()
    batch = collate([cached[0, index] for index in range(BATCH)])
    seconds = interleaved({"step": step, "decode": lambda: load(decoded), "cache": lambda: load(cached)})
    return {
        "batch decoded by one process": round(seconds["decode"] / seconds["step"], 3),
        "batch from the cache of frames, one process": round(seconds["cache"] / seconds["step"], 3),
    }


if __name__ == "__main__":
    main()
