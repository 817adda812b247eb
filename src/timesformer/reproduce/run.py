"""Running an experiment: every row, column and seed is a training and a test, kept on disk, so that it can go on."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch

from timesformer import models
from timesformer.documents import read_json
from timesformer.evaluation.evaluate import evaluate
from timesformer.files import write_json
from timesformer.predictor import VideoClassifier
from timesformer.profiling import count, seconds_of
from timesformer.reproduce.experiment import TASKS, Experiment, Outcome, Results, Test, Training
from timesformer.reproduce.own_data import state_of, train_and_test
from timesformer.training.loop import train
from timesformer.training.recipe import Recipe, load_recipe
from timesformer.typed import build
from timesformer.video.synthetic import Task, write_dataset
from timesformer.workers import end_with

# An image model as wide as the base of recipe `mini`.
_IMAGE_MODEL = ("model.name=image_vit_base", "model.num_frames=1", "epochs=10")


@dataclass(frozen=True)
class Part:
    """One training.

    Attributes:
        recipe, settings, seed: what is trained.
        data: on which videos.
        out: folder of all parts.
        start: the image model that it starts from.
        state: of the videos, see `state_of`; empty for generated ones, which are always the same.
    """

    recipe: str
    settings: tuple[str, ...]
    seed: int
    data: Path
    out: Path
    start: Part | None = None
    state: str = ""

    def load_recipe(self) -> Recipe:
        start = [f"init_from_image={self.start.folder / 'run' / 'last'}"] if self.start else []
        return load_recipe(self.recipe, [*self.settings, f"seed={self.seed}", *start])

    @cached_property
    def folder(self) -> Path:
        """Where it is kept; parts of different experiments that come to the same have the same."""
        recipe = self.load_recipe()
        options = dict(recipe.model)
        with torch.device("meta"):
            model = models.create(options.pop("name", "timesformer_base"), **options)
        # What is at its default is left out: an option that is new leaves old results valid.
        told = _differences(asdict(recipe), asdict(Recipe()))
        told.pop("model", None)
        if self.start:
            told["init_from_image"] = self.start.folder.name
        data = self.data.relative_to(self.out) if self.data.is_relative_to(self.out) else self.data.absolute()
        config = _differences(asdict(model.config), asdict(type(model.config)()))
        videos = [str(data), self.state] if self.state else str(data)
        key = json.dumps([model.architecture, config, told, videos], sort_keys=True)
        return self.out / "parts" / hashlib.sha256(key.encode()).hexdigest()[:16]


def _differences(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not the defaults, level by level."""
    found = {}
    for name, value in values.items():
        if value != defaults.get(name):
            both = isinstance(value, dict) and isinstance(defaults.get(name), dict)
            found[name] = _differences(value, defaults[name]) if both else value
    return found


@dataclass(frozen=True)
class Job:
    """A part of an experiment, and how it is tested: what it is for.

    Attributes:
        row, column: of the experiment.
        part, test: what is done.
    """

    row: str
    column: str
    part: Part
    test: Test

    def __str__(self) -> str:
        return f"{self.row} on {self.part.data.name}, seed {self.part.seed}"

    @property
    def file(self) -> Path:
        """Where the outcome is kept."""
        views = f"{self.test.clips}x{self.test.crops}"
        return self.part.folder / f"test_{views}{f'_{self.test.image_size}px' if self.test.image_size else ''}.json"


def mini_jobs(experiment: Experiment, out: Path, seeds: Sequence[int], data: Path | None = None) -> list[Job]:
    """What an experiment is in miniature; with `data`, on a labelled folder of one's own as well.

    Raises:
        ValueError: an experiment without generated data, and no data given.
    """
    folders = {column: out / "data" / TASKS[column] for column in experiment.columns}
    if data:
        folders[data.name] = data
    states = {data: state_of(data)} if data and data.exists() else {}
    if not folders:
        raise ValueError(f"{experiment.name} is of videos of your own: --data DIR")
    return [
        Job(row.name, column, _mini_part(row.mini, seed, folder, out, states.get(folder, "")), row.test)
        for row in experiment.rows
        if row.mini
        for column, folder in folders.items()
        for seed in seeds
    ]


def _mini_part(training: Training, seed: int, data: Path, out: Path, state: str) -> Part:
    start = None
    if training.images:
        settings = (*_IMAGE_MODEL, f"data.fraction={training.images}")
        start = Part("mini", settings, seed, out / "data" / "shapes", out)
    return Part(training.recipe, training.settings, seed, data, out, start, state)


def full_jobs(experiment: Experiment, data: Mapping[str, Path], out: Path, seeds: Sequence[int]) -> list[Job]:
    """What an experiment is as the paper has it, on those of its data sets that are there.

    Rows whose recipe starts from a trained model that nobody published are left out.

    Raises:
        ValueError: none of the data sets is one of the experiment's.
    """
    known = list(dict.fromkeys(column for row in experiment.rows for column in row.full))
    if not known:
        raise ValueError(f"{experiment.name} has no full scale: the paper has no such experiment")
    if not data.keys() & set(known):
        raise ValueError(f"{experiment.name} in full needs data: --data NAME=DIR with one of {', '.join(known)}")
    states = {folder: state_of(folder) for column, folder in data.items() if column in known and folder.exists()}
    return [
        Job(
            row.name, column, Part(row.full[column], (), seed, folder, out, None, states.get(folder, "")), row.full_test
        )
        for row in experiment.rows
        for column, folder in data.items()
        if column in row.full and _can_start(row.full[column])
        for seed in seeds
    ]


def _can_start(name: str) -> bool:
    recipe = load_recipe(name)
    return recipe.initialization != "pretrained" or bool(recipe.init or recipe.init_from_image)


def write_tasks(parts: Sequence[Part], out: Path) -> None:
    """The generated data of some parts, where they are not there yet."""
    for task in get_args(Task):
        folder = out / "data" / task
        if not folder.exists() and any(folder in (part.data, part.start and part.start.data) for part in parts):
            write_dataset(folder, task, train=800, val=0, test=160, num_frames=64 if task == "steps" else 32)


def run(
    experiment: Experiment,
    jobs: Sequence[Job],
    out: Path,
    processes: int = 1,
    on_job: Callable[[str], None] = lambda line: None,
) -> Results:
    """Do what is not done yet.

    Args:
        experiment: what it is for.
        jobs: what to do; generated data that they need are written first.
        out: folder for data, parts and results.
        processes: how many trainings go on at a time; each has its share of the CPU's cores, or a GPU of its own.
        on_job: called with a line after each job, as they end.
    """
    write_tasks([job.part for job in jobs], out)
    with _pool(processes) as do:
        starts = {job.part.start.folder: job.part.start for job in jobs if job.part.start}
        for _ in do([(start, ()) for start in starts.values()]):
            pass
        tests: dict[Path, list[Job]] = {}
        for job in jobs:
            tests.setdefault(job.part.folder, []).append(job)
        done = 0
        work = [(same[0].part, tuple(dict.fromkeys(job.test for job in same))) for same in tests.values()]
        for part, seconds in do(work):
            for job in tests[part.folder]:
                done += 1
                top1 = _read_outcome(job.file).top1
                took = f"{seconds:.0f} s" if seconds > 0.5 else "kept"
                on_job(f"{experiment.name} {done}/{len(jobs)}: {job}: {top1:.1f} %  ({took})")
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for job in jobs:
        outcomes.setdefault((job.row, job.column), []).append(_read_outcome(job.file))
    return Results(outcomes)


Work = tuple[Part, tuple[Test, ...]]


@contextmanager
def _pool(processes: int) -> Iterator[Callable[[Sequence[Work]], Iterator[tuple[Part, float]]]]:
    """A function that does work in several processes, or in this one, and yields each part when it is done."""
    if processes == 1:
        yield lambda work: (_do(part, tests) for part, tests in work)
        return
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for place in range(processes):
        places.put(place)
    pool = ProcessPoolExecutor(processes, context, _take_place, (places, processes, os.getpid()))

    def do(work: Sequence[Work]) -> Iterator[tuple[Part, float]]:
        for future in as_completed([pool.submit(_do_or_end, part, tests) for part, tests in work]):
            yield future.result()

    try:
        yield do
    finally:
        pool.shutdown(cancel_futures=True)


def _take_place(places: Any, processes: int, parent: int) -> None:
    """The process's own GPU, or its share of the cores."""
    # Ctrl-C reaches all processes: a training heeds it between steps, and the pool ends whatever else is done. One that
    # died of it with a lock of the pool's would leave the others waiting.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    logging.getLogger("timesformer").setLevel(logging.ERROR)  # the head of an image model is not loaded, time and again
    place = places.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))


def _do_or_end(part: Part, tests: Sequence[Test]) -> tuple[Part, float]:
    """`_do`; a process that was told to stop ends, rather than go on with the next part."""
    try:
        return _do(part, tests)
    except KeyboardInterrupt:
        os._exit(1)


def _do(part: Part, tests: Sequence[Test]) -> tuple[Part, float]:
    """Train a part and test it, as far as that is not done; with the seconds that it took now."""
    started = time.monotonic()
    trained = part.folder / "trained.json"
    if not trained.exists():
        _train(part, trained)
    for test in tests:
        file = Job("", "", part, test).file
        if not file.exists():
            _test(part, test, read_json(trained), file)
    return part, time.monotonic() - started


def _train(part: Part, file: Path) -> None:
    recipe = part.load_recipe()
    if part.recipe in ("mini", "budget"):
        recipe.data.cache = str(part.out / "frames")
    started = time.monotonic()
    model = train(train_and_test(part.data)[0], part.folder / "run", recipe, resume=True)
    seconds = time.monotonic() - started
    parameters, macs = count(model)
    about = {"recipe": part.recipe, "settings": part.settings, "seed": part.seed, "data": str(part.data)}
    about["start"] = part.start.folder.name if part.start else None
    write_json(file, {**about, "train_seconds": seconds, "parameters": parameters, "macs": macs})


def _test(part: Part, test: Test, trained: dict[str, Any], file: Path) -> None:
    classifier = VideoClassifier.from_pretrained(part.folder / "run")
    preprocessing = classifier.preprocessing
    if test.image_size:
        preprocessing = replace(preprocessing, image_size=test.image_size)
    _, videos = train_and_test(part.data)
    tested = evaluate(classifier.model, videos, preprocessing, clips=test.clips, crops=test.crops)
    figures = tested.summary()
    outcome = Outcome(
        100 * figures["top1"],
        100 * figures["top5"],
        len(tested.items),
        trained["parameters"],
        trained["macs"],
        trained["train_seconds"],
        _seconds_a_view(classifier, preprocessing.image_size),
    )
    write_json(file, asdict(outcome))


@torch.inference_mode()
def _seconds_a_view(classifier: VideoClassifier, size: int, repeats: int = 5) -> float:
    """Median seconds of the model for a clip."""
    config = classifier.model.config
    clip = torch.randn(1, config.in_channels, config.num_frames, size, size, device=classifier.device)
    seconds = [seconds_of(classifier.model, clip) for _ in range(1 + repeats)]
    return statistics.median(seconds[1:])


def _read_outcome(file: Path) -> Outcome:
    return build(Outcome, read_json(file))
