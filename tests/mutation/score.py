"""How many small faults the tests notice; by hand, never in CI.

    python tests/mutation/score.py [MODULE ...] [--count 40] [--seed 0] [--report FILE] [--again FILE]

Makes mutants of each module (see `mutants`), a seeded sample of `--count`, and runs for each the tests that belong to
the module until the first that fails. Prints each survivor with its line and change, and for each module how many were
killed, survived and ran out of time. `--report` keeps the outcomes as JSON; `--again` runs only the mutants that
survived in such a report, for tests that were added since. Mutants that are listed in `equivalent.txt` compute the
same as the source and do not count.

A process imports PyTorch and all else that is not mutated once, and is forked for each mutant. The mutant lies in a
copy of `src`, so that commands which a test starts see it too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # no test here needs one, and they take long to load
ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
_IDLE = 1800.0  # seconds

sys.path.insert(0, str(ROOT))
from tests.mutation.mutants import Mutant, mutants  # noqa: E402

# The tests of each module, fast ones first; of files that take minutes, those that say most.
_LOOP = "tests/training/test_loop.py::test_"
_SHARED = "tests/training/test_distributed.py::test_"
_EVALUATE = "tests/evaluation/test_evaluate.py::test_"
TESTS: dict[str, list[str]] = {
    "video/sampling.py": ["tests/video/test_sampling.py"],
    "video/transforms.py": ["tests/video/test_transforms.py", "tests/video/test_transform_numbers.py"],
    "model/attention.py": [
        "tests/model/test_costs.py", "tests/model/test_attention.py",
        *(f"tests/model/test_timesformer.py::test_{name}" for name in (
            "divided_attention_is_the_dense_definition", "what_training_leaves_out_changes_nothing",
        )),
    ],
    "evaluation/metrics.py": ["tests/evaluation/test_metrics.py"],
    "evaluation/views.py": [
        "tests/evaluation/test_views.py",
        f"{_EVALUATE}views_are_the_frames_and_crops_they_should_be", f"{_EVALUATE}views_of_small_videos_are_enlarged",
        f"{_EVALUATE}usual_batches_are_of_like_pixels", f"{_EVALUATE}batches_are_halved_where_memory_runs_out",
        f"{_EVALUATE}scores_are_the_mean_of_softmax", f"{_EVALUATE}covering_views_show_every_part",
        f"{_EVALUATE}each_frame_is_decoded_once", f"{_EVALUATE}wrong_views",
    ],
    "evaluation/timeline.py": ["tests/evaluation/test_timeline.py"],
    "training/order.py": [
        "tests/training/test_order.py",
        f"{_LOOP}every_epoch_takes_every_video_once_from_any_step_on", f"{_SHARED}processes_share_every_step",
        f"{_LOOP}accumulated_micro_batches_give_the_gradient_of_the_whole",
    ],
    "training/optimizer.py": ["tests/training/test_optimizer.py"],
    "training/checkpoint.py": [
        "tests/training/test_checkpoint.py",
        f"{_SHARED}a_damaged_checkpoint_falls_back_to_the_one_before",
        f"{_SHARED}without_a_latest_checkpoint_there_is_the_one_before",
        f"{_SHARED}a_disk_without_links_keeps_two_checkpoints_too",
        f"{_SHARED}a_full_disk_leaves_the_last_good_checkpoint",
        f"{_LOOP}resuming_after_any_step_is_exact[3]",
    ],
    "training/step.py": [
        "tests/training/test_step.py",
        f"{_LOOP}a_loss_that_is_not_finite_stops_the_run",
        f"{_LOOP}accumulated_micro_batches_give_the_gradient_of_the_whole",
        f"{_LOOP}a_broken_video_is_left_out_and_named", f"{_LOOP}several_labels_a_video",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What the tests made of a mutant: `killed`, `survived` or `timed out`; and the processor's seconds."""

    module: str
    line: int
    text: str
    change: str
    outcome: str
    seconds: float


class Runner:
    """Runs tests on a copy of the package, in a fork of this process for each run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "src" / "timesformer"
        shutil.copytree(ROOT / "src" / "timesformer", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        os.environ["PYTHONPATH"] = str(folder / "src")
        sys.path.insert(0, str(folder / "src"))
        os.chdir(ROOT)
        _import_what_is_not_mutated()

    def run(self, module: str, source: str, tests: list[str], limit: int) -> tuple[str, float]:
        """The outcome of the tests with a source in the place of a module's, and the processor's seconds they took."""
        # Compiled modules are kept of the first run alone: a mutant is not to be taken for the one before it.
        fault = source != (ROOT / "src" / "timesformer" / module).read_text(encoding="utf-8")
        sys.dont_write_bytecode = fault
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1" if fault else ""
        file = self.package / module
        plain = file.read_text(encoding="utf-8")
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            compiled.unlink()
        file.write_text(source, encoding="utf-8")
        try:
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
                _test(self.folder, tests)
            return _outcome(child)
        finally:
            file.write_text(plain, encoding="utf-8")


def _import_what_is_not_mutated() -> None:
    import hypothesis
    import matplotlib.figure  # noqa: F401
    import pytest  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import timesformer.evaluation.timeline
    import timesformer.training.loop
    import timesformer.video.synthetic  # noqa: F401

    for name in [name for name in sys.modules if name.split(".")[0] == "timesformer"]:
        del sys.modules[name]
    hypothesis.settings.register_profile(
        "mutants", deadline=None, database=None, derandomize=True,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )  # fmt: skip
    hypothesis.settings.load_profile("mutants")


def _test(folder: Path, tests: list[str]) -> None:
    """Run tests in this process, a fork, and end it: 0 where they pass."""
    code = 3
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        import pytest

        options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", f"--basetemp={folder / 'pytest'}"]
        code = int(pytest.main([*options, *tests]))
    finally:
        os._exit(code)


def _outcome(child: int) -> tuple[str, float]:
    """The limit is one of the processor's time, as other work may slow all of this down; `_IDLE` is for what waits."""
    end = time.monotonic() + _IDLE
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            over = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
            outcome = "timed out" if over else "survived" if status == 0 else "killed"
            return outcome, usage.ru_utime + usage.ru_stime
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            end = math.inf
        time.sleep(0.02)


def equivalents() -> set[tuple[str, str, str]]:
    """Module, source text and change of each mutant that is no fault; a fourth column says why."""
    lines = EQUIVALENT.read_text(encoding="utf-8").splitlines() if EQUIVALENT.exists() else []
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {(module, text, change) for module, text, change, _ in rows}


def score(runner: Runner, module: str, sample: list[Mutant]) -> list[Outcome]:
    """Run a module's tests on mutants of it, after a run without a fault, which must pass."""
    source, tests = (ROOT / "src" / "timesformer" / module).read_text(encoding="utf-8"), TESTS[module]
    outcome, usual = runner.run(module, source, tests, 600)
    if outcome != "survived":
        raise SystemExit(f"{module}: its tests fail without a fault:\n{(runner.folder / 'log.txt').read_text()}")
    print(f"{module}: {len(sample)} mutants, tests take {usual:.1f} s", flush=True)
    outcomes = []
    for mutant in sample:
        outcome, seconds = runner.run(module, mutant.source, tests, 10 + round(3 * usual))
        outcomes.append(Outcome(module, mutant.line, mutant.text, mutant.change, outcome, round(seconds, 1)))
        if outcome == "survived":
            print(f"  {module}:{mutant.line}\n    - {mutant.text}\n    + {mutant.change}", flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}; all if none is given")
    parser.add_argument("--count", type=int, help="mutants of each module; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--report", type=Path, help="JSON file for the outcomes")
    parser.add_argument("--again", type=Path, help="only the mutants that survived in this report")
    arguments = parser.parse_args()
    if unknown := set(arguments.modules) - set(TESTS):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(TESTS)}")
    before = [Outcome(**each) for each in json.loads(arguments.again.read_text())] if arguments.again else None
    same = equivalents()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        runner = Runner(Path(folder))
        for module in arguments.modules or TESTS:
            every = mutants((ROOT / "src" / "timesformer" / module).read_text(encoding="utf-8"))
            if before is None:
                every = [mutant for mutant in every if (module, mutant.text, mutant.change) not in same]
                count = len(every) if arguments.count is None else min(arguments.count, len(every))
                chosen = random.Random(f"{arguments.seed} {module}").sample(range(len(every)), count)
                sample = [every[number] for number in sorted(chosen)]
                kept: list[Outcome] = []
            else:
                mine = [each for each in before if each.module == module]
                mine = [each for each in mine if (module, each.text, each.change) not in same]
                again = {(each.line, each.text, each.change) for each in mine if each.outcome == "survived"}
                sample = [mutant for mutant in every if (mutant.line, mutant.text, mutant.change) in again]
                kept = [each for each in mine if each.outcome != "survived"]
            outcomes += kept + (score(runner, module, sample) if sample else [])
            if arguments.report:
                arguments.report.write_text(json.dumps([asdict(each) for each in outcomes], indent=0))
    _print_table(outcomes)


def _print_table(outcomes: list[Outcome]) -> None:
    print(f"{'module':26} mutants killed survived timed out score")
    for module in [*dict.fromkeys(each.module for each in outcomes), "all"]:
        mine = [each.outcome for each in outcomes if module in ("all", each.module)]
        counts = [mine.count(outcome) for outcome in ("killed", "survived", "timed out")]
        share = 1 - counts[1] / max(len(mine), 1)
        print(f"{module:26} {len(mine):7} {counts[0]:6} {counts[1]:8} {counts[2]:9} {share:6.1%}")


if __name__ == "__main__":
    main()
