"""The command line: one subcommand a job, each a thin call into the package.

Exit codes: 0 done, 1 the job failed (for `predict`: on any of the videos), 2 wrong use.
With `--json -`, standard output holds the JSON and nothing else.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from timesformer.evaluation.views import Clips
    from timesformer.training.recipe import Recipe
    from timesformer.video.datasets import VideoList

# Progress and messages go to standard error: standard output is for results. Each command imports what it needs,
# so that help and wrong use are answered at once.
console = Console(stderr=True, highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the result is its exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        code: int = args.run(args)
        return code
    except KeyboardInterrupt:
        console.print("interrupted")
        return 1
    except _expected_errors() as error:
        console.print(f"[red]error:[/] {_escape(str(error))}", soft_wrap=True)
        return 1


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is all that a user needs."""
    from timesformer.model.tensors import WeightsError
    from timesformer.training.loop import TrainingError
    from timesformer.training.recipe import RecipeError
    from timesformer.video.datasets import DataError
    from timesformer.video.decode import VideoError

    return (WeightsError, TrainingError, RecipeError, DataError, VideoError, ValueError, OSError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="timesformer", description="Video understanding by space-time attention.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    demo = command("demo", _demo, "the whole story on generated videos, in minutes on a laptop")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write to (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="seed of videos and training (default: %(default)s)")

    train = command("train", _train, "train a model on labelled videos")
    _add_data(train)
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="scratch (default), finetune (default with --set init=…), paper, or a YAML file",
    )
    train.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="change the recipe, as in: --set epochs=50 data.flip=0 model.depth=8",
    )  # fmt: skip
    train.add_argument("--print-recipe", action="store_true", help="print the recipe, with all its keys, and stop")
    train.add_argument("--val", type=Path, help="videos to validate on; by default DIR's own validation list")
    train.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")

    evaluate = command("evaluate", _evaluate, "test a model on labelled videos")
    _add_model(evaluate)
    _add_data(evaluate)
    _add_views(evaluate)
    evaluate.add_argument(
        "--split", default="test", choices=["train", "val", "test"],
        help="which list or folder of DIR; a DIR without splits is read whole (default: %(default)s)",
    )  # fmt: skip
    evaluate.add_argument("--out", type=Path, help="folder for metrics, predictions and confusion matrix")
    evaluate.add_argument("--workers", type=_count, default=2, help="processes that decode (default: %(default)s)")
    _add_json(evaluate)

    predict = command("predict", _predict, "classify videos")
    _add_model(predict)
    predict.add_argument("videos", nargs="+", metavar="VIDEO", help="video file, or folder of frames")
    predict.add_argument("--top", type=_count, default=5, help="classes to name (default: %(default)s)")
    _add_views(predict)
    _add_json(predict)

    check = command("check", _check, "find every broken, short or unlabelled video before training does")
    check.add_argument("data", metavar="DATA", type=Path, help="folder or list of videos")
    check.add_argument("--min-frames", type=_count, default=8, help="fewer count as short (default: %(default)s)")
    check.add_argument("--workers", type=_count, default=2, help="processes that decode (default: %(default)s)")
    _add_json(check)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder of a model or of a training run")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of class folders, folder of `path label` lists (train.csv, val.csv, test.csv), or one list",
    )


def _add_views(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clips", type=_clips, default=1, metavar="K", help="clips of a video, or `cover` to tile it (default: 1)"
    )
    parser.add_argument("--crops", type=int, choices=[1, 3], default=1, help="crops of a clip (default: %(default)s)")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - is standard output")


def _count(text: str) -> int:
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")


def _clips(text: str) -> Clips:
    return "cover" if text == "cover" else _count(text)


def _train(args: argparse.Namespace) -> int:
    from timesformer.display import TrainingDisplay
    from timesformer.training.loop import train
    from timesformer.training.recipe import load_recipe, recipe_yaml
    from timesformer.video.datasets import splits, write_list

    saved = args.out / "recipe.yaml"
    name = args.recipe or (str(saved) if args.resume and saved.exists() else _default_recipe(args.set))
    recipe = load_recipe(name, args.set)
    if args.print_recipe:
        print(recipe_yaml(recipe), end="")
        return 0
    videos, validation = _training_videos(args, recipe)
    with TrainingDisplay(console, videos, validation) as display:
        try:
            train(videos, args.out, recipe, validation=validation, resume=args.resume, on_report=display)
        except KeyboardInterrupt:
            console.print("interrupted: the same command with --resume goes on from here")
            return 1
    bad = args.out / "bad_videos.txt"
    if bad.exists():
        count = len(bad.read_bytes().splitlines())
        console.print(f"[yellow]{count} videos could not be decoded and were left out: see {bad}[/]")
    test = args.data
    if validation and not args.val and "val" not in splits(args.data):
        test = args.out / "held_out.csv"  # written now: a run that was refused must leave an earlier one's list alone
        write_list(test, validation)
    console.print(f"model: {args.out}\nnext:  timesformer evaluate {args.out} --data {test}", soft_wrap=True)
    return 0


def _default_recipe(settings: Sequence[str]) -> str:
    return "finetune" if any(setting.startswith("init=") for setting in settings) else "scratch"


def _training_videos(args: argparse.Namespace, recipe: Recipe) -> tuple[VideoList, VideoList | None]:
    """Videos to train on, and to validate on: --val, the data's own list, or a share of DIR that is held out."""
    from timesformer.video.datasets import hold_out, read_videos, splits

    videos = read_videos(args.data, "train")
    own = splits(args.data)
    if args.val or "val" in own:
        validation = read_videos(args.val or args.data, "val", classes=videos.classes)
        return videos, validation.for_task(videos.multi_label)
    if "test" in own or not recipe.data.validation:
        return videos, None
    rest, held = hold_out(videos, recipe.data.validation, recipe.seed)
    if not held.items:
        console.print("[yellow]too few videos to hold any out: no validation[/]")
        return videos, None
    return rest, held


def _evaluate(args: argparse.Namespace) -> int:
    from timesformer.display import track
    from timesformer.evaluation.evaluate import evaluate
    from timesformer.predictor import VideoClassifier
    from timesformer.video.datasets import read_videos, splits

    classifier = VideoClassifier.from_pretrained(args.model)
    videos = read_videos(args.data, args.split, classes=classifier.classes).for_task(classifier.model.multi_label)
    if args.data.is_dir() and args.split not in (own := splits(args.data)):
        console.print(
            f"[yellow]note: {args.data} has no {args.split} split; this is {'val' if own else 'all of it'}[/]"
        )
    with track(console, "evaluate", len(videos.items)) as advance:
        result = evaluate(
            classifier.model, videos, classifier.preprocessing,
            clips=args.clips, crops=args.crops, workers=args.workers, on_video=advance,
        )  # fmt: skip
    if args.out:
        result.write(args.out)
        console.print(f"written: {args.out}")
    summary = result.summary()
    _write_json(args.json, {"model": str(args.model), "clips": args.clips, "crops": args.crops, **summary})
    if args.json != "-":
        for name in ("top1", "top5", "mean_class_accuracy", "mean_average_precision"):
            if name in summary:
                print(f"{name:24}{summary[name]:7.2%}")
        print(f"{'videos':24}{summary['videos']:7}")
    for bad in result.bad:
        console.print(f"[yellow]left out:[/] {_escape(bad.reason)}", soft_wrap=True)
    return 0 if result.items else 1


def _predict(args: argparse.Namespace) -> int:
    from timesformer.display import track
    from timesformer.predictor import VideoClassifier
    from timesformer.video.decode import VideoError

    classifier = VideoClassifier.from_pretrained(args.model)
    results: list[dict[str, Any]] = []
    with track(console, "predict", len(args.videos)) as advance:
        for video in args.videos:
            try:
                top = classifier.predict(video, top=args.top, clips=args.clips, crops=args.crops)
                results.append({"video": video, "top": [{"label": label, "score": score} for label, score in top]})
            except VideoError as error:
                results.append({"video": video, "error": str(error)})
            advance()
    _write_json(args.json, results)
    failed = [result["error"] for result in results if "error" in result]
    if args.json != "-":
        for result in results:
            if "top" in result:
                print(result["video"])
                for entry in result["top"]:
                    print(f"  {entry['score']:7.2%}  {entry['label']}")
    for message in failed:
        console.print(f"[red]error:[/] {_escape(message)}", soft_wrap=True)
    return 1 if failed else 0


def _check(args: argparse.Namespace) -> int:
    from timesformer.display import track_total
    from timesformer.video.check import check_videos

    with track_total(console, "check") as progress:
        report = check_videos(args.data, workers=args.workers, min_frames=args.min_frames, progress=progress)
    _write_json(args.json, report.to_json())
    if args.json != "-":
        print("\n".join(report.lines()))
    return 0 if report.ok else 1


def _demo(args: argparse.Namespace) -> int:
    from timesformer.demo import run_demo

    return run_demo(args.out, args.seed, console)


def _write_json(file: str | None, value: Any) -> None:
    from timesformer.files import write_json

    if file == "-":
        print(json.dumps(value, indent=2))
    elif file:
        write_json(Path(file), value)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
