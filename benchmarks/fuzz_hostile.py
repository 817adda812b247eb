"""Thousands of mutated recipes, configurations, indexes and lists, each given to a command in a process of its own.

What comes from others must run nothing and open nothing. Each command is watched by an audit hook: a module that is
imported, a program that is started, a socket, or a file outside the case's own folder is a finding; so are a
traceback, an unknown exit code, more than 1.5 GB of memory and more than 10 s. Everything runs in a network namespace
without routes; where strace is installed, it watches for sockets that FFmpeg would open, which no Python hook sees.

    python benchmarks/fuzz_hostile.py [--count 2000] [--seed 0] [--only KIND]

Linux and root, for the namespace.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml
from fuzz import make_files, mutate, mutate_value

from timesformer.baselines import create_baseline
from timesformer.cli import main as command_line
from timesformer.video.synthetic import write_dataset

MEMORY, SECONDS = 1_500_000_000, 10
CODE = {"class_path": "tempfile.mkdtemp", "init_args": {"prefix": "PWNED", "dir": "."}}  # seen by what it leaves
DEEP: Any = "x"
for _ in range(500):
    DEEP = [DEEP]
# Values that an attacker would write into any place.
HOSTILE: list[Any] = [
    *(
        CODE,
        {"class_path": "os.system", "init_args": {"command": "id > PWNED"}},
        {"_target_": "os.system"},
        [CODE],
        DEEP,
    ),
    *("ftp://127.0.0.1:9/s.tar/v.mp4", "http://127.0.0.1:9/v.mp4", "https:/127.0.0.1/v.mp4", "s3://b/s.tar/v.mp4"),
    *("hf://datasets/a/b/v.mp4", "memory://s.tar/v.mp4", "simplecache::http://127.0.0.1:9/s.tar", "file:///etc/passwd"),
    *("\\\\127.0.0.1\\share\\v.mp4", "/etc/passwd", "../../../../../../etc/passwd", "/dev/zero", "/dev/stdin"),
    *("/proc/self/environ", "concat:/etc/passwd|x", "-", ".", "", "a\0b", "x" * 100_000, "$HOME", "${oc.env:HOME}"),
    *("@/etc/passwd", "!!python/object/apply:os.system ['id > PWNED']", ".m3u8", "/../../x", "٣", "\ud800", "\x1b]0;x"),
    *(None, True, -1, 0, 2**31, 2**63, 10**18, 10**400, 1e308, -1e308, float("inf"), float("nan"), [], {}),
    [1] * 100_000,
]


def bomb(line: str) -> str:
    """YAML in which each line repeats the one above it several times."""
    return "".join(line.format(b=b, a=a) for a, b in zip("abcdefgh", "bcdefghi", strict=True))


TEXTS = [
    "a: &a [x, x, x, x, x, x, x, x, x]\n" + bomb("{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"),
    "a: &a {x: 1}\n" + bomb("{b}: &{b} {{<<: [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]}}\n"),
    *("&a [*a]", "[" * 20_000, '{"a":' * 20_000, "9" * 5000, "\0", "\xff\xfe", "%YAML 9.9\n---\nx", "--- \n--- \n"),
    "model: !!python/object/apply:os.system ['id > PWNED']",
    *("base: /dev/stdin", "base: recipe.yaml", "base: http://127.0.0.1:9/x.yaml"),
]


def twist(value: Any, chance: random.Random) -> Any:
    """A tree with a hostile value in some place, or mutated in another way."""
    if chance.random() < 0.3:
        return mutate_value(value, chance)
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        changed = {**value, key: twist(value[key], chance)}
        return {**changed, **CODE} if chance.random() < 0.05 else changed
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], twist(value[place], chance), *value[place + 1 :]]
    return CODE if chance.random() < 0.4 else chance.choice(HOSTILE)


def spoil_tree(file: Path, chance: random.Random, load: Callable[[str], Any], dump: Callable[[Any], str]) -> None:
    if chance.random() < 0.15:
        file.write_text(chance.choice(TEXTS), encoding="utf-8", errors="surrogateescape")
    elif chance.random() < 0.2:
        file.write_bytes(mutate(file.read_bytes(), b'{"class_path": "os.system"}', chance))
    else:
        tree = load(file.read_text())
        for _ in range(chance.choice([1, 1, 2, 3])):
            tree = twist(tree, chance)
        file.write_bytes(dump(tree).encode("utf-8", "surrogatepass"))


spoil_json = partial(spoil_tree, load=json.loads, dump=json.dumps)
spoil_yaml = partial(spoil_tree, load=yaml.safe_load, dump=partial(yaml.safe_dump, allow_unicode=True))


def spoil_lines(file: Path, chance: random.Random) -> None:
    """A list of lines in which some fields are hostile."""
    if chance.random() < 0.2:
        file.write_bytes(mutate(file.read_bytes(), b"ftp://127.0.0.1:9/s.tar/v.mp4,0\n", chance))
        return
    lines = file.read_text().splitlines()
    for _ in range(chance.choice([1, 2, 3])):
        row = chance.randrange(len(lines))
        gap = next((mark for mark in ",;\t " if mark in lines[row]), " ")
        fields = lines[row].split(gap)
        fields[chance.randrange(len(fields))] = str(chance.choice(HOSTILE))
        lines[row] = gap.join(fields)
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))


def spoil_cfg(file: Path, chance: random.Random) -> None:
    """The YAML text in a checkpoint of the authors' form, or the shapes of its weights."""
    content = torch.load(file, weights_only=True)
    text = file.with_suffix(".yaml")
    text.write_text(content["cfg"])
    spoil_yaml(text, chance)
    content["cfg"] = text.read_text(encoding="utf-8", errors="surrogateescape")
    if chance.random() < 0.3:
        state = content["model_state"]
        name = chance.choice(list(state))
        state[chance.choice([name, f"model.blocks.{10 ** chance.randrange(9)}.norm1.weight"])] = torch.zeros(1).expand(
            *chance.choice([(30_000, 30_000), (2**40,), (0, 2**40), tuple([1] * 40)])
        )
    torch.save(content, file)


def spoil_options(argv: list[str], chance: random.Random) -> list[str]:
    """The command with one absurd option more."""
    names = ("time-limit", "clips", "workers", "top", "set", "crops", "threshold", "hop")
    option = f"--{chance.choice(names)}"
    value = str(chance.choice([each for each in HOSTILE if "\0" not in str(each)])).encode("utf-8", "replace").decode()
    if option == "--set":
        value = f"{chance.choice(['num_frames', 'image_size', 'depth', 'embed_dim', 'attention', 'x'])}={value[:1000]}"
    return [*argv, f"{option}={value[:1000]}"]


@dataclass(frozen=True)
class Kind:
    """A kind of document: the commands that read it, and how the case's file is spoilt. `{}` is the case's folder."""

    file: str
    spoil: Callable[..., None]
    commands: tuple[str, ...]


PREDICT = "predict {}/%s {}/data/v0.mp4 --json -"
TABLE = "predict {}/own {}/%s --out {}/out.parquet --workers 1 --time-limit 5"
CHECK = "check {}/%s --workers 1 --time-limit 5"
EVALUATE = "evaluate {}/own --data {}/%s --workers 1 --crops 1"
PACK = "pack {}/%s --out {}/packed --workers 1"
RECIPES = (
    "train --recipe {}/recipe.yaml --data {}/data --out {}/out --print-recipe",
    "train --recipe {}/recipe.yaml --data {}/none --out {}/out",
    "train --recipe {}/above.yaml --data {}/data --out {}/out --print-recipe",
)
LISTS = (CHECK % "data", TABLE % "data/train.csv", PACK % "data", EVALUATE % "data/train.csv")
SHARDS = (
    *(TABLE % "shards", CHECK % "shards", EVALUATE % "shards", PACK % "shards"),
    "embed {}/own {}/shards --out {}/f.safetensors --workers 1",
)
CLASSES = (CHECK % "data", PREDICT % "own" + " --classes {}/data/classes.txt")
OPTIONS = (PREDICT % "own", TABLE % "data", EVALUATE % "data")
KINDS = {
    "recipe": Kind("recipe.yaml", spoil_yaml, RECIPES),
    "recipe of a run": Kind("run/recipe.yaml", spoil_yaml, ("train --resume --data {}/none --out {}/run",)),
    "configuration": Kind("own/config.json", spoil_json, (PREDICT % "own", "profile {}/own --no-measure")),
    "of Hugging Face": Kind("hf/config.json", spoil_json, (PREDICT % "hf", "convert {}/hf {}/new --to timesformer")),
    "processor of Hugging Face": Kind("hf/preprocessor_config.json", spoil_json, (PREDICT % "hf",)),
    "of a baseline": Kind("baseline/config.json", spoil_json, ("profile {}/baseline --no-measure",)),
    "released checkpoint": Kind("released/model.pyth", spoil_cfg, (PREDICT % "released/model.pyth",)),
    "index of shards": Kind("shards/shards.json", spoil_json, SHARDS),
    "list": Kind("data/train.csv", spoil_lines, LISTS),
    "names of classes": Kind("data/classes.txt", spoil_lines, CLASSES),
    "Kinetics' list": Kind("kinetics/train.csv", spoil_lines, (CHECK % "kinetics",)),
    "Something-Something's lists": Kind("ssv2/train.json", spoil_json, (CHECK % "ssv2",)),
    "options": Kind("", lambda *_: None, OPTIONS),
}


def make_originals(folder: Path) -> None:
    """Whole and harmless files of every kind."""
    make_files(folder)
    recipe = folder / "recipes" / "recipe.yaml"
    model = {"name": "timesformer_tiny", "attention": "divided_space_time", "order": "time_space", "depth": 2}
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), "model": model}))
    shutil.copy(recipe, folder / "recipe.yaml")
    (folder / "above.yaml").write_text(f"base: {folder}/recipe.yaml\nsteps: 3\n")
    shutil.copy(recipe, folder / "run" / "recipe.yaml")
    write_dataset(folder / "films", "motion", train=9, val=0, test=0, seed=0)
    for number, film in enumerate(sorted((folder / "films").rglob("*.mp4"))[:9]):
        shutil.copy(film, folder / "data" / f"v{number}.mp4")
    shutil.rmtree(folder / "films")
    (folder / "data" / "train.csv").write_text("".join(f"v{number}.mp4 {number % 3}\n" for number in range(9)))
    create_baseline("x3d_s", num_classes=3, num_frames=4, image_size=32).save_pretrained(folder / "baseline")
    (folder / "kinetics").mkdir()
    rows = [f"jump,{number:011},0,10,train" for number in range(3)]
    (folder / "kinetics" / "train.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    (folder / "ssv2").mkdir()
    (folder / "ssv2" / "labels.json").write_text(json.dumps({"Pushing something": "0", "Pulling something": "1"}))
    items = [{"id": str(n), "label": "pushing a cup", "template": "Pushing [something]"} for n in range(3)]
    (folder / "ssv2" / "train.json").write_text(json.dumps(items))
    for n in range(3):
        shutil.copy(folder / "data" / f"v{n}.mp4", folder / "kinetics" / f"{n:011}_000000_000010.mp4")
        shutil.copy(folder / "data" / f"v{n}.mp4", folder / "ssv2" / f"{n}.mp4")
    assert quietly(["pack", str(folder / "data"), "--out", str(folder / "shards"), "--workers", "1"]) == 0


def quietly(argv: list[str]) -> int:
    with open(os.devnull, "w") as nowhere:
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = nowhere
        try:
            return command_line(argv)
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            sys.stdout, sys.stderr = streams


def watch(case: Path, report: Path, named: tuple[str, ...]) -> None:
    """From here on, write down whatever a document has no business to cause; `named` are files that it may name."""
    libraries = [sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")]
    source = str(Path(command_line.__code__.co_filename).parents[1])
    system = ("/dev/null", "/dev/urandom", "/dev/shm", "/proc/", "/sys/", "/usr/share/zoneinfo", "/etc/localtime")
    system += ("/etc/machine-id",)  # by which a lock knows its machine
    mine = (str(case), *libraries, source, f"{tempfile.gettempdir()}/pymp-", *system)
    mine += named
    out = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        what = None
        if event == "import":
            what = f"imports {arguments[0]}"
        elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile"):
            what = f"{event} {str(arguments)[:200]}"
        elif event == "socket.__new__" and arguments[1] != 1:
            what = f"opens a socket {arguments[1:]}"
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if not path.startswith(mine) or path == "/proc/self/environ":
                what = f"opens {path[:200]!r}"
        if what:
            os.write(out, (what + "\n").encode("utf-8", "backslashreplace"))

    sys.addaudithook(hook)


def run_case(number: int, originals: Path, scratch: Path, seed: int, only: str | None) -> tuple[str, str, list[str]]:
    """Spoil a file, run a command over it in a forked process: its kind, what came of it, findings."""
    chance = random.Random(f"{seed} {number}")
    name = only or list(KINDS)[number % len(KINDS)]
    kind = KINDS[name]
    case = scratch / str(number)
    shutil.copytree(originals, case, copy_function=os.link)
    if kind.file:
        file = case / kind.file
        content = file.read_bytes()
        file.unlink()  # it is a link to the original
        file.write_bytes(content)
        try:
            kind.spoil(file, chance)
        except (yaml.YAMLError, RecursionError, UnicodeEncodeError):  # what no file can hold
            file.write_bytes(mutate(content, content, chance))
    (case / "above.yaml").unlink()
    (case / "above.yaml").write_text(f"base: {case}/recipe.yaml\nsteps: 3\n")
    argv = chance.choice(kind.commands).replace("{}", str(case)).split()
    argv = spoil_options(argv, chance) if name == "options" else argv
    report, log, started = case / ".seen", case / ".log", time.monotonic()
    pid = os.fork()
    if pid == 0:
        # A list may name any file of this machine: whether it is a video, its content says.
        child(argv, case, report, log, ("/etc/passwd",) if name == "list" else ())
    signal_by = started + SECONDS + 20
    while (ended := os.wait4(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > signal_by:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.02)
    _, status, usage = ended
    seconds, memory = time.monotonic() - started, usage.ru_maxrss * 1024
    text = log.read_text(errors="replace") if log.exists() else ""
    findings = report.read_text().splitlines() if report.exists() else []
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1, 2):
        findings.append(f"ends with {code}: {text[-2000:]}")
    elif "Traceback (most recent" in text:
        findings.append(f"a traceback: {text[-2000:]}")
    if seconds > SECONDS:
        findings.append(f"takes {seconds:.0f} s")
    if memory > MEMORY:
        findings.append(f"takes {memory / 1e9:.1f} GB")
    if any(case.rglob("PWNED*")):
        findings.append("runs code: PWNED is there")
    if findings:
        findings.append(f"  by: timesformer {' '.join(argv)[:300]}   (case {number})")
    else:
        shutil.rmtree(case)
    return name, {0: "done", 1: "refused", 2: "refused"}.get(code, "crash"), findings


def child(argv: list[str], case: Path, report: Path, log: Path, named: tuple[str, ...]) -> None:
    os.setpgid(0, 0)
    os.chdir(case)
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))  # for the machine's sake
    out = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 70
    try:
        logging.root.handlers.clear()  # which write to the closed streams of the commands before
        watch(case, report, named)
        code = command_line(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def isolate() -> None:
    """Start over in a network namespace of its own, under strace where there is one."""
    trace = [shutil.which("strace") or "", "-f", "--seccomp-bpf", "-qq", "-e", "trace=socket", "-e", "signal=none"]
    log = Path(tempfile.mkdtemp(prefix="fuzz-")) / "sockets"
    command = ["unshare", "--net", *([*trace, "-o", str(log)] if trace[0] else []), sys.executable, *sys.argv]
    environment = {**os.environ, "FUZZ_ISOLATED": str(log) if trace[0] else "no strace", "OMP_NUM_THREADS": "1"}
    raise SystemExit(subprocess.run(command, env=environment).returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS)
    args = parser.parse_args()
    if "FUZZ_ISOLATED" not in os.environ:
        isolate()
    torch.set_num_threads(1)
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-hostile-") as name:
        originals = Path(name) / "originals"
        originals.mkdir()
        make_originals(originals)
        for kind in KINDS.values():  # whatever harmless documents make a command import is imported now
            for command in kind.commands:
                quietly(command.replace("{}", str(originals)).split())
        for left in ("out", "out.parquet", "new", "packed", "f.safetensors"):
            path = originals / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        scratch = Path(name) / "cases"
        scratch.mkdir()
        job = partial(run_case, originals=originals, scratch=scratch, seed=args.seed, only=args.only)
        with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("fork")) as pool:
            for number, (kind_name, outcome, seen) in enumerate(pool.map(job, range(args.count)), 1):
                outcomes[f"{kind_name}: {outcome}"] += 1
                if seen:
                    findings.append("\n".join(seen))
                    print(f"{kind_name}:", *seen, sep="\n  ", flush=True)
                if number % 100 == 0:
                    print(f"{number} cases, {len(findings)} findings", flush=True)
    sockets = Path(os.environ["FUZZ_ISOLATED"])
    traced = sockets.exists()
    others = [line for line in sockets.read_text().splitlines() if "AF_INET" in line] if traced else []
    if others:
        findings += others
        print("sockets:", *others[:20], sep="\n  ")
    if findings:
        raise SystemExit(f"{len(findings)} findings in {args.count} cases")
    from machine import write_result

    limits = {"cases": args.count, "seed": args.seed, "memory_limit_gb": MEMORY / 1e9, "seconds_limit": SECONDS}
    result = {**limits, "sockets_watched_by_strace": traced, "findings": 0, "outcomes": dict(sorted(outcomes.items()))}
    write_result("fuzz_hostile", result, f"python benchmarks/fuzz_hostile.py --count {args.count} --seed {args.seed}")


if __name__ == "__main__":
    main()
