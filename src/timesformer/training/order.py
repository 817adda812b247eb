"""Which videos make up each step, and which of them are this process's; their clips, as batches."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from timesformer.training.recipe import Recipe
from timesformer.video.clips import Batch, ClipDataset, collate, load
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.transforms import TrainTransform


@dataclass(frozen=True)
class StepOrder:
    """Which videos make up each step: every epoch a new order of all, its last batch smaller if need be.

    A step's batch is cut into micro-batches, which are dealt to the processes in turn. Their size does not depend
    on the number of processes, unless it is left open: then it is an equal share of the batch for each.

    Attributes:
        num_videos: how many there are.
        batch_size: videos of a step, on all processes together.
        micro_batch_size: videos that go through a model at a time, if it is given.
        seed: of the order.
        epochs: passes over the videos.
        rank, world_size: this process, and how many there are.
    """

    num_videos: int
    batch_size: int
    micro_batch_size: int | None
    seed: int
    epochs: int
    rank: int = 0
    world_size: int = 1

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(self.num_videos / self.batch_size)

    def turns(self, step: int) -> list[int | None]:
        """The places within a step of this process's micro-batches; None for the last turn where there is none left.

        All processes have as many turns.
        """
        count = math.ceil(self._size(step) / self._micro(self._size(step)))
        places = range(self.rank, self.rank + self.world_size * math.ceil(count / self.world_size), self.world_size)
        return [place if place < count else None for place in places]

    def micro_batches(self, epoch: int, step: int) -> Iterator[list[tuple[int, int]]]:
        """The keys (epoch, video) of every micro-batch of this process from a step of an epoch on."""
        for later in range(epoch, self.epochs):
            videos = np.random.default_rng([self.seed, later]).permutation(self.num_videos)
            for number in range(step if later == epoch else 0, self.steps):
                first = number * self.batch_size
                batch = [(later, int(video)) for video in videos[first : first + self.batch_size]]
                micro = self._micro(len(batch))
                for place in self.turns(number):
                    if place is not None:
                        yield batch[place * micro : (place + 1) * micro]

    def _size(self, step: int) -> int:
        return min(self.batch_size, self.num_videos - step * self.batch_size)

    def _micro(self, size: int) -> int:
        return self.micro_batch_size or math.ceil(size / self.world_size)


def load_batches(
    videos: VideoList, recipe: Recipe, preprocessing: Preprocessing, keys: Iterator[list[tuple[int, int]]]
) -> Generator[Batch, None, None]:
    """Random, augmented clips of videos as a recipe has them, made by worker processes: a batch for each of `keys`."""
    data = recipe.data
    low, high = (round(side * preprocessing.image_size) for side in data.short_side)
    transform = TrainTransform(
        preprocessing.image_size,
        (low, high),
        data.flip,
        data.scale,
        data.rand_augment,
        data.erasing,
    )
    dataset = ClipDataset(
        videos,
        preprocessing,
        transform,
        seed=recipe.seed,
        short_side=high,
        trim=data.trim,
        cache=data.cache_folder(),
    )
    return load(dataset, workers=data.workers, batch_sampler=keys, collate_fn=collate)


def moves(clips: Tensor) -> bool:
    """Whether any of some clips (B, 3, F, H, W) has frames that differ; clips of one frame are left out of this."""
    return clips.shape[2] < 2 or not bool((clips == clips[:, :, :1]).all())
