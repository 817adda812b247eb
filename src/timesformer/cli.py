"""The command line: one subcommand a job, each a thin call into the package.

Exit codes: 0 done; 1 the job failed (for `predict`: on any of the videos, unless tables hold the errors), or values
that do not go together were refused; 2 wrong options; 75 `train` stopped on SIGTERM or SIGUSR1 with a checkpoint (a
scheduler may queue it again).
With `--json -`, standard output holds the JSON and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import shlex
import signal
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from timesformer import option_types as types
from timesformer.command_examples import EXAMPLES
from timesformer.console import (
    OutputClosed,
    Parser,
    SafeConsole,
    SafeFormatter,
    drop_out,
    flush_out,
    say,
    write_out,
)
from timesformer.outputs import check_output, check_replaceable
from timesformer.text import json_text, shown, text_of

if TYPE_CHECKING:
    from timesformer.evaluation.bulk import BulkJob
    from timesformer.evaluation.evaluate import Evaluation
    from timesformer.predictor import ClassifierSource, VideoClassifier
    from timesformer.reproduce.plan import Plan
    from timesformer.training.loop import Report
    from timesformer.training.recipe import Recipe
    from timesformer.video.items import VideoList
    from timesformer.video.shards import VideoPath

MODEL_HELP = "folder of a model or of a run, a released checkpoint, or a folder or hub id of Hugging Face's TimeSformer"
# Progress and messages go to standard error: standard output is for results. Each command imports what it needs,
# so that help and wrong use are answered at once.
console = SafeConsole(stderr=True)
QUEUE_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: not an error, the same job later
CALIBRATION = 48  # videos that ranges of 8 bits are taken from


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the result is its exit code."""
    try:
        with _ending_on_sigterm():
            code = _main(argv)
            flush_out()
        return code
    except OutputClosed:
        drop_out()
        return 128 + signal.Signals.SIGPIPE if hasattr(signal, "SIGPIPE") else 1


def _main(argv: Sequence[str] | None) -> int:
    try:
        args = _parser().parse_args(argv)
    except SystemExit:
        flush_out()
        raise
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        _check_outputs(args)
        code: int = args.run(args)
        return code
    except KeyboardInterrupt:
        console.print("interrupted")
        return 1
    except _expected_errors() as error:
        process = f" (process {rank})" if (rank := os.environ.get("RANK")) else ""
        console.quiet = False
        console.print(f"[red]error{process}:[/] {_escape(str(error))}", markup=True, soft_wrap=True)
        return 1


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as an error does, so that locks are given back and files half written are removed.

    Not where several processes work together: one that waits for the others would not notice.
    """

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    alone = os.environ.get("WORLD_SIZE", "1") == "1" and os.environ.get("SLURM_NTASKS", "1") == "1"
    if not alone or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# Attributes of the parsed arguments that name what a command reads.
_INPUTS = ("data", "video", "videos", "val", "features", "classes", "calibrate", "source", "samples")


def _check_outputs(args: argparse.Namespace) -> None:
    """See that nothing that a command writes is one of its inputs, before it does any work: ValueError."""
    inputs: list[object] = []
    for name in _INPUTS:
        value = getattr(args, name, None)
        inputs += value if isinstance(value, list) else [value]
    inputs += [each.partition("=")[2] for each in inputs if isinstance(each, str) and "=" in each]  # NAME=DIR
    inputs += _files_of_model(getattr(args, "model", None))
    if getattr(args, "json", None) not in (None, "-"):
        check_output(args.json, "--json", inputs=inputs)
    out = getattr(args, "out", None)
    if out is not None:
        suffixes = args.suffixes or ()
        folder = _is_table(out) or not (suffixes or (args.run is _predict and _is_csv(out)))
        check_output(out, "--out", folder=folder, suffixes=suffixes, inputs=inputs)


def _files_of_model(model: str | None) -> list[Path]:
    """The files that a model or a run consists of."""
    if model is None or not Path(model).is_dir():
        return [Path(model)] if model else []
    names = ["config.json", "model.safetensors", "pytorch_model.bin", "preprocessor_config.json", "recipe.yaml"]
    names += ["checkpoint.pt", "checkpoint.previous.pt", "metrics.jsonl"]
    return [Path(model, folder, name) for folder in ("", "best", "last") for name in names]


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """ValueError if options were given that do not apply, which would be silently ignored."""
    given = args.parser.given
    if unused := [name for name in names if name in given]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise ValueError(f"{options}: {why}")


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is all that a user needs."""
    from timesformer.export import ExportError
    from timesformer.model.tensors import WeightsError
    from timesformer.training.errors import TrainingError
    from timesformer.training.recipe import RecipeError
    from timesformer.video.decode import VideoError
    from timesformer.video.items import DataError

    return (
        ImportError,
        MemoryError,
        WeightsError,
        ExportError,
        TrainingError,
        RecipeError,
        DataError,
        VideoError,
        ValueError,
        OSError,
    )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from timesformer.environment import describe

        for line in describe():
            say(line)
        parser.exit()


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: object, shell: Any, *_: Any) -> None:
        from timesformer.completion import completion

        try:
            write_out(completion(parser, shell) + "\n")
        except ImportError as error:
            parser.exit(1, f"error: {error}\n")
        parser.exit()


def _parser() -> Parser:
    parser = Parser(prog="timesformer", description="Video understanding by space-time attention.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions, as a report of a bug should")
    parser.add_argument(
        "--print-completion", action=_Completion, choices=["bash", "zsh"], help="print a script for a shell to run"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example:\n  {EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run, parser=sub, suffixes=None)
        return sub

    demo = command("demo", _demo, "the whole story on generated videos, in minutes on a laptop")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write to (default: %(default)s)")
    demo.add_argument("--seed", type=types.seed, default=0, help="seed of videos and training (default: %(default)s)")

    train = command("train", _train, "train a model on labelled videos")
    train.description = textwrap.fill(
        "Train a model on labelled videos. Stops on SIGTERM and SIGUSR1 with a checkpoint and exit code 75, for "
        "schedulers to queue the same command again with --resume; on Ctrl-C likewise, with exit code 1. Several "
        "processes share the run, on one machine or many, where torchrun or srun starts them: torchrun "
        "--nproc-per-node 4 -m timesformer train ...",
        width=79,
    )
    _add_data(train)
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="scratch (default), finetune (default with --set init=… or init_from_image=…), paper, i3d, slowfast, "
        "slowfast_scratch, a row of the paper such as table1/k400_axial, or a YAML file; with --resume the run's own",
    )
    train.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="change the recipe, as in: --set epochs=50 data.flip=0 model.depth=8",
    )  # fmt: skip
    train.add_argument("--fraction", type=types.part, help="share of the training videos to use, balanced over classes")
    train.add_argument("--print-recipe", action="store_true", help="print the recipe, with all its keys, and stop")
    train.add_argument("--val", type=Path, help="videos to validate on; by default DIR's own validation list")
    train.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")

    evaluate = command("evaluate", _evaluate, "test a model on labelled videos")
    _add_model(evaluate)
    _add_data(evaluate)
    evaluate.add_argument(
        "--protocol", choices=["paper", "released"], default="paper",
        help="clips and crops by default, where clips lie, how scores are averaged (default: %(default)s, 1 x 3)",
    )  # fmt: skip
    _add_speed(evaluate)
    _add_views(evaluate)
    evaluate.add_argument(
        "--split", default="test", choices=["train", "val", "test"],
        help="which list or folder of DIR; a DIR without splits is read whole (default: %(default)s)",
    )  # fmt: skip
    evaluate.add_argument("--out", type=Path, help="folder for metrics, predictions and confusion matrix")
    evaluate.add_argument(
        "--workers", type=types.processes, default=2, help="processes that decode (default: %(default)s)"
    )
    _add_time_limit(evaluate)
    _add_json(evaluate)

    predict = command("predict", _predict, "classify videos")
    _add_model(predict)
    predict.add_argument(
        "videos", nargs="+", metavar="VIDEO",
        help="video file, folder of frames, or a folder, list or shards of videos",
    )  # fmt: skip
    predict.add_argument("--top", type=types.count, default=5, help="classes to name (default: %(default)s)")
    _add_speed(predict)
    _add_views(predict)
    predict.set_defaults(clips=1, crops=1)
    predict.add_argument(
        "--timeline", action="store_true", help="scores over the time of each video, as OUT/NAME.png, .csv and .json"
    )
    predict.add_argument(
        "--out", type=Path, metavar="DIR",
        help="FILE.csv: labels and scores as a table; FOLDER.parquet: of many videos, as tables in this folder, which "
        "goes on where it was cut off. With --timeline: folder for timelines (default: here)",
    )  # fmt: skip
    predict.add_argument(
        "--hop", type=types.count, help="frames from one clip of a timeline to the next (default: a clip)"
    )
    predict.add_argument(
        "--threshold", type=types.share, help="score from which a class is in a segment of a timeline (default: 0.5)"
    )
    _add_bulk(predict)
    _add_json(predict)

    explain = command("explain", _explain, "show what a model looks at in a video")
    explain.set_defaults(suffixes=(".mp4", ".gif", ".png", ".svg", ".pdf"))
    _add_model(explain)
    explain.add_argument("video", metavar="VIDEO", help="video file, or folder of frames")
    explain.add_argument("--out", type=Path, required=True, metavar="FILE", help="film (mp4, gif) or strip (png, svg)")
    explain.add_argument("--class", dest="of", metavar="NAME", help="what speaks for this class (default: rollout)")
    explain.add_argument(
        "--heads", choices=["mean", "max", "min"], default="mean", help="how rollout fuses heads (default: %(default)s)"
    )

    embed = command("embed", _embed, "write the features of many videos into one file")
    _add_model(embed)
    embed.add_argument("data", metavar="DATA", type=_data, help="folder or list of videos, labelled or not")
    embed.add_argument("--split", choices=["train", "val", "test"], default="test", help="of DATA (default: test)")
    embed.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="file to write (.safetensors); or FOLDER.parquet, for tables in this folder",
    )  # fmt: skip
    _add_speed(embed)
    _add_views(embed)
    embed.set_defaults(clips=1, crops=1, suffixes=(".safetensors", ".parquet"))
    _add_bulk(embed)

    draw = command("map", _map, "draw features as a map (t-SNE), or name the videos most like one")
    draw.set_defaults(suffixes=(".png", ".svg", ".pdf", ".html"))
    draw.add_argument("features", metavar="FEATURES", type=Path, help="file that `embed` wrote")
    draw.add_argument("--out", type=Path, metavar="FILE", help="picture (png, svg, pdf), or page to explore (html)")
    draw.add_argument("--near", metavar="VIDEO", help="one of the videos: name those most like it")
    draw.add_argument("--top", type=types.count, default=5, help="how many (default: %(default)s)")

    serve = command("serve", _serve, "a web page and an HTTP API that classify and explain videos")
    _add_model(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    serve.add_argument("--port", type=types.port, default=8000, help="(default: %(default)s)")
    serve.add_argument(
        "--workers", type=types.processes, default=1, help="processes with the model (default: %(default)s)"
    )
    serve.add_argument("--samples", type=Path, metavar="DIR", help="videos that the page offers")
    serve.add_argument("--max-megabytes", type=types.amount, default=200, help="of an upload (default: %(default)s)")
    serve.add_argument(
        "--max-duration", type=types.amount, default=3600, help="of a video, in s (default: %(default)s)"
    )
    serve.add_argument("--max-waiting", type=types.count, default=8, help="requests that wait (default: %(default)s)")
    serve.add_argument(
        "--max-seconds", type=types.seconds, default=120, help="of work for a request (default: %(default)s)"
    )
    serve.add_argument(
        "--max-start-seconds", type=types.seconds, default=600, help="for a worker to start (default: %(default)s)"
    )
    serve.add_argument(
        "--max-upload-space", type=types.amount, metavar="MB", help="of all uploads (default: what the others allow)"
    )
    serve.add_argument("--max-connections", type=types.count, default=512, help="open at once (default: %(default)s)")
    serve.add_argument(
        "--allow-host", action="append", default=[], type=_host, metavar="NAME",
        help="answer under this name or address too, as behind a proxy (default: names of this machine's loopback)",
    )  # fmt: skip

    reproduce = command("reproduce", _reproduce, "the paper's experiments, in miniature on generated videos or in full")
    reproduce.add_argument(
        "names", nargs="+", metavar="NAME",
        help="table1 to table8, figure2 to figure8, section4.7, inference-time, all; budget (with --data)",
    )  # fmt: skip
    reproduce.add_argument("--scale", choices=["mini", "full"], default="mini", help="(default: %(default)s)")
    reproduce.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder (default: %(default)s)")
    reproduce.add_argument("--seeds", type=types.count, help="how often each part is done (default: 3, in full 1)")
    reproduce.add_argument(
        "--data", nargs="+", default=[], metavar="DIR|NAME=DIR",
        help="a labelled folder of your own (mini), or the paper's data sets, as in k400=DIR ssv2=DIR (full)",
    )  # fmt: skip
    reproduce.add_argument(
        "--processes", type=types.processes, help="trainings at a time (default: one a GPU, or in miniature one a core)"
    )

    convert = command("convert", _convert, "write a model in another format")
    convert.add_argument("source", metavar="SRC", help=MODEL_HELP)
    convert.add_argument("destination", metavar="DST", type=Path, help="folder to write; a file for `released`")
    convert.add_argument(
        "--to", required=True, choices=["timesformer", "huggingface", "released"],
        help="this program's format, that of Hugging Face's transformers, or that of the authors' code",
    )  # fmt: skip
    convert.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one a line")
    _add_options(convert)

    push = command("push", _push, "upload a model, with a card, to the Hugging Face hub")
    _add_model(push)
    push.add_argument("repository", metavar="REPO", help="its id there, owner/name; it is made where there is none")
    push.add_argument("--private", action="store_true", help="a new repository is for its owner alone")
    push.add_argument("--data", metavar="TEXT", help="for the card: what the model was trained on, in a sentence")
    push.add_argument("--license", metavar="NAME", help="of the weights, as the hub names licences: apache-2.0, …")

    export = command("export", _export, "write a model for programs that know nothing of this one")
    export.set_defaults(suffixes=(".onnx", ".pt2"))
    _add_model(export)
    export.add_argument(
        "--to", required=True, choices=["onnx", "torch", "aoti"],
        help="ONNX, a program of torch.export, or one that AOTInductor compiled for this processor",
    )  # fmt: skip
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write (.onnx; else .pt2)")
    export.add_argument(
        "--video", nargs="+", action="extend", default=[], metavar="FILE", help="also compare the logits on these"
    )
    export.add_argument(
        "--tolerance",
        type=types.tolerance,
        default=1e-4,
        help="largest difference of a logit to let pass (default: %(default)s)",
    )
    _add_json(export)

    profile = command("profile", _profile, "parameters, multiply-accumulates, memory and time of a model")
    profile.set_defaults(suffixes=(".png", ".svg", ".pdf"))
    profile.add_argument(
        "name", metavar="NAME", help="a name, such as timesformer_base or slowfast_r50, or " + MODEL_HELP
    )
    profile.add_argument("--attention", help="attention scheme")
    profile.add_argument("--frames", type=types.frames, help="frames of a clip")
    profile.add_argument("--size", type=types.side, help="side of a frame in pixels")
    profile.add_argument("--classes", type=types.count, help="number of classes")
    _add_options(profile)
    profile.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="to measure in")
    profile.add_argument("--no-measure", action="store_true", help="count only, don't run the model")
    profile.add_argument(
        "--sweep",
        type=types.sweep,
        metavar="frames=8,16,…|size=224,…",
        help="count all schemes over clips, as in Figure 3",
    )
    profile.add_argument("--out", type=Path, metavar="FILE", help="picture of the sweep (png, svg, pdf)")
    _add_json(profile)

    schemes = command("schemes", _schemes, "draw which patches each attention scheme attends to (Figure 2)")
    schemes.set_defaults(suffixes=(".png", ".svg", ".pdf"))
    schemes.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture to write (png, svg, pdf)")
    schemes.add_argument(
        "--grid", type=types.grid, default=(5, 8, 8), metavar="T,H,W", help="frames, rows, columns (default: 5,8,8)"
    )
    schemes.add_argument("--query", type=types.place, metavar="t,h,w", help="patch that attends (default: the middle)")

    pack = command("pack", _pack, "pack many videos into few large files (shards), as they are or smaller")
    pack.add_argument("data", metavar="DATA", type=_data, help="folder or list of videos, labelled or not")
    pack.add_argument("--out", type=Path, required=True, metavar="SHARDS", help="folder for the shards")
    pack.add_argument(
        "--short-side", type=types.side, metavar="PX", help="scale frames down to this; without, bytes are copied"
    )
    pack.add_argument(
        "--shard-megabytes", type=types.amount, default=512, metavar="MB", help="size of a shard (default: %(default)s)"
    )
    pack.add_argument("--workers", type=types.processes, default=2, help="processes that decode (default: %(default)s)")
    _add_time_limit(pack)

    check = command("check", _check, "find every broken, short or unlabelled video before training does")
    check.add_argument("data", metavar="DATA", type=_data, help="folder or list of videos, or shards that `pack` wrote")
    check.add_argument("--min-frames", type=types.count, default=8, help="fewer count as short (default: %(default)s)")
    check.add_argument(
        "--workers", type=types.processes, default=2, help="processes that decode (default: %(default)s)"
    )
    _add_time_limit(check)
    _add_json(check)
    return parser


def _add_model(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one a line")
    _add_options(parser)


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the model, and where videos are read of how they are cut into clips, as in stride=8",
    )


def _add_speed(parser: Parser) -> None:
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float8", "int8"],
        help="rewrite the model for speed, to compute in this; float8 is for GPUs, int8 for CPUs",
    )
    parser.add_argument("--backend", choices=["torch", "openvino"], help="the same, to be run by this (default: torch)")
    parser.add_argument("--calibrate", type=Path, metavar="DIR", help="for int8: videos of the kind to be classified")


def _classifier(args: argparse.Namespace) -> VideoClassifier:
    """The model of a command, rewritten for speed if it is asked for."""
    return _source(args).load()


def _source(args: argparse.Namespace) -> ClassifierSource:
    from timesformer.predictor import ClassifierSource
    from timesformer.video.datasets import read_videos, splits

    source = ClassifierSource(args.model, args.classes, _options(args.set, videos=True))
    if getattr(args, "calibrate", None) and args.dtype != "int8":
        raise ValueError("--calibrate: only with --dtype int8")
    if getattr(args, "dtype", None) == "int8" and not args.calibrate:
        raise ValueError("--dtype int8: needs --calibrate DIR, videos of the kind to be classified")
    if not (getattr(args, "dtype", None) or getattr(args, "backend", None)):
        return source
    own = splits(args.calibrate) if args.calibrate else []
    split = next((name for name in ("train", "val", "test") if name in own), "train")
    videos = read_videos(args.calibrate, split).items if args.calibrate else ()
    some = tuple(item.path for item in videos[:: max(1, len(videos) // CALIBRATION)][:CALIBRATION])
    return dataclasses.replace(source, dtype=args.dtype, backend=args.backend, calibration=some)


def _add_data(parser: Parser) -> None:
    parser.add_argument(
        "--data",
        type=_data,
        required=True,
        metavar="DIR",
        help="folder of class folders, folder of `path label` lists (train.csv, val.csv, test.csv), one list, perhaps "
        "with a header such as path,label,split, or the "
        "annotation files of Kinetics, Something-Something-V2, Diving-48 or HowTo100M; or shards that `pack` wrote, "
        "a folder or an address such as s3://bucket/shards",
    )


def _add_views(parser: Parser) -> None:
    parser.add_argument(
        "--clips", type=types.clips, metavar="K", help="clips of a video, or `cover` to tile it (default: 1)"
    )
    parser.add_argument(
        "--crops", type=types.count, choices=[1, 3], help="crops of a clip (default: 1, for evaluate 3)"
    )


def _add_bulk(parser: Parser) -> None:
    parser.add_argument(
        "--workers", type=types.processes, default=2, help="processes that decode (default: %(default)s)"
    )
    _add_time_limit(parser)
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local",
        help="for --out FOLDER.parquet: this machine, or Ray, on the cluster of RAY_ADDRESS (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--replicas",
        type=types.count,
        metavar="N",
        help="with ray: models at a time, at most (default: one a GPU, or one)",
    )


def _add_time_limit(parser: Parser) -> None:
    parser.add_argument(
        "--time-limit", type=types.seconds, default=600, metavar="S",
        help="seconds to decode a video; one that takes longer is left out (default: %(default)s)",
    )  # fmt: skip


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - is standard output")


def _host(text: str) -> str:
    from timesformer.app.guard import host_name

    try:
        return host_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _data(text: str) -> Path | str:
    return text if "://" in text else Path(text)


def _options(settings: Sequence[str], *, videos: bool = False) -> dict[str, Any]:
    """Model options, and where `videos` are read those of how they are cut into clips, from `key=value` texts."""
    from timesformer.documents import parse_yaml
    from timesformer.model.timesformer import ModelConfig
    from timesformer.predictor import CUTTING
    from timesformer.ranges import shown
    from timesformer.typed import close_match

    known = [field.name for field in dataclasses.fields(ModelConfig)] + (list(CUTTING) if videos else [])
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"setting {setting!r} is not of the form key=value")
        if key in CUTTING and not videos:
            raise ValueError(
                f"--set {key}: how videos are cut into clips is set where videos are read, as in `predict`"
            )
        if key not in known:
            allowed = f": it is not one of {', '.join(known)}"
            raise ValueError(f"--set {shown(key)}{close_match(key, known, allowed)}")
        value = parse_yaml(text, f"setting {shown(setting)}")
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, dict | list) for each in values):
            raise ValueError(f"{key}={shown(value)}: must be one value or a flat list of them")
        options[key] = value
    return options


def _train(args: argparse.Namespace) -> int:
    from timesformer.distributed import locked, process_group, rank
    from timesformer.training.errors import Interrupted
    from timesformer.training.recipe import load_recipe, recipe_yaml

    saved = args.out / "recipe.yaml"
    name = args.recipe or (str(saved) if args.resume and saved.exists() else _default_recipe(args.set))
    fraction = [] if args.fraction is None else [f"data.fraction={args.fraction}"]
    recipe = load_recipe(name, [*args.set, *fraction])
    if args.print_recipe:
        write_out(recipe_yaml(recipe))
        return 0
    if args.val:
        used = [text for text in args.set if text.startswith("data.validation=")]
        if used:
            raise ValueError(f"--set {used[0]}: with --val, no videos are held out")
    _check_recipe_stays(args, saved)
    with process_group(), locked(args.out, folder=True):
        console.quiet = rank() > 0
        try:
            return _train_share(args, recipe, writes=rank() == 0)
        except Interrupted as stop:
            console.print("interrupted: the same command with --resume goes on from here")
            return 1 if stop.signal == signal.SIGINT else QUEUE_AGAIN


def _check_recipe_stays(args: argparse.Namespace, saved: Path) -> None:
    """See that a new run does not replace the file of its own recipe."""
    begun = args.resume or any((args.out / name).exists() for name in ("checkpoint.pt", "metrics.jsonl"))
    if args.recipe and not begun and saved.exists() and os.path.exists(args.recipe) and saved.samefile(args.recipe):
        raise ValueError(f"--out {args.out}: the run would replace its recipe, {saved}: name another folder")


def _train_share(args: argparse.Namespace, recipe: Recipe, writes: bool) -> int:
    import dataclasses

    from timesformer.display import TrainingDisplay
    from timesformer.epochs import read_epochs
    from timesformer.explain.report import write_report
    from timesformer.predictor import VideoClassifier
    from timesformer.training.loop import train
    from timesformer.training.outcome import evaluation_of_best, outcome
    from timesformer.video.clips import read_bad_videos
    from timesformer.video.datasets import splits, take_fraction, write_list
    from timesformer.video.shards import without_credentials

    videos, validation = _training_videos(args, recipe)
    used = take_fraction(videos, recipe.data.fraction, recipe.seed)
    held_out = args.out / "held_out.csv" if validation and not args.val and "val" not in splits(args.data) else None
    with TrainingDisplay(console, used, validation) as display:

        def on_report(report: Report) -> None:
            first_report = next(first, False)  # a run that is refused must leave an earlier list alone
            if first_report and writes and held_out and validation:
                write_list(held_out, validation)
            if report.validation:
                validated[report.epoch + 1] = report.validation
            display(report)

        first = iter([True])
        validated: dict[int, Evaluation] = {}
        train(videos, args.out, recipe, validation=validation, resume=args.resume, on_report=on_report)
    epochs = read_epochs(args.out / "metrics.jsonl")
    reached = outcome(epochs) if validation else None
    tested = None
    if reached and validation:
        tested = evaluation_of_best(args.out, reached, validated, validation, recipe.data.workers)
    if not writes:
        return 0
    lines = reached.lines(recipe.num_epochs(len(used.items))) if reached else []
    write_report(
        args.out / "report.html",
        title=f"Training: {args.out.resolve().name}",
        notes=lines
        and [*lines, "What follows is of the best model: the one that is used, as commands and load_model do."],
        evaluation=tested,
        classifier=VideoClassifier.from_pretrained(args.out),
        configuration=dataclasses.asdict(recipe),
        epochs=epochs,
        bad=read_bad_videos(args.out / "bad_videos.txt"),
    )
    for line in lines:
        console.print(line)
    for bad in (args.out / "bad_videos.txt", args.out / "bad_validation_videos.txt"):
        if bad.exists():
            videos_left_out = read_bad_videos(bad)
            missing = sum(video.is_missing for video in videos_left_out)
            not_there = f" ({missing} of them are not there)" if missing else ""
            console.note(f"{len(videos_left_out)} videos could not be read{not_there} and were left out: see {bad}")
    test = held_out or args.val or args.data
    address = shlex.quote(without_credentials(str(args.data)))
    allowing = f"TIMESFORMER_LISTED_ADDRESS={address} " if held_out and "://" in str(args.data) else ""
    words = shlex.join(["timesformer", "evaluate", str(args.out), "--data", without_credentials(str(test))])
    command = f"{allowing}{words}"
    used_model = args.out / ("best" if (args.out / "best").is_dir() else "last")
    console.print(f"model: {used_model}, which {args.out} stands for\nnext:  {command}", soft_wrap=True)
    return 0


def _tell_notes(videos: VideoList, earlier: Sequence[str] = ()) -> None:
    """Say how data was read where it could have been meant otherwise, but for notes that were shown earlier."""
    for note in videos.notes:
        if note not in earlier:
            console.note(f"note: {note}")
    if videos.missing:
        count = len(videos.missing)
        console.note(
            f"note: {count} of {count + len(videos.items)} videos that {videos.source} lists are not there, "
            f"such as {shown(videos.missing[0])}"
        )


def _default_recipe(settings: Sequence[str]) -> str:
    return "finetune" if any(setting.startswith(("init=", "init_from_image=")) for setting in settings) else "scratch"


def _training_videos(args: argparse.Namespace, recipe: Recipe) -> tuple[VideoList, VideoList | None]:
    """Videos to train on, and to validate on: --val, the data's own list, or a share of DIR that is held out."""
    from timesformer.video.datasets import hold_out, read_videos, splits

    videos = read_videos(args.data, "train")
    _tell_notes(videos)
    own = splits(args.data)
    if args.val or "val" in own:
        validation = read_videos(args.val or args.data, "val", classes=videos.classes)
        _tell_notes(validation, videos.notes)
        return videos, validation.for_task(videos.multi_label)
    if "test" in own or not recipe.data.validation:
        return videos, None
    rest, held = hold_out(videos, recipe.data.validation, recipe.seed)
    if not held.items:
        console.note("too few videos to hold any out: no validation")
        return videos, None
    return rest, held


def _note_split(args: argparse.Namespace) -> None:
    """Say which videos are read where DATA has no such split; ValueError where a list has none and one was given."""
    from timesformer.video.datasets import splits

    own = splits(args.data)
    if args.split in own:
        return
    if not Path(args.data).is_file():
        console.note(f"note: {args.data} has no {args.split} split; this is {'val' if own else 'all of it'}")
    elif not own:
        _refuse(args, ["split"], f"{args.data} is a list, which is read whole")


def _split_read(args: argparse.Namespace) -> str:
    """Which videos of DATA are read, in words."""
    from timesformer.video.datasets import splits
    from timesformer.video.shards import without_credentials

    own = splits(args.data)
    split = f"{args.split} split" if args.split in own else "val split" if own else "all"
    return f"{split} of {without_credentials(str(args.data))}"


def _evaluate(args: argparse.Namespace) -> int:
    from timesformer.distributed import locked, process_group, rank
    from timesformer.evaluation.evaluate import FILES, KEYS

    with process_group(), contextlib.ExitStack() as locks:
        console.quiet = rank() > 0
        if args.out:
            check_replaceable([args.out / name for name in FILES], KEYS, "an evaluation")
            locks.enter_context(locked(args.out, folder=True))
        return _evaluate_share(args, report=rank() == 0)


def _evaluate_share(args: argparse.Namespace, report: bool) -> int:
    from timesformer.display import evaluation_lines, track
    from timesformer.evaluation.evaluate import evaluate
    from timesformer.evaluation.protocols import PROTOCOLS
    from timesformer.evaluation.provenance import about_evaluation
    from timesformer.explain.report import write_report
    from timesformer.video.datasets import read_videos

    classifier = _classifier(args)
    videos = read_videos(args.data, args.split, classes=classifier.classes).for_task(classifier.model.multi_label)
    _tell_notes(videos)
    _note_split(args)
    if args.json not in (None, "-"):
        check_output(args.json, "--json", inputs=[item.path for item in videos.items])
    protocol = PROTOCOLS[args.protocol]
    clips, crops = args.clips or protocol.clips, args.crops or protocol.crops
    about = about_evaluation(args.model, args.data, args.split, videos, protocol, clips, crops)
    with track(console, "evaluate", len(videos.items)) as advance:
        result = evaluate(
            classifier.model, videos, classifier.preprocessing,
            clips=clips, crops=crops, protocol=protocol, workers=args.workers,
            time_limit=args.time_limit, on_video=advance,
        )  # fmt: skip
    if not report:
        return 0
    if args.out:
        result.write(args.out, about)
        asked: dict[str, Any] = {**about, "preprocessing": classifier.preprocessing.to_dict()}
        report_file = args.out / "report.html"
        title = f"{args.model} on {args.data}"
        write_report(report_file, title=title, evaluation=result, classifier=classifier, configuration=asked)
        console.print(f"written: {args.out}, with report.html to look at")
    summary = result.summary()
    for count, what in ((about["trained_on"], "trained on"), (about["chosen_by"], "chosen by")):
        if count:
            console.note(f"note: the model was {what} {count} of these {len(videos.items)} videos")
    _write_json(args.json, {**about, "preprocessing": classifier.preprocessing.to_dict(), **summary})
    if args.json != "-":
        say(*evaluation_lines(result, _split_read(args)))
    for bad in result.bad:
        console.print(f"[yellow]left out:[/] {_escape(bad.reason)}", markup=True, soft_wrap=True)
    return 0 if result.items else 1


def _predict(args: argparse.Namespace) -> int:
    from timesformer.display import track
    from timesformer.evaluation.bulk import find_inputs, rows_of, write_rows

    if (_is_table(args.out) or _is_csv(args.out)) and args.timeline:
        raise ValueError(f"--out {args.out}: timelines are written into a folder, not as tables")
    if args.out and not (args.timeline or _is_table(args.out) or _is_csv(args.out)):
        raise ValueError(f"--out {args.out}: must end in .csv or .parquet, or be a folder for --timeline")
    if not args.timeline and (args.hop or args.threshold is not None):
        raise ValueError("--hop, --threshold: only with --timeline")
    _check_engine(args)
    if args.timeline:
        unused = ["top", "clips", "crops", "workers", "time_limit", "engine", "replicas"]
        _refuse(args, unused, "not with --timeline, which scores all of a video, clip by clip")
        return _timelines(args)
    if _is_table(args.out):
        return _write_bulk(args, _bulk_job(args, "labels", find_inputs(args.videos)))
    job = _bulk_job(args, "labels", find_inputs(args.videos))
    if not job.videos:
        raise ValueError(f"{' '.join(args.videos)}: holds no videos")
    if args.out:
        check_output(args.out, "--out", suffixes=[".csv"], inputs=job.videos)
    with track(console, "predict", len(job.videos)) as advance:
        rows = rows_of(job, on_videos=advance)
    if args.out:
        write_rows(args.out, rows)
        console.print(f"written: {args.out}, {len(rows)} videos", soft_wrap=True)
    results: list[dict[str, Any]] = []
    for row in rows:
        result: dict[str, Any] = {"video": row["path"]}
        if row["error"]:
            result["error"] = row["error"]
        else:
            pairs = zip(row["labels"], row["scores"], strict=True)
            result["top"] = [{"label": label, "score": score} for label, score in pairs]
        results.append(result)
    _write_json(args.json, results)
    failed = [result["error"] for result in results if "error" in result]
    if args.json != "-" and not args.out:
        for result in results:
            if "top" in result:
                say(result["video"])
                for entry in result["top"]:
                    say(f"  {entry['score']:7.2%}  {entry['label']}")
    for message in failed:
        console.print(f"[red]error:[/] {_escape(message)}", markup=True, soft_wrap=True)
    return 1 if failed else 0


def _is_table(out: Path | None) -> bool:
    return out is not None and out.suffix == ".parquet"


def _is_csv(out: Path | None) -> bool:
    return out is not None and out.suffix == ".csv" and not out.is_dir()


def _check_engine(args: argparse.Namespace) -> None:
    if (args.engine == "ray" or args.replicas) and not _is_table(args.out):
        raise ValueError("--engine ray, --replicas: only with --out FOLDER.parquet")
    if args.replicas and args.engine != "ray":
        raise ValueError("--replicas: only with --engine ray")


def _bulk_job(args: argparse.Namespace, want: Literal["labels", "features"], videos: Sequence[VideoPath]) -> BulkJob:
    from timesformer.evaluation.bulk import BulkJob

    return BulkJob(
        _source(args), tuple(videos), want, top=getattr(args, "top", 1), clips=args.clips, crops=args.crops,
        workers=args.workers, time_limit=args.time_limit,
    )  # fmt: skip


def _write_bulk(args: argparse.Namespace, job: BulkJob) -> int:
    from timesformer.display import track
    from timesformer.distributed import process_group, rank
    from timesformer.evaluation.bulk import run_bulk
    from timesformer.evaluation.ray_engine import ray_engine

    engine = ray_engine(args.replicas) if args.engine == "ray" else None
    with process_group():
        console.quiet = rank() > 0
        with track(console, job.want, len(job.videos)) as advance:
            try:
                result = run_bulk(job, args.out, engine=engine, on_videos=advance)
            except KeyboardInterrupt:
                console.print("interrupted: the same command goes on from here")
                return 1
        if rank() == 0:
            _write_json(getattr(args, "json", None), {"out": str(args.out), **dataclasses.asdict(result)})
        told = f", {result.errors} of them with an error" if result.errors else ""
        console.print(f"written: {args.out}, {result.videos} rows{told}", soft_wrap=True)
    return 0


def _timelines(args: argparse.Namespace) -> int:
    from timesformer.evaluation.timeline import check_timeline
    from timesformer.lock import output_lock

    names = [os.path.basename(os.path.abspath(video)) for video in args.videos]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{twice[0]}: two videos have this name, and their timelines would have: give them one by one")
    stems = [(args.out or Path()) / name for name in names]
    for stem in stems:
        check_timeline(stem)
    with contextlib.ExitStack() as locks:
        for stem in stems:
            locks.enter_context(output_lock(stem, folder=False))
        return _write_timelines(args, stems, _classifier(args))


def _write_timelines(args: argparse.Namespace, stems: Sequence[Path], classifier: VideoClassifier) -> int:
    from timesformer.display import track_total
    from timesformer.evaluation.timeline import timeline
    from timesformer.video.decode import VideoError

    results: list[dict[str, Any]] = []
    threshold = 0.5 if args.threshold is None else args.threshold
    for video, stem in zip(args.videos, stems, strict=True):
        try:
            with track_total(console, stem.name) as progress:
                found = timeline(classifier, video, hop=args.hop, on_clip=progress)
        except VideoError as error:
            results.append({"video": video, "error": str(error)})
            console.print(f"[red]error:[/] {_escape(str(error))}", markup=True, soft_wrap=True)
            continue
        found.write(stem, threshold)
        console.print(f"written: {shown(stem)}.png, .csv, .json", soft_wrap=True)
        results.append(found.to_json(threshold))
        if args.json != "-":
            say(video)
            segments = found.segments(threshold)
            if not segments:
                say(f"  no class reaches {threshold:.0%}")
            for part in segments:
                say(f"  {part.start:8.1f} s to {part.end:8.1f} s  {part.score:7.2%}  {part.label}")
    _write_json(args.json, results)
    return 1 if any("error" in result for result in results) else 0


def _convert(args: argparse.Namespace) -> int:
    from timesformer.model.weights import convert

    convert(args.source, args.destination, args.to, classes=args.classes, **_options(args.set))
    console.print(f"written: {args.destination}")
    return 0


def _push(args: argparse.Namespace) -> int:
    from timesformer.model.card import run_folder
    from timesformer.models import load

    model = load(args.model, classes=args.classes, **_options(args.set))
    run = run_folder(args.model)
    say(model.push_to_hub(args.repository, run=run, data=args.data, license=args.license, private=args.private))
    return 0


def _export(args: argparse.Namespace) -> int:
    from timesformer.export import export_model

    done = export_model(_classifier(args), args.out, args.to, videos=args.video, tolerance=args.tolerance)
    _write_json(args.json, done.to_json())
    if args.json != "-":
        say(*done.lines())
    return 0


def _profile(args: argparse.Namespace) -> int:
    import torch

    from timesformer import models
    from timesformer.baselines.variants import BASELINES
    from timesformer.model.timesformer import ModelConfig
    from timesformer.model.variants import VARIANTS
    from timesformer.profiling import draw_sweep, profile, sweep

    _check_profile(args)
    given = {"attention": args.attention, "num_frames": args.frames, "image_size": args.size}
    given |= {"num_classes": args.classes}
    options = {**_options(args.set), **{name: value for name, value in given.items() if value is not None}}
    if args.name in (*VARIANTS, *BASELINES):
        with torch.device("meta"):
            model = models.create(args.name, **options)
    else:
        model = models.load(args.name, **options)
    if args.sweep:
        option, values = args.sweep
        if not isinstance(model.config, ModelConfig):
            raise ValueError(f"--sweep: {args.name} has no attention schemes")
        rows = sweep(model.config, option, values)
        _write_json(args.json, rows)
        if args.json != "-":
            for row in rows:
                say(f"{row['attention']:<22}{option}={row[option]:<6}{row['macs_per_view'] / 1e12:8.3f} T MACs")
        if args.out:
            draw_sweep(rows, option, args.out)
            console.print(f"written: {args.out}")
        return 0
    if not args.no_measure:
        console.print("running the model, to measure it …")
    found = profile(model, measure=not args.no_measure, dtype=args.dtype)
    _write_json(args.json, found.to_json())
    if args.json != "-":
        say(*found.lines())
    return 0


def _check_profile(args: argparse.Namespace) -> None:
    if args.no_measure:
        _refuse(args, ["dtype"], "not with --no-measure")
    if not args.sweep:
        _refuse(args, ["out"], "only a sweep (--sweep) has a picture")
        return
    _refuse(args, ["dtype", "no_measure"], "not with --sweep, which counts only")
    option, _ = args.sweep
    _refuse(args, ["attention", option], "a sweep goes over all of them")
    field = {"frames": "num_frames", "size": "image_size"}[option]
    for setting in args.set:
        if setting.partition("=")[0] in ("attention", "order", field):
            raise ValueError(f"--set {setting}: a sweep goes over all of them")


def _explain(args: argparse.Namespace) -> int:
    from timesformer.explain.explain import explain, write_explanation

    if args.of is not None:
        _refuse(args, ["heads"], "not with --class, which does not fuse heads by rollout")
    explanation = explain(_classifier(args), args.video, of=args.of, heads=args.heads)
    write_explanation(explanation, args.out)
    say(*explanation.caption())
    console.print(f"written: {args.out}")
    return 0


def _embed(args: argparse.Namespace) -> int:
    from timesformer.display import track
    from timesformer.distributed import process_group, rank
    from timesformer.evaluation.features import embed
    from timesformer.video.datasets import read_unlabelled

    _check_engine(args)
    _note_split(args)
    if _is_table(args.out):
        videos = read_unlabelled(args.data, args.split)
        _tell_notes(videos)
        return _write_bulk(args, _bulk_job(args, "features", [item.path for item in videos.items]))
    with process_group():
        console.quiet = rank() > 0
        classifier = _classifier(args)
        videos = read_unlabelled(args.data, args.split)
        _tell_notes(videos)
        with track(console, "embed", len(videos.items)) as advance:
            features, bad = embed(
                classifier.model, videos, classifier.preprocessing, args.out,
                clips=args.clips, crops=args.crops, workers=args.workers,
                time_limit=args.time_limit, on_video=advance,
            )  # fmt: skip
        for video in bad:
            console.print(f"[yellow]left out:[/] {_escape(video.reason)}", markup=True, soft_wrap=True)
        console.print(f"written: {args.out}, {len(features.paths)} videos of {features.values.shape[1]} features")
    return 0


def _map(args: argparse.Namespace) -> int:
    from timesformer.evaluation.features import Features
    from timesformer.explain.tsne import write_map

    if not (args.out or args.near):
        raise ValueError("map: give --out FILE, --near VIDEO, or both")
    if not args.near:
        _refuse(args, ["top"], "only with --near VIDEO")
    features = Features.load(args.features)
    if args.near:
        paths = [os.path.abspath(path) for path in features.paths]
        near = text_of(os.path.abspath(args.near))
        if near not in paths:
            raise ValueError(f"--near {args.near}: not one of the {len(features.paths)} videos of {args.features}")
        for other, similarity in features.nearest(paths.index(near), args.top):
            label = features.labels[other]
            say(f"{similarity:6.3f}  {features.paths[other]}  {features.classes[label] if label >= 0 else ''}")
    if args.out:
        write_map(features, args.out)
        console.print(f"written: {args.out}")
    return 0


def _serve(args: argparse.Namespace) -> int:
    try:
        from timesformer.app.connections import usual_bounds
        from timesformer.app.guard import host_name, is_loopback
        from timesformer.app.listen import Server, listen, log_sparingly
        from timesformer.app.server import Limits, create_app
        from timesformer.workers import JobError, WorkerLost
    except ImportError as error:
        raise ImportError(f"serve needs the extra `web`: pip install 'timesformer[web]' ({error})") from error

    if args.samples and not args.samples.is_dir():
        raise ValueError(f"--samples {args.samples}: no such folder")
    listening = listen(args.host, args.port)
    everywhere = args.host in ("", "0.0.0.0", "::")
    hosts = [*args.allow_host, *([] if everywhere else [host_name(args.host)])]
    limits = Limits(
        args.max_megabytes, args.max_duration, args.max_waiting, args.max_seconds,
        start_seconds=args.max_start_seconds, upload_megabytes=args.max_upload_space,
    )  # fmt: skip
    app = create_app(
        args.model,
        options={"classes": args.classes, **_options(args.set, videos=True)},
        limits=limits,
        workers=args.workers,
        threads=max(1, (os.cpu_count() or 1) // args.workers),
        samples=args.samples,
        hosts=hosts,
    )
    try:
        app.state.pool.start()  # here, so that a model that can't be loaded is one clear error
    except (JobError, WorkerLost) as error:
        raise ValueError(str(error)) from error
    name = "localhost" if everywhere else f"[{args.host}]" if ":" in args.host else args.host
    console.print(f"http://{name}:{listening.getsockname()[1]}   (ends with Ctrl-C)")
    if not is_loopback(name.strip("[]")) or everywhere:
        names = ", ".join(["localhost", *hosts])
        console.print(f"answers under these names only: {names}; --allow-host NAME allows another")
    log_sparingly()
    with contextlib.suppress(KeyboardInterrupt):
        Server(app, usual_bounds(args.max_connections), app.state.pool.close).run([listening])
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from timesformer.lock import output_lock
    from timesformer.reproduce.plan import Plan
    from timesformer.reproduce.reproduce import NO_TRAINING, check_out, names_of

    named = dict(text.split("=", 1) for text in args.data if "=" in text)
    own = [text for text in args.data if "=" not in text]
    if (args.scale == "full" and own) or (args.scale == "mini" and (named or len(own) > 1)):
        raise ValueError(f"--data {' '.join(args.data)}: one folder in miniature, NAME=DIR of the paper's data in full")
    if missing := [folder for folder in (*own, *named.values()) if not Path(folder).exists()]:
        raise ValueError(f"--data {missing[0]}: no such file or folder")
    plan = Plan(
        args.out,
        args.scale,
        seeds=args.seeds,
        data=Path(own[0]) if own else None,
        full_data={name: Path(folder) for name, folder in named.items()},
        processes=args.processes,
        say=lambda line: console.print(line, soft_wrap=True),
    )
    names = names_of(args.names)
    if all(name in NO_TRAINING for name in names):
        _refuse(args, ["scale", "seeds", "data", "processes"], f"{', '.join(names)}: nothing is trained for that")
    check_out(plan)
    with output_lock(plan.out, folder=True):
        return _reproduce_all(args, names, plan)


def _reproduce_all(args: argparse.Namespace, names: Sequence[str], plan: Plan) -> int:
    from timesformer.reproduce.reproduce import reproduce

    left_out = False
    for name in names:
        try:
            say(*reproduce(name, plan).splitlines())
        except KeyboardInterrupt:
            console.print(f"interrupted: the same command goes on, with what is in {args.out}", soft_wrap=True)
            return 1
        except ValueError as error:  # such as of data that are not there
            if len(names) == 1:
                raise
            console.print(f"[yellow]left out:[/] {_escape(str(error))}", markup=True, soft_wrap=True)
            left_out = True
    console.print(f"written: {args.out / 'results.md'}")
    return 1 if left_out else 0


def _schemes(args: argparse.Namespace) -> int:
    from timesformer.explain.schemes import draw_schemes
    from timesformer.model.attention import Grid

    t, h, w = args.grid
    draw_schemes(args.out, grid=Grid(t=t, h=h, w=w), query=args.query)
    console.print(f"written: {args.out}")
    return 0


def _pack(args: argparse.Namespace) -> int:
    from timesformer.display import track_total
    from timesformer.video.pack import pack

    with track_total(console, "pack") as progress:
        packing = pack(
            args.data, args.out, short_side=args.short_side, shard_megabytes=args.shard_megabytes,
            workers=args.workers, time_limit=args.time_limit, progress=progress,
        )  # fmt: skip
    for note in packing.notes:
        console.note(f"note: {note}")
    for bad in packing.bad:
        console.print(f"[yellow]left out:[/] {_escape(bad.reason)}", markup=True, soft_wrap=True)
    if packing.missing:
        console.note(f"note: {len(packing.missing)} videos that {args.data} lists are not there")
    console.print(f"written: {args.out}, {packing.videos} videos in {packing.shards} shards")
    return 0


def _check(args: argparse.Namespace) -> int:
    from timesformer.display import track_total
    from timesformer.video.check import check_videos

    with track_total(console, "check") as progress:
        report = check_videos(
            args.data, workers=args.workers, min_frames=args.min_frames, time_limit=args.time_limit, progress=progress
        )
    _write_json(args.json, report.to_json())
    if args.json != "-":
        say(*report.lines())
    return 0 if report.ok else 1


def _demo(args: argparse.Namespace) -> int:
    from timesformer.demo import run_demo

    return run_demo(args.out, args.seed, console)


def _write_json(file: str | None, value: Any) -> None:
    from timesformer.files import write_json

    if file == "-":
        write_out(json_text(value) + "\n")
    elif file:
        write_json(Path(file), value)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(shown(text))
