"""Training: one loop from a list of videos to a folder with a trained model.

Whatever is random in a step (order, frames, augmentation, dropped paths, mixing) is a function of the seed and of the
place in the run, of no process. So the weights, the optimizer's state and that place are all a checkpoint needs for
a resumed run to equal an uninterrupted one, bit for bit on the CPU; and several processes take the steps of one, up to
the order in which gradients are added.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from timesformer import models
from timesformer.distributed import gather, locked, on_first, rank, world_size
from timesformer.epochs import read_epochs
from timesformer.evaluation.evaluate import Evaluation, evaluate
from timesformer.evaluation.provenance import write_used_videos
from timesformer.files import remove_unfinished, replace_file, write_text
from timesformer.model.base import VideoModel
from timesformer.model.initialization import init_for_scratch
from timesformer.model.timesformer import TimeSformer
from timesformer.training.checkpoint import (
    Progress,
    WeightAverage,
    as_checkpoint,
    check_folder,
    checkpoints,
    latest_readable,
    load_checkpoint,
    save_checkpoint,
)
from timesformer.training.errors import Interrupted, TrainingError
from timesformer.training.memory import give_back_freed_memory
from timesformer.training.model_options import WHERE_KNOWN
from timesformer.training.optimizer import learning_rate, make_optimizer
from timesformer.training.order import StepOrder, load_batches, moves
from timesformer.training.parallel import share
from timesformer.training.recipe import Recipe, recipe_yaml
from timesformer.training.resume import check_same_run
from timesformer.training.step import Turn, take_step
from timesformer.training.stop import StopRequest
from timesformer.video.clips import BadVideo, write_bad_videos
from timesformer.video.datasets import take_fraction
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing

logger = logging.getLogger(__name__)


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
    moving: bool = True
    """whether anything moves in the first clips that the model got"""


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

    The folder `out` gets `last`, with every checkpoint, and with validation `best` (models for
    `timesformer.load_model`, which takes `best` where there is one), `checkpoint.pt` and the one before it,
    `checkpoint.previous.pt` (for resuming), `recipe.yaml` (all settings), `metrics.jsonl`, `tensorboard`, and
    `bad_videos.txt` and `bad_validation_videos.txt` (videos that failed to decode, and why) if there were any.

    Where there are several processes (see `timesformer.distributed`), all call this alike and share each step; a run
    goes on in any number of them. Process 0 writes, into a folder that all of them see.

    Args:
        videos: what to train on.
        out: folder of the run.
        recipe: all choices of the run.
        validation: what to validate on, every `recipe.validate_every` epochs.
        resume: go on from the checkpoint in `out`; start at the beginning where there is none. A recipe of more epochs
            goes on from the end, where the learning rate of all steps so far stays the same: not with a cosine.
        on_report: called after each step and each validation.

    Returns:
        The model in its last state, as saved in `out/last`.

    Raises:
        TrainingError: no videos; `out` holds another run; too many bad videos; the loss is not finite; a checkpoint
            can't be written.
        OutputInUse: another process trains into `out`.
        Interrupted: on Ctrl-C, SIGTERM or SIGUSR1 to any of the processes, after the step under way, with a
            checkpoint of it.
    """
    with locked(out, folder=True):
        return _train(videos, Path(out), recipe, validation, resume, on_report)


def _train(
    videos: VideoList,
    out: Path,
    recipe: Recipe,
    validation: VideoList | None,
    resume: bool,
    on_report: Callable[[Report], None],
) -> VideoModel:
    videos = take_fraction(videos, recipe.data.fraction, recipe.seed)
    if not videos.items:
        raise TrainingError(f"{videos.source}: no videos to train on")
    recipe.require_pairs(recipe.micro_batch_size or -(-recipe.batch_size // world_size()))
    identity = _run_identity(recipe, videos)
    progress, states = _start(out, identity, resume, recipe, len(videos.items))

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if recipe.activation_checkpointing and device.type == "cpu":
        give_back_freed_memory()
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, videos, states).to(device)
    average = WeightAverage(model, recipe.ema) if recipe.ema else None
    if states:
        with as_checkpoint(checkpoints(out)[0]):
            model.load_state_dict(states["model"])
            if average:
                average.load_state_dict(states["average"])
    parallel = share(model, recipe, average)
    optimizer = make_optimizer(model, recipe.optimizer)
    if states:
        with as_checkpoint(checkpoints(out)[0]):
            parallel.load_optimizer(optimizer, states["optimizer"])
        states = None
    on_first(partial(_open_folder, out, recipe, progress))
    on_first(partial(write_used_videos, out, videos, validation))

    epochs = recipe.num_epochs(len(videos.items))
    order = StepOrder(
        len(videos.items), recipe.batch_size, recipe.micro_batch_size, recipe.seed, epochs, rank(), world_size()
    )
    batches = load_batches(videos, recipe, _preprocessing(model), order.micro_batches(progress.epoch, progress.step))
    log = _Log(out, progress.epoch, order.steps * progress.epoch + progress.step)
    bf16 = _computes_in_bfloat16(recipe, model, device)
    saved_at, epoch_start, epoch_seen, waited = time.monotonic(), time.monotonic(), 0, 0.0
    moving: bool | None = None

    def turns(step: int) -> Iterator[Turn]:
        nonlocal waited, moving
        places = order.turns(step)
        for number, place in enumerate(places, 1):
            asked = time.monotonic()
            batch = None if place is None else next(batches)
            waited += time.monotonic() - asked
            if moving is None and batch and len(batch.clips):
                moving = moves(batch.clips)
            yield Turn(place or 0, batch, last=number == len(places))

    with closing(batches), StopRequest() as stop, closing(log):
        while progress.epoch < epochs:
            lr = learning_rate(recipe.optimizer, progress.epoch + progress.step / order.steps, epochs)
            optimizer.set_learning_rate(lr)
            seed = (recipe.seed, progress.epoch, len(videos.items) + progress.step)
            try:
                taken = take_step(
                    parallel, optimizer, turns(progress.step), recipe,
                    multi_label=videos.multi_label, bf16=bf16, seed=seed,
                )  # fmt: skip
            except FloatingPointError as error:
                raise TrainingError(f"epoch {progress.epoch}, step {progress.step}: {error}") from error
            _note_bad_videos(taken.bad, progress, out, len(videos.items), recipe.max_bad_share)
            if average and taken.seen:
                average.update(model)

            progress.add(taken.seen, taken.loss, taken.correct)
            epoch_seen += taken.seen
            elapsed = time.monotonic() - epoch_start
            report = Report(
                progress.epoch, epochs, progress.step, order.steps,
                progress.loss / max(progress.seen, 1), progress.correct / max(progress.seen, 1),
                epoch_seen / elapsed, waited / elapsed, moving=moving is not False,
            )  # fmt: skip
            log.step(order.steps * progress.epoch + progress.step, loss=taken.loss / max(taken.seen, 1), lr=lr)
            on_report(report)

            if progress.step == order.steps:
                figures: dict[str, Any] = {"loss": report.loss, "top1": report.top1, "lr": lr}
                epoch_over = progress.epoch + 1
                progress = Progress(epoch=epoch_over, best=progress.best, bad=progress.bad)
                if validation and (epoch_over % recipe.validate_every == 0 or epoch_over == epochs):
                    tested = parallel.whole(average.model if average else model)
                    result = _validate(tested, validation, recipe, bf16, out)
                    figures["validation_accuracy"] = result.accuracy if result.items else None
                    if result.items and (progress.best is None or result.accuracy >= progress.best):
                        progress.best = result.accuracy
                        on_first(partial(tested.save_pretrained, out / "best"))
                    on_report(dataclasses.replace(report, validation=result))
                log.epoch(epoch_over, order.steps * epoch_over, figures)
                epoch_start, epoch_seen, waited = time.monotonic(), 0, 0.0
            over = progress.epoch == epochs
            due = over or time.monotonic() - saved_at >= 60 * recipe.checkpoint_minutes
            signs, dues = zip(*gather((stop.asked, due)), strict=True)  # what one process asks for is for all
            sign = max(filter(None, signs), default=None)
            if sign or any(dues):
                states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                states |= {"architecture": model.architecture, "config": dataclasses.asdict(model.config)}
                states["preprocessing"] = model.preprocessing
                states["run"] = identity
                if average:
                    states["average"] = average.state_dict()
                states = parallel.gathered(states)
                on_first(partial(save_checkpoint, out, progress, states))
                if not over:  # so that a run that is stopped has a model to use
                    on_first(partial(parallel.whole(average.model if average else model).save_pretrained, out / "last"))
                saved_at = time.monotonic()
            if sign and not over:
                raise Interrupted(sign)

    final = parallel.whole(average.model if average else model).eval()
    on_first(partial(final.save_pretrained, out / "last"))
    return final


def _start(
    out: Path, identity: dict[str, Any], resume: bool, recipe: Recipe, num_videos: int
) -> tuple[Progress, dict[str, Any] | None]:
    """Where the run in a folder has come to, the same in all processes."""
    if len({each["videos"] for each in gather(identity)}) > 1:
        raise TrainingError("the processes do not list the same videos: all must see the same files")
    if not resume and on_first(partial(checkpoints, out)):
        raise TrainingError(f"{out} holds a run already: go on with it (--resume) or choose another folder")
    on_first(partial(check_folder, out))
    file = on_first(partial(latest_readable, out))
    if file is None:
        return Progress(), None
    progress, states = load_checkpoint(file)
    check_same_run(file, states["run"], identity, recipe, num_videos, progress)
    return progress, states


def _open_folder(out: Path, recipe: Recipe, progress: Progress) -> None:
    out.mkdir(parents=True, exist_ok=True)
    remove_unfinished(out, "checkpoint*.pt")
    if not progress.bad:
        (out / "bad_videos.txt").unlink(missing_ok=True)
    write_text(out / "recipe.yaml", recipe_yaml(recipe))


def _validate(model: VideoModel, videos: VideoList, recipe: Recipe, bf16: bool, out: Path) -> Evaluation:
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=bf16):
        result = evaluate(model, videos, _preprocessing(model), workers=recipe.data.workers)
    on_first(partial(write_bad_videos, out / "bad_validation_videos.txt", result.bad))
    return result


def make_model(recipe: Recipe, videos: VideoList, known: Mapping[str, Any] | None = None) -> VideoModel:
    """The model of a recipe for the classes of a list of videos.

    New, from `recipe.init`, or of the architecture, configuration and preprocessing that are `known` of a checkpoint.
    From `recipe.init` come the order and the normalisation of colours too, as the weights were trained with them;
    which frames are taken, and of which size, are the recipe's.
    """
    options = {**recipe.model, "num_classes": len(videos.classes)}
    name = options.pop("name", "timesformer_base")
    where_known = {option: options.pop(option) for option in WHERE_KNOWN if option in options}
    if known:
        model = models.build(known["architecture"], known["config"])
        model.preprocessing = known["preprocessing"]
    elif recipe.init:
        model = models.load(recipe.init, where_known=where_known, **options)
        _fit_head(model, videos.classes, recipe.init)
    elif recipe.initialization == "pretrained" and not recipe.init_from_image:
        raise TrainingError(
            "the recipe starts from a trained model: name it (init=MODEL or init_from_image=IMAGE_MODEL), "
            "or set initialization=released or scratch"
        )
    else:
        model = models.create(name, where_known=where_known, **options)
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
    own = model.preprocessing or {}
    colours = {name: own[name] for name in ("colour", "mean", "std") if name in own}
    model.preprocessing = Preprocessing(
        config.num_frames, recipe.data.stride, recipe.data.sampling, config.image_size, **colours
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


def _preprocessing(model: VideoModel) -> Preprocessing:
    assert model.preprocessing is not None
    return Preprocessing(**model.preprocessing)


def _computes_in_bfloat16(recipe: Recipe, model: VideoModel, device: torch.device) -> bool:
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if any(isinstance(module, nn.Conv3d) for module in model.modules()):
        return False  # PyTorch's gradients of these in bfloat16 are wrong at times on a CPU, even NaN
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _note_bad_videos(bad: Iterable[BadVideo], progress: Progress, out: Path, total: int, max_share: float) -> None:
    new = {video.path: video.reason for video in bad if video.path not in progress.bad}
    if not new:
        return
    progress.bad.update(new)
    file = out / "bad_videos.txt"
    listed = [BadVideo(path, reason) for path, reason in sorted(progress.bad.items())]
    on_first(partial(write_bad_videos, file, listed))
    nothing = len(progress.bad) == total
    if nothing or len(progress.bad) > max(1, max_share * total):
        missing = [video.path for video in listed if video.is_missing]
        failed = f"{len(listed) - len(missing)} of {total} videos failed to decode"
        if missing:
            also = f" (and {failed})" if len(missing) < len(listed) else ""
            failed = f"{len(missing)} of {total} videos are not there, such as {missing[0]}{also}"
        why = ": there is nothing to train on" if nothing else f", more than max_bad_share={max_share}"
        raise TrainingError(f"{failed}{why}: see {file}")


def _run_identity(recipe: Recipe, videos: VideoList) -> dict[str, Any]:
    """What must be the same for a run to go on: the settings that its weights depend on, and the videos."""
    settings = dataclasses.asdict(recipe)
    for free in ("checkpoint_minutes", "max_bad_share", "validate_every"):
        del settings[free]
    for how in ("activation_checkpointing", "compile", "parallel"):
        del settings[how]
    del settings["data"]["workers"], settings["data"]["cache"]
    names = [(item.path.name, item.labels) for item in videos.items]
    identity: dict[str, Any] = {"videos": hashlib.sha256(repr((names, videos.classes)).encode()).hexdigest()}
    for name, value in settings.items():
        identity |= {f"{name}.{key}": value[key] for key in value} if isinstance(value, dict) else {name: value}
    return identity


class _Log:
    """`metrics.jsonl`, a line an epoch, and TensorBoard; what came after the place of resuming is dropped.

    Process 0 alone writes.
    """

    def __init__(self, out: Path, epoch: int, step: int) -> None:
        self.board: SummaryWriter | None = None
        if rank() > 0:
            return
        self.file = out / "metrics.jsonl"
        kept = [values for values in read_epochs(self.file) if values["epoch"] <= epoch]
        with replace_file(self.file) as file:
            file.write_text("".join(f"{json.dumps(values)}\n" for values in kept), encoding="utf-8")
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step)

    def step(self, step: int, **figures: float) -> None:
        self._draw("step", step, figures)

    def epoch(self, epoch: int, step: int, figures: dict[str, Any]) -> None:
        if self.board:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch, "step": step, **figures}) + "\n")
        self._draw("epoch", step, figures)

    def _draw(self, kind: str, step: int, figures: Mapping[str, float | None]) -> None:
        for name, value in figures.items():
            if self.board and value is not None:
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        if self.board:
            self.board.close()
