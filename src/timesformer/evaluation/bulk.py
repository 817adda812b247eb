"""Labels or features of any number of videos as Parquet, a row for each, by one machine or by many.

A job is cut into parts, each a file of the output folder, and these into blocks, which go through the
model at once. An engine maps blocks to rows: `local_engine` here, `timesformer.evaluation.ray_engine` on a cluster. As
blocks are the same for both, so are the rows. What is written stays: a job that was cut off goes on with the parts that
are missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from timesformer import distributed
from timesformer.evaluation.features import parts_of
from timesformer.evaluation.parts import ViewDataset, outputs
from timesformer.evaluation.protocols import PROTOCOLS, Clips, NotFiniteError, finite
from timesformer.evaluation.views import Part, usual_batch
from timesformer.files import check_same_job, remove_unfinished, replace_file, write_csv
from timesformer.model.base import digest
from timesformer.outputs import check_output, check_own_folder, has_keys
from timesformer.predictor import ClassifierSource, VideoClassifier
from timesformer.text import text_of
from timesformer.video.clips import TIME_LIMIT, BadVideo, load
from timesformer.video.datasets import read_unlabelled
from timesformer.video.decode import is_video_path
from timesformer.video.folders import find_videos
from timesformer.video.items import LIST_SUFFIXES, VideoItem, VideoList
from timesformer.video.lists import read_list
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.shards import VideoPath, find_packed, is_address, read_shards, without_credentials

Row = dict[str, Any]
Views = tuple[int, "Part | BadVideo"]  # of the video of this number
_DIGEST = b"timesformer_job"  # in the metadata of a part: of which job it is
_JOB = "_job.json"  # says which job it is that the parts beside it are of
Engine = Callable[["BulkJob", VideoClassifier, Sequence[range]], Iterator[tuple[range, list[Row]]]]


@dataclass(frozen=True)
class BulkJob:
    """What is wanted of which videos.

    Attributes:
        source: the model.
        videos: the inputs; the same one may occur twice.
        want: `labels` with their scores, or `features`.
        top: labels of a video.
        clips, crops: the views of a video, see `load_views`.
        workers: processes that decode.
        time_limit: seconds to decode a video.
    """

    source: ClassifierSource
    videos: tuple[VideoPath, ...]
    want: Literal["labels", "features"]
    top: int = 5
    clips: Clips = 1
    crops: int = 1
    workers: int = 2
    time_limit: float = TIME_LIMIT

    def dataset(self, preprocessing: Preprocessing) -> ViewDataset:
        """The views of the videos, as a model takes them; of a long video the first part."""
        items = tuple(VideoItem(path, ()) for path in self.videos)
        videos = VideoList(items, (), False, "")
        at_most = usual_batch(preprocessing)
        return ViewDataset(videos, preprocessing, self.clips, self.crops, PROTOCOLS["paper"], at_most)

    def blocks(self, part: range, preprocessing: Preprocessing) -> list[range]:
        """The numbers of the videos of a part that go through the model together."""
        size = 1 if self.clips == "cover" else max(1, usual_batch(preprocessing) // (self.clips * self.crops))
        return [part[start : start + size] for start in range(0, len(part), size)]

    def rows(self, classifier: VideoClassifier, block: Iterable[Views]) -> list[Row]:
        """The rows of a block of videos: what the model makes of their views, or why there are none."""
        model, first = classifier.model, dict(block)
        values: dict[int, Tensor | BadVideo] = {n: part for n, part in first.items() if isinstance(part, BadVideo)}
        if good := {number: part for number, part in first.items() if isinstance(part, Part)}:
            values |= outputs(
                model, model if self.want == "labels" else model.features, self.dataset(classifier.preprocessing), good,
                batch_size=usual_batch(classifier.preprocessing), workers=self.workers, time_limit=self.time_limit,
            )  # fmt: skip
        return [self._row(classifier, number, values[number]) for number in first]

    def _row(self, classifier: VideoClassifier, number: int, values: Tensor | BadVideo) -> Row:
        nothing = dict.fromkeys(("labels", "scores") if self.want == "labels" else ("features",))
        path = _name(self.videos[number])
        if isinstance(values, BadVideo):
            return {"path": path, **nothing, "error": text_of(values.reason)}
        try:
            if self.want == "features":
                return {"path": path, "features": finite(values.mean(dim=0)).numpy(), "error": None}
            scores = PROTOCOLS["paper"].scores(values, multi_label=classifier.model.multi_label)
        except NotFiniteError as cause:
            return {"path": path, **nothing, "error": f"{path}: {cause}"}
        best = classifier.best(scores, self.top)
        labels = {"labels": [label for label, _ in best], "scores": [score for _, score in best]}
        return {"path": path, **labels, "error": None}


@dataclass(frozen=True)
class BulkResult:
    """What is in the output: rows, one for each video, and how many of them have an error."""

    videos: int
    errors: int


def find_inputs(arguments: Iterable[str | Path]) -> tuple[VideoPath, ...]:
    """The videos that arguments mean: a video itself; all in a folder and below it, in shards, or in a list of paths.

    A folder of images is a video. What is not there is kept, for its error to be told.

    Raises:
        DataError, OSError: a list, or what is at an address, can't be read.
    """
    found: list[VideoPath] = []
    for argument in arguments:
        try:
            found += _inputs(argument)
        except OSError:
            if is_address(argument):
                raise
            found.append(Path(argument))  # a name that is too long, say: whoever opens the video tells it
    return tuple(found)


def _inputs(argument: str | Path) -> Iterable[VideoPath]:
    path = Path(argument)
    if packed := find_packed(argument):
        return [packed]
    if read_shards(argument):
        return [item.path for item in read_unlabelled(argument).items]
    if path.is_dir() and not is_video_path(path):
        return find_videos(path)
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return [entry.path for entry in read_list(path).entries]
    return [path]


def run_bulk(
    job: BulkJob,
    out: Path,
    *,
    engine: Engine | None = None,
    on_videos: Callable[[int], None] = lambda count: None,
) -> BulkResult:
    """Write a row for each video into OUT/part-000000.parquet, ..., in the order of the videos; go on if cut off.

    Rows have `path`, either `labels` and `scores` (lists, best first) or `features` (a list of floats), and `error`,
    null or why there are none. Where `torchrun` started several processes, each does its share of the parts.

    Args:
        job: what is wanted.
        out: folder for the parts.
        engine: where it is done; `local_engine` by default.
        on_videos: called with the number of videos of each block that is done.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: there are no videos, top is below 1, or the folder holds parts of another job, or something else.
        OutputInUse: another process writes into the folder.
    """
    if not job.videos or job.top < 1:
        raise ValueError(f"{len(job.videos)} videos, top={job.top}: each must be at least 1")
    _pyarrow()
    with distributed.locked(out, folder=True):
        return _run(job, out, engine or local_engine, on_videos)


def _run(job: BulkJob, out: Path, engine: Engine, on_videos: Callable[[int], None]) -> BulkResult:
    check_output(out, "out", folder=True, inputs=job.videos)
    check_own_folder(out, _JOB, (), "this job")
    if (out / _JOB).exists() and not has_keys(out / _JOB, ("digest", "want", "model")):
        raise ValueError(f"{out / _JOB}: this job did not write it; name a new folder")
    classifier = job.source.plain()
    identity = _identity(job, classifier)
    distributed.on_first(
        partial(check_same_job, out / _JOB, identity, "the output for other videos, another model or other views")
    )
    schema = _schema(job, identity)
    files = {part: out / f"part-{number:06}.parquet" for number, part in enumerate(parts_of(len(job.videos)))}
    distributed.on_first(partial(remove_unfinished, out, "part-*.parquet"))
    _check_parts(out, {file: len(part) for part, file in files.items()}, schema)
    distributed.gather(None)  # before any process adds to them
    mine = list(files)[distributed.rank() :: distributed.world_size()]
    left = [part for part in mine if not files[part].exists()]
    on_videos(sum(len(part) for part in mine if part not in left))
    part_of = {block: part for part in left for block in job.blocks(part, classifier.preprocessing)}
    done: dict[range, dict[int, list[Row]]] = defaultdict(dict)
    for block, rows in engine(job, classifier, list(part_of)) if left else ():
        part = part_of[block]
        done[part][block.start] = rows
        on_videos(len(block))
        if sum(map(len, done[part].values())) == len(part):
            blocks = done.pop(part)
            _write(files[part], [row for start in sorted(blocks) for row in blocks[start]], schema)
    distributed.gather(None)  # wait for all
    return BulkResult(len(job.videos), sum(_errors(file) for file in files.values()))


def rows_of(job: BulkJob, *, on_videos: Callable[[int], None] = lambda count: None) -> list[Row]:
    """What `run_bulk` writes, a row for each video in their order, kept in memory.

    Raises:
        ValueError: top is below 1.
    """
    if job.top < 1:
        raise ValueError(f"top={job.top} must be at least 1")
    classifier = job.source.plain()
    rows: dict[int, Row] = {}
    for block, found in local_engine(job, classifier, job.blocks(range(len(job.videos)), classifier.preprocessing)):
        rows.update(zip(block, found, strict=True))
        on_videos(len(block))
    return [rows[number] for number in sorted(rows)]


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Write rows of labels as CSV: `path`, `label`, `score`, `label2`, `score2`, ..., `error`.

    A spreadsheet takes a cell that begins with =, +, - or @ for a formula, and names come from others: such a cell
    gets an apostrophe in front.
    """
    most = max((len(row["labels"] or ()) for row in rows), default=0)
    numbers = ["", *map(str, range(2, most + 1))]
    head = ["path", *(f"{name}{number}" for number in numbers for name in ("label", "score")), "error"]
    lines: list[list[str]] = [head]
    for row in rows:
        pairs = zip(row["labels"] or (), row["scores"] or (), strict=True)
        cells = [cell for label, score in pairs for cell in (_cell(label), f"{score:.6f}")]
        cells += [""] * (len(head) - 2 - len(cells))
        lines.append([_cell(row["path"]), *cells, _cell(row["error"] or "")])
    write_csv(file, lines)


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def local_engine(
    job: BulkJob, classifier: VideoClassifier, blocks: Sequence[range]
) -> Iterator[tuple[range, list[Row]]]:
    """Decode in processes of this machine, and run the model in this one."""
    classifier = job.source.rewritten(classifier)
    block_of = {number: block for block in blocks for number in block}
    begun: dict[range, dict[int, Part | BadVideo]] = defaultdict(dict)
    for number, views in load(
        job.dataset(classifier.preprocessing), sampler=block_of,
        workers=min(job.workers, len(block_of)), time_limit=job.time_limit, in_order=False,
    ):  # fmt: skip
        block = block_of[number]
        begun[block][number] = views
        if len(begun[block]) == len(block):
            whole = begun.pop(block)
            yield block, job.rows(classifier, [(each, whole[each]) for each in block])


def _identity(job: BulkJob, classifier: VideoClassifier) -> str:
    """What must be the same for a job to go on."""
    videos = hashlib.sha256("\n".join(map(_name, job.videos)).encode())
    about: dict[str, Any] = {"videos": len(job.videos), "digest": videos.hexdigest(), "want": job.want}
    about["parts"] = len(parts_of(len(job.videos)))
    about |= {
        "top": job.top,
        "clips": job.clips,
        "crops": job.crops,
        "dtype": job.source.dtype,
        "backend": job.source.backend,
        "calibration": [_name(video) for video in job.source.calibration],
    }
    about |= {"model": digest(classifier.model), "preprocessing": classifier.preprocessing.to_dict()}
    return json.dumps(about)


def _schema(job: BulkJob, identity: str) -> Any:
    """The columns of the parts, with a digest of the job, by which a part is known to be of it."""
    pa, _ = _pyarrow()
    floats = pa.list_(pa.float32())
    columns = {"labels": pa.list_(pa.string()), "scores": floats} if job.want == "labels" else {"features": floats}
    schema = pa.schema({"path": pa.string(), **columns, "error": pa.string()})
    return schema.with_metadata({_DIGEST: hashlib.sha256(identity.encode()).hexdigest()})


def _write(file: Path, rows: list[Row], schema: Any) -> None:
    pa, parquet = _pyarrow()
    with replace_file(file) as new, new.open("wb") as out:  # by Python, which can open a file of any name
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), out)


def _check_parts(out: Path, sizes: Mapping[Path, int], schema: Any) -> None:
    """See that the parts in the folder, which other programs read as one table, are of this job: ValueError."""
    pa, parquet = _pyarrow()
    for file in sorted(out.glob("*.parquet")):
        try:
            with file.open("rb") as content:
                part = parquet.ParquetFile(content)
                found = part.schema_arrow
                own = found.equals(schema) and (found.metadata or {}).get(_DIGEST) == schema.metadata[_DIGEST]
                own = own and part.metadata.num_rows == sizes.get(file)
        except (OSError, pa.ArrowException):
            own = False
        if not own:
            raise ValueError(f"{file}: is no part of this job, or is damaged: move it, or name a new folder")


def _errors(file: Path) -> int:
    _, parquet = _pyarrow()
    with file.open("rb") as content:
        errors = parquet.read_table(content, columns=["error"])["error"]
    return len(errors) - int(errors.null_count)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"Parquet needs the extra `bulk`: pip install 'timesformer[bulk]' ({error})") from error
    return pyarrow, parquet


def _name(path: VideoPath) -> str:
    """A path as a table holds it: valid text, and no password of an address."""
    return text_of(without_credentials(str(path)))
