"""What a model makes of the views of many videos: of a long one part by part, so that it does not fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing

import torch
from torch import Tensor, nn

from timesformer.evaluation.protocols import Clips, Protocol
from timesformer.evaluation.views import Part, in_batches, view_parts
from timesformer.video.clips import BadVideo, load
from timesformer.video.decode import VideoError
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing


class ViewDataset:
    """The first part of the views of each video of a list, with its place, or why there is none.

    Args:
        videos, preprocessing, clips, crops, protocol: see `load_views`.
        at_most: views of a part; without, a part is all views.
    """

    def __init__(
        self,
        videos: VideoList,
        preprocessing: Preprocessing,
        clips: Clips,
        crops: int,
        protocol: Protocol,
        at_most: int | None = None,
    ) -> None:
        self.videos, self.preprocessing, self.clips, self.crops = videos, preprocessing, clips, crops
        self.protocol, self.at_most = protocol, at_most

    def __len__(self) -> int:
        return len(self.videos.items)

    def __getitem__(self, index: int) -> tuple[int, Part | BadVideo]:
        path = self.videos.items[index].path
        try:
            with closing(self.parts(index)) as parts:
                return index, next(parts)
        except VideoError as error:
            return index, BadVideo(str(path), str(error))

    def failed(self, index: int, reason: str) -> tuple[int, BadVideo]:
        """What stands for a video whose decoder was lost."""
        return index, BadVideo.lost(self.videos.items[index].path, reason)

    def parts(self, index: int, start: int = 0) -> Generator[Part, None, None]:
        """The parts of a video from one of this number on."""
        return view_parts(
            self.videos.items[index].path, self.preprocessing, self.clips, self.crops,
            at_most=self.at_most, start=start, protocol=self.protocol, num_threads=1,
        )  # fmt: skip


class _LaterParts:
    """The parts of one video by their numbers; asked for in turn, they are read in one pass over it."""

    def __init__(self, dataset: ViewDataset, index: int) -> None:
        self.dataset, self.index = dataset, index
        self.parts: Iterator[Part] = iter(())
        self.number = -1  # of the part that is read next

    def __getitem__(self, number: int) -> Tensor | BadVideo:
        if number != self.number:  # the first that is asked for, or another process was lost at the one before
            self.parts = self.dataset.parts(self.index, start=number)
        self.number = number + 1
        try:
            return next(self.parts).views
        except VideoError as error:
            return BadVideo(str(self.dataset.videos.items[self.index].path), str(error))

    def failed(self, number: int, reason: str) -> BadVideo:
        """What stands for a part whose decoder was lost."""
        return self.dataset.failed(self.index, reason)[1]


def outputs(
    model: nn.Module,
    part_of: Callable[[Tensor], Tensor],
    dataset: ViewDataset,
    first: Mapping[int, Part],
    *,
    batch_size: int,
    workers: int,
    time_limit: float,
) -> dict[int, Tensor | BadVideo]:
    """What a model, or a part of it, gives for all views (V, D) of each video, or why a video has none.

    Args:
        model, part_of, batch_size: see `in_batches`.
        dataset: whose videos.
        first: the first part of each by the video's place. They go through the model together; later ones are read
            now, where there are any.
        workers: 0 decodes later parts in this process, another number in one of their own.
        time_limit: seconds for a part, see `load`.
    """
    preprocessing = dataset.preprocessing
    views = torch.cat([part.views for part in first.values()])
    together = in_batches(model, part_of, views, preprocessing, batch_size)
    of_first = together.split([len(part.views) for part in first.values()])
    found: dict[int, Tensor | BadVideo] = {}
    for (index, part), values in zip(first.items(), of_first, strict=True):
        found[index] = values
        if part.left:
            later = load(
                _LaterParts(dataset, index), sampler=range(1, 1 + part.left),
                workers=min(workers, 1), time_limit=time_limit,
            )  # fmt: skip
            every = [values]
            with closing(later):
                for views in later:
                    if isinstance(views, BadVideo):
                        found[index] = views
                        break
                    every.append(in_batches(model, part_of, views, preprocessing, batch_size))
                else:
                    found[index] = torch.cat(every)
    return found
