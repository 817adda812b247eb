"""Training: one loop from a list of videos to a folder with a trained model.

Whatever is random in a step (order, frames, augmentation, dropped paths, mixing) is a function of the seed and of the
step's place in the run. So the weights, the optimizer's state and that place are all a checkpoint needs for
a resumed run to equal an uninterrupted one, bit for bit on the CPU.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from timesformer import models
from timesformer.evaluation.evaluate import Evaluation, evaluate
from timesformer.files import replace_file
from timesformer.model.base import VideoModel
from timesformer.model.initialization import init_for_scratch
from timesformer.model.timesformer import TimeSformer
from timesformer.training.checkpoint import Progress, WeightAverage, load_checkpoint, save_checkpoint
from timesformer.training.optimizer import Optimizers, learning_rate, make_optimizer
from timesformer.training.recipe import Recipe, recipe_yaml
from timesformer.video.clips import BadVideo, Batch, ClipDataset, collate, load, write_bad_videos
from timesformer.video.datasets import VideoList, take_fraction
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.transforms import TrainTransform, mixup_cutmix

logger = logging.getLogger(__name__)


class TrainingError(Exception):
    """A run that cannot start or go on."""


@dataclass(frozen=True)
class Report:
    """What a progress display shows after a step or a validation."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float
    samples_per_second: float
    waiting: float
    validation: Evaluation | None = None


def train(
    videos: VideoList,
    out: str | Path,
    recipe: Recipe,
    *,
    validation: VideoList | None = None,
    resume: bool = False,
    on_report: Callable[[Report], None] = lambda report: None,
) -> VideoModel:
    """Train a model on a list of videos.

    The folder `out` gets `last` and, with validation, `best` (models for `timesformer.load_model`), `checkpoint.pt`
    (for resuming), `recipe.yaml` (all settings), `metrics.jsonl`, `tensorboard`, and `bad_videos.txt` and
    `bad_validation_videos.txt` (videos that failed to decode, and why) if there were any.

    Args:
        videos: what to train on.
        out: folder of the run.
        recipe: all choices of the run.
        validation: what to validate on, every `recipe.validate_every` epochs.
        resume: go on from the checkpoint in `out`; start anew where there is none.
        on_report: called after each step and each validation.

    Returns:
        The model in its last state, as saved in `out/last`.

    Raises:
        TrainingError: no videos; `out` holds another run; too many bad videos; the loss is not finite.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step under way, with a checkpoint of it.
    """
    out = Path(out)
    checkpoint = out / "checkpoint.pt"
    videos = take_fraction(videos, recipe.data.fraction, recipe.seed)
    if not videos.items:
        raise TrainingError(f"{videos.source}: no videos to train on")
    if checkpoint.exists() and not resume:
        raise TrainingError(f"{out} holds a run already: go on with it (--resume) or choose another folder")
    out.mkdir(parents=True, exist_ok=True)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    progress, states = Progress(), None
    if checkpoint.exists():
        progress, states = _read_states(checkpoint, _run_identity(recipe, videos))
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, videos, (states["architecture"], states["config"]) if states else None).to(device)
    optimizer = make_optimizer(model, recipe.optimizer)
    average = WeightAverage(model, recipe.ema) if recipe.ema else None
    if states:
        model.load_state_dict(states["model"])
        optimizer.load_state_dict(states["optimizer"])
        if average:
            average.load_state_dict(states["average"])
    if not progress.bad:
        (out / "bad_videos.txt").unlink(missing_ok=True)
    with replace_file(out / "recipe.yaml") as file:
        file.write_text(recipe_yaml(recipe), encoding="utf-8")

    epochs = recipe.num_epochs(len(videos.items))
    order = StepOrder(len(videos.items), recipe.batch_size, recipe.micro_batch_size, recipe.seed, epochs)
    batches = _load_batches(videos, recipe, model, order.micro_batches(progress.epoch, progress.step))
    log = _Log(out, progress.epoch, order.steps * progress.epoch + progress.step)
    bf16 = _computes_in_bfloat16(recipe, model, device)
    saved_at, epoch_start, epoch_seen, waited = time.monotonic(), time.monotonic(), 0, 0.0

    def readable_batches(count: int) -> Iterator[Batch]:
        nonlocal waited
        for _ in range(count):
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            _note_bad_videos(batch, progress, out, len(videos.items), recipe.max_bad_share)
            if len(batch.clips):
                yield batch

    with StopRequest() as stop, closing(log):
        while progress.epoch < epochs:
            rng = np.random.default_rng([recipe.seed, progress.epoch, len(videos.items) + progress.step])
            torch.manual_seed(int(rng.integers(2**63)))
            lr = learning_rate(recipe.optimizer, progress.epoch + progress.step / order.steps, epochs)
            optimizer.set_learning_rate(lr)
            micro_batches = readable_batches(order.num_micro_batches(progress.step))
            try:
                taken = _take_step(model, optimizer, micro_batches, recipe, videos.multi_label, bf16, rng)
            except FloatingPointError as error:
                raise TrainingError(f"epoch {progress.epoch}, step {progress.step}: {error}") from error
            if average and taken.seen:
                average.update(model)

            progress.add(taken.seen, taken.loss, taken.correct)
            epoch_seen += taken.seen
            elapsed = time.monotonic() - epoch_start
            report = Report(
                progress.epoch, epochs, progress.step, order.steps,
                progress.loss / max(progress.seen, 1), progress.correct / max(progress.seen, 1),
                epoch_seen / elapsed, waited / elapsed,
            )  # fmt: skip
            log.step(order.steps * progress.epoch + progress.step, loss=taken.loss / max(taken.seen, 1), lr=lr)
            on_report(report)

            if progress.step == order.steps:
                figures: dict[str, Any] = {"loss": report.loss, "top1": report.top1, "lr": lr}
                epoch_over = progress.epoch + 1
                progress = Progress(epoch=epoch_over, best=progress.best, bad=progress.bad)
                if validation and (epoch_over % recipe.validate_every == 0 or epoch_over == epochs):
                    tested = average.model if average else model
                    result = _validate(tested, validation, recipe, bf16, out)
                    figures["validation_accuracy"] = result.accuracy if result.items else None
                    if result.items and (progress.best is None or result.accuracy >= progress.best):
                        progress.best = result.accuracy
                        tested.save_pretrained(out / "best")
                    on_report(dataclasses.replace(report, validation=result))
                log.epoch(epoch_over, order.steps * epoch_over, figures)
                epoch_start, epoch_seen, waited = time.monotonic(), 0, 0.0
            over = progress.epoch == epochs
            if over or stop.asked or time.monotonic() - saved_at >= 60 * recipe.checkpoint_minutes:
                states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                states |= {"architecture": model.architecture, "config": dataclasses.asdict(model.config)}
                states["run"] = _run_identity(recipe, videos)
                if average:
                    states["average"] = average.state_dict()
                save_checkpoint(checkpoint, progress, states)
                saved_at = time.monotonic()
            if stop.asked and not over:
                raise KeyboardInterrupt

    final = (average.model if average else model).eval()
    final.save_pretrained(out / "last")
    return final


@dataclass(frozen=True)
class _Step:
    """What a step of the optimizer was taken on: videos seen, sum of their losses, how many were classified right."""

    seen: int
    loss: float
    correct: int


def _take_step(
    model: VideoModel,
    optimizer: Optimizers,
    micro_batches: Iterable[Batch],
    recipe: Recipe,
    multi_label: bool,
    bf16: bool,
    rng: np.random.Generator,
) -> _Step:
    """One step: the gradients of the micro-batches add up, then the optimizer moves; no move without videos."""
    model.train()
    device = next(model.parameters()).device
    seen, loss_sum, correct = 0, 0.0, 0
    for batch in micro_batches:
        clips, targets = batch.clips.to(device), batch.targets.to(device)
        mixed, soft = mixup_cutmix(clips, targets, recipe.data.mixup, recipe.data.cutmix, rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(mixed).float()
        loss = _loss(logits, soft, multi_label, recipe.label_smoothing)
        loss.backward()
        seen += len(clips)
        loss_sum += loss.item()
        correct += _num_correct(logits, soft)
    if not np.isfinite(loss_sum):
        raise FloatingPointError(
            f"the loss is {loss_sum}; try an optimizer.lr below {recipe.optimizer.lr}, optimizer.clip_grad=1 "
            f"or precision=float32"
        )
    if seen:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= seen
        if recipe.optimizer.clip_grad:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
    return _Step(seen, loss_sum, correct)


def _validate(model: VideoModel, videos: VideoList, recipe: Recipe, bf16: bool, out: Path) -> Evaluation:
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=bf16):
        result = evaluate(model, videos, _preprocessing(model), workers=recipe.data.workers)
    write_bad_videos(out / "bad_validation_videos.txt", result.bad)
    return result


def _read_states(checkpoint: Path, run: dict[str, Any]) -> tuple[Progress, dict[str, Any]]:
    try:
        progress, states = load_checkpoint(checkpoint)
        then, _, _ = states["run"], states["architecture"], states["config"]
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{checkpoint} can't be read ({error}): remove it to start anew") from error
    _check_same_run(checkpoint, then, run)
    return progress, states


def make_model(recipe: Recipe, videos: VideoList, known: tuple[str, dict[str, Any]] | None = None) -> VideoModel:
    """The model of a recipe for the classes of a list of videos: new, from `recipe.init`, or as it is `known` to be."""
    options = {**recipe.model, "num_classes": len(videos.classes)}
    name = options.pop("name", "timesformer_base")
    if known:
        model = models.build(*known)
    elif recipe.init:
        model = models.load(recipe.init, **options)
        _fit_head(model, videos.classes, recipe.init)
    elif recipe.initialization == "pretrained" and not recipe.init_from_image:
        raise TrainingError(
            "the recipe starts from a trained model: name it (init=MODEL or init_from_image=IMAGE_MODEL), "
            "or set initialization=released or scratch"
        )
    else:
        model = models.create(name, **options)
        if recipe.initialization == "scratch" and isinstance(model, TimeSformer):
            init_for_scratch(model)
        if recipe.init_from_image:
            models.init_from_image(model, recipe.init_from_image)
    config = model.config
    if not isinstance(config.image_size, int):
        raise TrainingError(f"image_size={config.image_size}: training crops are squares, give one number")
    if isinstance(model, TimeSformer):
        model.freeze(recipe.frozen_blocks)
    elif recipe.frozen_blocks:
        raise TrainingError(f"frozen_blocks={recipe.frozen_blocks}: only a TimeSformer's blocks can be frozen")
    model.classes = videos.classes
    model.multi_label = videos.multi_label
    model.preprocessing = Preprocessing(
        config.num_frames, recipe.data.stride, recipe.data.sampling, config.image_size
    ).to_dict()
    model.activation_checkpointing = recipe.activation_checkpointing
    return model


@torch.no_grad()
def _fit_head(model: VideoModel, classes: tuple[str, ...], source: str) -> None:
    """See that the head's rows are those of the classes: moved if the order is another, new if the classes are."""
    if model.classes is None or model.classes == classes:
        return
    *_, last = model.get_submodule("head").modules()
    assert isinstance(last, nn.Linear)
    if set(model.classes) == set(classes):
        rows = [model.classes.index(name) for name in classes]
        last.weight.copy_(last.weight[rows])
        last.bias.copy_(last.bias[rows])
    else:
        logger.warning("%s: head not loaded: its classes are others", source)
        nn.init.trunc_normal_(last.weight, std=0.02)
        nn.init.zeros_(last.bias)


@dataclass(frozen=True)
class StepOrder:
    """Which videos make up each step: every epoch a new order of all, its last batch smaller if need be."""

    num_videos: int
    batch_size: int
    micro_batch_size: int | None
    seed: int
    epochs: int

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(self.num_videos / self.batch_size)

    def num_micro_batches(self, step: int) -> int:
        """Parts that a step's batch is taken in."""
        size = min(self.batch_size, self.num_videos - step * self.batch_size)
        return math.ceil(size / (self.micro_batch_size or size))

    def micro_batches(self, epoch: int, step: int) -> Iterator[list[tuple[int, int]]]:
        """The keys (epoch, video) of every micro-batch from a step of an epoch on."""
        for later in range(epoch, self.epochs):
            videos = np.random.default_rng([self.seed, later]).permutation(self.num_videos)
            for first in range((step if later == epoch else 0) * self.batch_size, self.num_videos, self.batch_size):
                batch = [(later, int(video)) for video in videos[first : first + self.batch_size]]
                micro = self.micro_batch_size or len(batch)
                yield from (batch[start : start + micro] for start in range(0, len(batch), micro))


def _load_batches(
    videos: VideoList, recipe: Recipe, model: VideoModel, keys: Iterator[list[tuple[int, int]]]
) -> Iterator[Batch]:
    data = recipe.data
    preprocessing = _preprocessing(model)
    low, high = (round(side * preprocessing.image_size) for side in data.short_side)
    transform = TrainTransform(
        preprocessing.image_size, (low, high), data.flip, data.scale, data.rand_augment, data.erasing
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
    return load(dataset, workers=data.workers, batch_sampler=_Keys(keys), collate_fn=collate)


class _Keys:
    """What DataLoader wants of a batch sampler: something to iterate over, once."""

    def __init__(self, keys: Iterator[list[tuple[int, int]]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.keys


def _preprocessing(model: VideoModel) -> Preprocessing:
    assert model.preprocessing is not None
    return Preprocessing(**model.preprocessing)


def _loss(logits: Tensor, targets: Tensor, multi_label: bool, smoothing: float) -> Tensor:
    """Sum over the batch of cross entropy; of binary cross entropy, averaged over classes, for several labels."""
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1).sum()
    return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)


def _num_correct(logits: Tensor, targets: Tensor) -> int:
    """Samples whose top class is (one of) their strongest label(s)."""
    top = targets.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]
    return int((top == targets.amax(dim=1)).sum())


def _computes_in_bfloat16(recipe: Recipe, model: VideoModel, device: torch.device) -> bool:
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if any(isinstance(module, nn.Conv3d) for module in model.modules()):
        return False  # PyTorch's gradients of these in bfloat16 are wrong at times on a CPU, even NaN
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _note_bad_videos(batch: Batch, progress: Progress, out: Path, total: int, max_share: float) -> None:
    new = {bad.path: bad.reason for bad in batch.bad if bad.path not in progress.bad}
    if not new:
        return
    progress.bad.update(new)
    file = out / "bad_videos.txt"
    write_bad_videos(file, [BadVideo(path, reason) for path, reason in sorted(progress.bad.items())])
    if len(progress.bad) > max(1, max_share * total):
        raise TrainingError(
            f"{len(progress.bad)} of {total} videos failed to decode, more than max_bad_share={max_share}: see {file}"
        )


def _run_identity(recipe: Recipe, videos: VideoList) -> dict[str, Any]:
    """What must be the same for a run to go on: the settings that its weights depend on, and the videos."""
    settings = dataclasses.asdict(recipe)
    for free in ("checkpoint_minutes", "max_bad_share", "validate_every", "activation_checkpointing"):
        del settings[free]
    del settings["data"]["workers"], settings["data"]["cache"]
    names = [(item.path.name, item.labels) for item in videos.items]
    identity: dict[str, Any] = {"videos": hashlib.sha256(repr((names, videos.classes)).encode()).hexdigest()}
    for name, value in settings.items():
        identity |= {f"{name}.{key}": value[key] for key in value} if isinstance(value, dict) else {name: value}
    return identity


def _check_same_run(checkpoint: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    if changed:
        name = changed[0]
        values = "" if name == "videos" else f" ({then.get(name)}, now {now.get(name)})"
        raise TrainingError(
            f"{checkpoint} is of a run with other {name}{values}: resume with the same, or choose another folder"
        )


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a note that the loop heeds between steps; the next one acts at once."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self.before = {sign: signal.signal(sign, self._ask) for sign in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, *_: object) -> None:
        self.asked = True
        self.__exit__()

    def __exit__(self, *_: object) -> None:
        for sign, handler in self.before.items():
            signal.signal(sign, handler)


class _Log:
    """`metrics.jsonl`, a line an epoch, and TensorBoard; what came after the place of resuming is dropped."""

    def __init__(self, out: Path, epoch: int, step: int) -> None:
        self.file = out / "metrics.jsonl"
        kept = []
        if self.file.exists():
            lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= epoch]
        with replace_file(self.file) as file:
            file.write_text("".join(kept), encoding="utf-8")
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step)

    def step(self, step: int, **figures: float) -> None:
        for name, value in figures.items():
            self.board.add_scalar(f"step/{name}", value, step)

    def epoch(self, epoch: int, step: int, figures: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "step": step, **figures}) + "\n")
        for name, value in figures.items():
            if value is not None:
                self.board.add_scalar(f"epoch/{name}", value, step)

    def close(self) -> None:
        self.board.close()
