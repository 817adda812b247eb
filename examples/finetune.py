"""Fine-tune a model on your own videos, test it, and write it down.

    python finetune.py VIDEOS RUN --init timesformer_base_k400

VIDEOS is a folder of class folders (or any other that `timesformer train --data` takes), RUN a new folder. A fifth of
the videos is kept aside for the test. Interrupted? The same command goes on.
"""

import argparse
from pathlib import Path

import timesformer
from timesformer.evaluation.evaluate import evaluate
from timesformer.training.loop import Report, train
from timesformer.training.recipe import load_recipe
from timesformer.video.datasets import hold_out, read_videos


def show(report: Report) -> None:
    """A line an epoch."""
    if report.step == report.steps and not report.validation:
        print(f"epoch {report.epoch + 1}/{report.epochs}  loss {report.loss:.3f}  top-1 {report.top1:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--init", required=True, help="model to start from: a folder, a file, a hub id or a short name")
    parser.add_argument("--set", nargs="*", default=[], help="changes of the recipe, such as epochs=10 batch_size=8")
    args = parser.parse_args()

    videos = read_videos(args.videos, "train")
    rest, test = hold_out(videos, 0.2, seed=0)
    recipe = load_recipe("finetune", [f"init={args.init}", *args.set])
    train(rest, args.run, recipe, resume=True, on_report=show)

    classifier = timesformer.VideoClassifier.from_pretrained(args.run)
    result = evaluate(classifier.model, test, classifier.preprocessing, crops=3)
    result.write(args.run / "evaluation")
    print(f"{result.accuracy:.1%} of {len(result.items)} videos that it did not learn from")
    for label, score in classifier.predict(test.items[0].path, top=3):
        print(f"{score:6.1%}  {label}")


if __name__ == "__main__":  # processes that decode may import this file again
    main()
