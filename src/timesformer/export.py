"""A trained model in one file for programs that know nothing of this one: ONNX, torch.export, AOTInductor."""

from __future__ import annotations

import contextlib
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from timesformer import __version__
from timesformer.evaluation.views import load_views, to_clips
from timesformer.files import replace_file
from timesformer.model.base import FrozenModel
from timesformer.model.graph import FeaturesAndLogits, any_batch, example, trace
from timesformer.outputs import check_output
from timesformer.predictor import VideoClassifier
from timesformer.video.preprocessing import Preprocessing

Format = Literal["onnx", "torch", "aoti"]
Run = Callable[[Tensor], Tensor]

FORMATS = ("onnx", "torch", "aoti")
ONNX_OPSET = 18  # what PyTorch's exporter writes without translating, and every runtime of the last years reads
TOLERANCE = 1e-4
_LARGEST_ONNX = 2**31 - 2**24  # bytes of weights: one file of protobuf ends at 2 GiB
_BATCHES = (1, 3)  # others than the one that is traced
_TURNS = 3, 15  # at least and, within `_SECONDS`, at most
_SECONDS = 10


class ExportError(Exception):
    """A model can't be exported, or what came out does not compute the same."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares with the model it was made from.

    Attributes:
        file, format: what was written.
        details: of the format, such as the opset.
        shape: of the clips that it takes: channels, frames, height, width. Any number of them.
        bytes: size of the file.
        clips: how many clips both were compared on.
        difference: the largest between any two of their logits.
        speed: how many times as fast as the model it is on one clip, here; the median over turns, one after the other.
    """

    file: Path
    format: Format
    details: str
    shape: tuple[int, int, int, int]
    bytes: int
    clips: int
    difference: float
    speed: float

    def to_json(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "file": str(self.file)}

    def lines(self) -> list[str]:
        """All of it, for people."""
        return [
            f"written: {self.file}, {self.bytes / 1e6:.1f} MB: {self.details}",
            f"takes clips (batch, {', '.join(map(str, self.shape))})",
            f"largest difference of a logit from the model's: {self.difference:.2g}, over {self.clips} clips",
            f"speed: {self.speed:.2f} times the model's, one clip at a time on this machine",
        ]


def export_model(
    classifier: VideoClassifier,
    file: str | Path,
    to: Format = "onnx",
    *,
    videos: Iterable[str | Path] = (),
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a model, with its classes and preprocessing, for use without this program.

    It takes float32 clips `clip`, (B, channels, F, H, W) for any B, normalised as the preprocessing says, and gives
    `features` (B, D) and `logits` (B, classes). Classes, preprocessing and how logits become scores lie beside the
    weights as JSON texts (see `metadata`). The file gets its name when it was seen to compute what the model does.

    Args:
        classifier: the model, with what it knows of classes and preprocessing.
        file: to write; ends in `.onnx` for `onnx`, and in `.pt2` for `torch` and `aoti`.
        to: `onnx` (needs the extra `onnx`); `torch`, a program for `torch.export.load`; or `aoti`, compiled for the
            processor of this machine, for `torch._inductor.aoti_load_package` (needs a C++ compiler).
        videos: to compare on, besides random clips.
        tolerance: the largest difference of a logit that is let pass.

    Raises:
        ExportError: the format can't hold the model, a compiler is missing, or the logits differ by more.
        ImportError: the extra is not installed.
        ValueError: a format or a file name that is not as above, a model that was rewritten for inference, or a
            TimeSformer with layers that are not plain (adapters, hooks), by their name.
        VideoError: one of the videos can't be read.
    """
    file = Path(file)
    if to not in FORMATS:
        raise ValueError(f"to={to!r} is not one of {', '.join(FORMATS)}")
    suffix = ".onnx" if to == "onnx" else ".pt2"
    videos = tuple(videos)
    check_output(file, "out", suffixes=(suffix,), inputs=videos)
    model = classifier.model
    if isinstance(model, FrozenModel):
        raise ValueError("a model that was prepared for inference can't be exported: export the one it is of")
    weights = sum(parameter.nbytes for parameter in model.parameters())
    if to == "onnx" and weights > _LARGEST_ONNX:
        raise ExportError(f"{weights / 2**30:.1f} GiB of weights do not fit into one ONNX file: export to `torch`")
    model.cpu()
    size = clip_size(classifier.preprocessing)
    clips = [torch.randn(batch, model.config.in_channels, *size) for batch in _BATCHES]
    clips += [to_clips(load_views(video, classifier.preprocessing), classifier.preprocessing) for video in videos]
    write, load = {
        "onnx": (_write_onnx, _load_onnx), "torch": (_write_torch, _load_torch), "aoti": (_write_aoti, _load_aoti)
    }[to]  # fmt: skip
    try:
        with replace_file(file) as new, torch.no_grad(), _quiet():
            details = write(FeaturesAndLogits(model), size, metadata(classifier), new)
            run = load(new)
            difference = float(torch.stack([(run(clip) - model(clip)).abs().max() for clip in clips]).max())
            if not difference <= tolerance:  # nor if it is no number
                raise ExportError(
                    f"{file}: not written: logits of the {to} file differ by {difference:.2g} from the model's, "
                    f"more than {tolerance:g}"
                )
            speed = _speed(model, run, clips[0])
    finally:
        model.to(classifier.device)
    return Exported(
        file, to, details, (model.config.in_channels, *size), file.stat().st_size,
        sum(map(len, clips)), difference, speed,
    )  # fmt: skip


def clip_size(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Frames, height and width of a clip as `VideoClassifier` makes them: squares, also where the model's are none."""
    return preprocessing.num_frames, preprocessing.image_size, preprocessing.image_size


def metadata(classifier: VideoClassifier) -> dict[str, str]:
    """What a program must know to use the exported model, as JSON texts by name.

    `classes`: list of names, one a logit. `scores`: `softmax` or, where a video can have several labels, `sigmoid`.
    `preprocessing`: `num_frames`, `stride`, `sampling` and `colour` as in `Preprocessing`. A frame is scaled, by
    `interpolation`, to cover `scaled_height` and `scaled_width` (or, without `keep_aspect`, to be of just that size);
    its centre of `height` and `width` is cut out; a value v of 0 to 255 becomes (v / 255 - `mean`) / `std`, which are
    lists of a number for each colour, in the order of `colour`. `producer`: this program and its version.
    """
    said = classifier.preprocessing
    _, height, width = clip_size(said)
    larger = said.scaled_side / said.image_size
    about = {
        "classes": list(classifier.classes),
        "scores": "sigmoid" if classifier.model.multi_label else "softmax",
        "preprocessing": {
            "num_frames": said.num_frames, "stride": said.stride, "sampling": said.sampling, "colour": said.colour,
            "height": height, "width": width,
            "scaled_height": round(height * larger), "scaled_width": round(width * larger),
            "keep_aspect": said.keep_aspect, "interpolation": said.interpolation,
            "mean": list(said.mean), "std": list(said.std),
        },
        "producer": f"timesformer {__version__}",
    }  # fmt: skip
    return {name: json.dumps(value) for name, value in about.items()}


def _write_onnx(module: FeaturesAndLogits, size: tuple[int, int, int], about: dict[str, str], file: Path) -> str:
    try:
        import onnxruntime  # noqa: F401  # to compare by
        import onnxscript  # noqa: F401  # PyTorch's exporter is built on it
    except ImportError as error:
        raise ImportError(f"--to onnx needs the extra `onnx`: pip install 'timesformer[onnx]' ({error})") from error
    program = torch.onnx.export(
        module, (example(module, size),), dynamo=True, dynamic_shapes=any_batch("batch"), opset_version=ONNX_OPSET,
        input_names=["clip"], output_names=["features", "logits"], verbose=False,
    )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update(about)
    program.save(str(file))
    return f"ONNX, opset {ONNX_OPSET}"


def _load_onnx(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(clip: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"clip": clip.numpy()})[0])

    return run


def _write_torch(module: FeaturesAndLogits, size: tuple[int, int, int], about: dict[str, str], file: Path) -> str:
    with file.open("wb") as out:  # by Python, which says why where it fails
        torch.export.save(trace(module, size), out, extra_files=about)
    return f"torch.export, PyTorch {torch.__version__}"


def _load_torch(file: Path) -> Run:
    module = torch.export.load(file).module()
    return lambda clip: module(clip)[1]


def _write_aoti(module: FeaturesAndLogits, size: tuple[int, int, int], about: dict[str, str], file: Path) -> str:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ExportError("--to aoti needs a C++ compiler, such as g++: install one, or name it in CXX") from error
    aoti_compile_and_package(
        trace(module, size), package_path=str(file), inductor_configs={"aot_inductor.metadata": about}
    )
    return f"AOTInductor, PyTorch {torch.__version__}, compiled by {compiler} for this processor"


def _load_aoti(file: Path) -> Run:
    from torch._inductor import aoti_load_package

    compiled = aoti_load_package(str(file))
    return lambda clip: compiled(clip)[1]


def _speed(ours: Run, theirs: Run, clip: Tensor) -> float:
    ratios: list[float] = []
    least, most = _TURNS
    end = time.perf_counter() + _SECONDS
    while len(ratios) < least or (len(ratios) < most and time.perf_counter() < end):
        start = time.perf_counter()
        ours(clip)
        between = time.perf_counter()
        theirs(clip)
        ratios.append((between - start) / (time.perf_counter() - between))
    return statistics.median(ratios)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of themselves, which is not for those who use them."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
