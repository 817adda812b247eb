"""VideoClassifier: files in, labelled scores out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from timesformer.evaluation.protocols import PROTOCOLS, Clips, NotFiniteError
from timesformer.evaluation.views import load_views, to_clips, usual_batch, view_logits, view_parts, views_of_frames
from timesformer.model.base import VideoModel
from timesformer.model.inference import Backend, Dtype, prepare
from timesformer.model.timesformer import TimeSformer
from timesformer.models import load
from timesformer.ranges import shown
from timesformer.video import sampling
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.shards import VideoPath
from timesformer.video.transforms import center_crop

logger = logging.getLogger(__name__)

Frames = NDArray[np.uint8] | torch.Tensor
Labels = list[tuple[str, float]]
# How videos are cut into clips, beside the sizes, which are the model's own options.
CUTTING = tuple(each.name for each in fields(Preprocessing) if each.name not in ("num_frames", "image_size"))


class VideoClassifier:
    """A model together with what it takes to go from a video file to class names.

    Args:
        model: a model with `preprocessing`, as `load_model` returns it for a model that was trained here.
        preprocessing: how videos become its input. Without, it is what the model says; where it says nothing, clips of
            its size at a stride of 32 frames, and a warning is logged.
        device: where to compute; a GPU when there is one, by default.

    Raises:
        ValueError: the model has no head.
    """

    def __init__(
        self,
        model: VideoModel,
        *,
        preprocessing: Preprocessing | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if not model.config.num_classes:
            raise ValueError("num_classes=0: a model without a head can't classify; load it with num_classes=…")
        if preprocessing is None:
            preprocessing = _preprocessing_of(model)
        self.preprocessing = preprocessing
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).eval()
        self.classes = model.classes or tuple(str(c) for c in range(model.config.num_classes))

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str | torch.device | None = None, **overrides: Any
    ) -> VideoClassifier:
        """A classifier from whatever `timesformer.load_model` takes, or a trained baseline.

        Args:
            source: the model.
            device: where to compute; a GPU when there is one, by default.
            overrides: options of the model, as `timesformer.load_model` takes them, and of how videos are cut into
                clips: `stride`, `sampling` and the others of `Preprocessing`.
        """
        cut = {name: overrides.pop(name) for name in CUTTING if name in overrides}
        model = load(source, **overrides)
        if not (cut and model.config.num_classes):
            return cls(model, device=device)
        preprocessing = _preprocessing_of(model, cut)
        model.preprocessing = preprocessing.to_dict()
        return cls(model, preprocessing=preprocessing, device=device)

    def prepared(
        self, dtype: Dtype = "float32", *, backend: Backend = "torch", calibration: Iterable[str | VideoPath] = ()
    ) -> VideoClassifier:
        """A classifier whose model is rewritten for speed: see `timesformer.prepare`.

        Args:
            dtype, backend: as `timesformer.prepare` takes them.
            calibration: for `int8`, a few dozen videos of the kind to be classified; one clip of each is looked at.

        Raises:
            ValueError: the model is no TimeSformer, or as `timesformer.prepare`.
            VideoError: a video can't be read.
        """
        if not isinstance(self.model, TimeSformer):
            raise ValueError(f"dtype={dtype!r}, backend={backend!r}: for a TimeSformer, not {self.model.architecture}")
        clips = [to_clips(load_views(video, self.preprocessing), self.preprocessing) for video in calibration]
        model = prepare(self.model, dtype, backend=backend, calibration=clips)
        return VideoClassifier(model, preprocessing=self.preprocessing, device=self.device)

    def scores(self, video: str | VideoPath | Frames, *, clips: Clips = 1, crops: int = 1) -> torch.Tensor:
        """Scores (classes,) of a video in [0, 1], the mean over its views; see `predict`."""
        batch_size = usual_batch(self.preprocessing)
        in_memory = isinstance(video, np.ndarray | torch.Tensor)
        if isinstance(video, np.ndarray | torch.Tensor):
            all_views = iter((views_of_frames(_checked_frames(video), self.preprocessing, clips, crops),))
        else:
            parts = view_parts(video, self.preprocessing, clips, crops, at_most=batch_size)
            all_views = (part.views for part in parts)
        logits = torch.cat(
            [view_logits(self.model, views, self.preprocessing, batch_size=batch_size) for views in all_views]
        )
        try:
            return PROTOCOLS["paper"].scores(logits, multi_label=self.model.multi_label)
        except NotFiniteError as error:
            raise NotFiniteError(f"{'frames' if in_memory else video}: {error}") from None

    @overload  # a text is a sequence of texts too, but no list
    def predict(  # type: ignore[overload-overlap]
        self, video: str | VideoPath | Frames, *, top: int = 5, clips: Clips = 1, crops: int = 1
    ) -> Labels: ...

    @overload
    def predict(
        self, video: Sequence[str | VideoPath | Frames], *, top: int = 5, clips: Clips = 1, crops: int = 1
    ) -> list[Labels]: ...

    def predict(
        self,
        video: str | VideoPath | Frames | Sequence[str | VideoPath | Frames],
        *,
        top: int = 5,
        clips: Clips = 1,
        crops: int = 1,
    ) -> Labels | list[Labels]:
        """The classes of highest score, best first.

        Args:
            video: a video file, GIF, or folder of frame images; or frames, uint8 (F, H, W, 3) RGB; or a list of such
                videos, for a list of answers.
            top: how many classes; fewer come back where the model has fewer.
            clips: clips to average over, spread evenly over the video; `cover` tiles all of it.
            crops: 1 (centre) or 3 along the longer side.

        Returns:
            (class name, score) pairs; the scores of one-label models sum to 1 over all classes. For a list, a list.

        Raises:
            VideoError: a video can't be read; the message names the file and says why.
            ValueError: top, clips or crops are out of range, frames of another type or shape, or the model's outputs
                are not finite.
        """
        if top < 1:
            raise ValueError(f"top={top} must be at least 1")
        if isinstance(video, list | tuple):
            return [self.best(self.scores(each, clips=clips, crops=crops), top) for each in video]
        return self.best(self.scores(video, clips=clips, crops=crops), top)  # type: ignore[arg-type]

    def stream(
        self, frames: Iterable[NDArray[np.uint8] | torch.Tensor], *, hop: int | None = None, top: int = 5
    ) -> Iterator[tuple[int, list[tuple[str, float]]]]:
        """Labels of what a camera or a pipe brings, as it comes: the latest clip is classified every `hop` frames.

        The first label comes as soon as a clip's span is full, and each later one as soon as its last frame is there;
        no more frames are kept than a span has. Where the frames end before the first span is full, what there is
        is taken for a clip.

        Args:
            frames: uint8 (H, W, 3) RGB, of any one size, at about the rate of the videos that the model knows.
            hop: frames from one label to the next; by default a quarter of a clip's span.
            top: how many classes.

        Yields:
            The number of frames seen so far, and (class name, score) pairs, best first.

        Raises:
            ValueError: a frame of another type or shape; hop or top below 1.
        """
        span = max(1, round(self.preprocessing.num_frames * self.preprocessing.stride))
        hop = max(1, span // 4) if hop is None else hop
        if hop < 1 or top < 1:
            raise ValueError(f"hop={hop}, top={top}: each must be at least 1")
        kept: deque[torch.Tensor] = deque(maxlen=span)
        number = 0
        for number, frame in enumerate(frames, 1):
            kept.append(self._small(frame))
            if number >= span and (number - span) % hop == 0:
                yield number, self._label(kept, top)
        if 0 < number < span:
            yield number, self._label(kept, top)

    def _small(self, frame: NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
        """The middle of a frame at the model's size."""
        # A copy, as PyTorch takes no array that runs backwards (such as BGR as RGB), and warns of read-only ones.
        picture = frame if isinstance(frame, torch.Tensor) else torch.from_numpy(np.array(frame, order="C"))
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise ValueError(f"frame of {picture.dtype}, {tuple(picture.shape)}: expected uint8 (H, W, 3)")
        small = center_crop(self.preprocessing.resize(picture[None]), self.preprocessing.image_size)
        return self.preprocessing.colours(small)[0].clone()

    def _label(self, kept: Sequence[torch.Tensor], top: int) -> list[tuple[str, float]]:
        indices = sampling.centre_clip(len(kept), self.preprocessing.num_frames, self.preprocessing.stride)
        logits = view_logits(self.model, torch.stack([kept[index] for index in indices])[None], self.preprocessing)
        return self.best(PROTOCOLS["paper"].scores(logits, multi_label=self.model.multi_label), top)

    def best(self, scores: torch.Tensor, top: int) -> list[tuple[str, float]]:
        """The classes of highest score (classes,), best first."""
        values, indices = scores.topk(min(top, len(self.classes)))
        return [(self.classes[index], score) for index, score in zip(indices.tolist(), values.tolist(), strict=True)]


@dataclass(frozen=True)
class ClassifierSource:
    """How a process gets a classifier, for jobs of several processes.

    Attributes:
        model, classes, options: as `VideoClassifier.from_pretrained` takes them.
        dtype, backend: what the model is rewritten for; as it is, by default.
        calibration: videos that ranges of 8 bits are taken from.
    """

    model: str | Path
    classes: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: Dtype | None = None
    backend: Backend | None = None
    calibration: tuple[VideoPath, ...] = ()

    def load(self) -> VideoClassifier:
        """The classifier, rewritten for speed if it is asked for."""
        return self.rewritten(self.plain())

    def plain(self) -> VideoClassifier:
        """The classifier as it is stored."""
        return VideoClassifier.from_pretrained(self.model, classes=self.classes, **self.options)

    def rewritten(self, classifier: VideoClassifier) -> VideoClassifier:
        """The same, rewritten for speed if it is asked for."""
        if not (self.dtype or self.backend):
            return classifier
        return classifier.prepared(
            self.dtype or "float32", backend=self.backend or "torch", calibration=self.calibration
        )


def _checked_frames(frames: Frames) -> torch.Tensor:
    """Frames as a tensor on the CPU; ValueError for another type or shape."""
    if isinstance(frames, np.ndarray):
        # A copy, as PyTorch takes no array that runs backwards (such as BGR as RGB), and warns of read-only ones.
        frames = torch.from_numpy(np.array(frames, order="C"))
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            f"frames of {frames.dtype}, {tuple(frames.shape)}: expected uint8 (F, H, W, 3), F of 1 or more"
        )
    return frames.cpu()


def _preprocessing_of(model: VideoModel, cut: Mapping[str, Any] | None = None) -> Preprocessing:
    """How videos become a model's input, as it says itself and with changes: ValueError for what is not allowed."""
    known = _complete(model, cut or {})
    try:
        own = Preprocessing(**known)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the model's preprocessing={shown(known, 300)} is not understood: {error}") from error
    return replace(own, **cut) if cut else own


def _complete(model: VideoModel, cut: Mapping[str, Any]) -> dict[str, Any]:
    """A model's preprocessing; which frames are taken, where neither it nor `cut` says, is as usual, and logged."""
    known, config = model.preprocessing or {}, model.config
    if "stride" in known or known.get("sampling") == "segments":
        return known
    usual: dict[str, Any] = {"num_frames": config.num_frames, "stride": 32, "sampling": "clip"}
    usual |= {"image_size": min(config.frame_size)}
    assumed = {name: value for name, value in usual.items() if name not in known}
    if "stride" not in cut and cut.get("sampling") != "segments":
        logger.warning("the model does not say how videos become its input: taken to be %s", assumed)
    return {**assumed, **known}
