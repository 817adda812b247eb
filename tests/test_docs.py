"""README and docs do as they say: their blocks run, their links lead somewhere, and every public name is described."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import timesformer
from timesformer.cli import _default_recipe, _parser, main
from timesformer.evaluation.features import Features
from timesformer.model.attention import SCHEMES, Grid, Lookup
from timesformer.model.weights import convert
from timesformer.training.recipe import load_recipe
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_video

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()]
PAGES += sorted((ROOT / "docs").rglob("*.md"))

# What cannot run here, by what stands in the command, and why. It is parsed all the same: a renamed option is noticed.
NOT_HERE = {
    "s3://": "a bucket",
    "you/name": "the hub, with an account",
    "timm/": "a download, and training at full scale",
    "--recipe paper": "training at full scale",
    "--engine ray": "a cluster; tests/evaluation has Ray on one machine",
    "srun ": "SLURM",
    "scontrol ": "SLURM",
    "pip install": "a package index",
    "make ": "is how these tests are run",
    "timesformer demo": "minutes; it is the models of these tests in larger",
    "timesformer reproduce": "minutes; tests/reproduce has it",
    "timesformer serve": "does not end; test_the_server_answers has it",
    "curl ": "test_the_server_answers has it",
    "--to aoti": "a C++ compiler, minutes; tests/test_export.py has it",
    "python benchmarks/": "minutes or hours; test_capacity has the one that is quick",
    "python -m build": "a package index",
}
# What is smaller here, in commands and in Python.
SUBSTITUTIONS = {
    "--nproc-per-node 8": "--nproc-per-node 2",
    "--nnodes 4 --rdzv-backend c10d --rdzv-endpoint node0:29500": "--standalone",
    'create_model("timesformer_base"': 'create_model("timesformer_tiny", embed_dim=64, depth=2, num_heads=1',
    '"vit_base.npz"': '"vit.safetensors"',
}
QUICK = ["steps=1", "batch_size=2", "micro_batch_size=2", "data.workers=0", "data.cache=null"]
# Pages whose Python needs the files that their commands write.
AFTER_COMMANDS = {"cluster.md", "export.md"}
# What pages need that not everybody has.
EXTRAS = {"cluster.md": "pyarrow", "export.md": "onnxruntime"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int

    @property
    def commands(self) -> list[str]:
        """The commands of a block for the shell, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Block(fence[1], fence[2], text.count("\n", 0, fence.start()) + 1) for fence in fences]


def with_blocks(*languages: str) -> list[Any]:
    pages = [page for page in PAGES if any(block.language in languages for block in blocks(page))]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages]


def words_of(command: str) -> list[str]:
    words = shlex.split(command, comments=True)
    while re.match(r"\w+=", words[0]):  # variables of the environment
        words = words[1:]
    return words


def arguments_of(words: list[str]) -> list[str] | None:
    """The arguments of `timesformer` in a command, however that is started; None where it is another program."""
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        launched = get_args_parser().parse_args(words[1:])
        assert launched.module
        assert launched.training_script == "timesformer"
        return list(launched.training_script_args)
    if words[0] == "srun":
        words = words[1:]
    for start in (["timesformer"], ["python", "-m", "timesformer"], ["python", "nearby.py"]):
        if words[: len(start)] == start:
            return words[len(start) :]
    return None


def check_other(words: list[str]) -> None:
    """That a command which is not `timesformer` is one that there is."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:2] == ["pip", "install"]:
        project = (ROOT / "pyproject.toml").read_text()
        for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
    elif words[0] == "python" and words[1].startswith("benchmarks/"):
        source = (ROOT / words[1]).read_text()
        for option in (word for word in words[2:] if word.startswith("--")):
            assert f'"{option}"' in source or f'"{option[2:]}":' in source
    else:
        assert words[0] in ("[", "curl", "pip") or words[:3] == ["python", "-m", "build"]


@pytest.mark.parametrize("page", with_blocks("sh"))
def test_commands_have_the_options_that_they_are_given(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMES, "nearby_space", SCHEMES["divided_space_time"])  # as `nearby.py` adds it
    for block in blocks(page):
        for command in block.commands if block.language == "sh" else ():
            words = words_of(command)
            arguments = arguments_of(words)
            try:
                if arguments is None:
                    check_other(words)
                    continue
                args = _parser().parse_args(arguments)
                if arguments[0] == "train":
                    load_recipe(args.recipe or _default_recipe(args.set), args.set)
            except (SystemExit, AssertionError, ValueError, OSError) as error:
                pytest.fail(f"{page}:{block.line}: {command}: {error!r}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_exist(page: Path) -> None:
    parsers = _parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`timesformer ([a-z][^`]*)`", text):
        name, *words = command.split()
        assert name in parsers, f"{page}: timesformer {command}"  # type: ignore[operator]
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in parsers[name]._option_string_actions, f"{page}: timesformer {command}"  # type: ignore[index]


def tiny(**options: Any) -> timesformer.TimeSformer:
    torch.manual_seed(0)
    usual = {"embed_dim": 64, "depth": 2, "num_heads": 1, "num_frames": 8, "image_size": 32, "patch_size": 8}
    model = timesformer.create_model("timesformer_tiny", **{**usual, "num_classes": 2, **options})
    model.preprocessing = Preprocessing(num_frames=8, stride=1, image_size=model.config.frame_size[0]).to_dict()
    return model


def put_video(path: Path, seed: int, frames: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 40, 48, 3), dtype=np.uint8)
    whole = path.with_suffix(".mp4")
    write_video(whole, pixels, fps=8)
    whole.rename(path)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the blocks speak of: small videos, a model, published weights of no worth."""
    folder = tmp_path_factory.mktemp("docs")
    seeds = iter(range(99))
    for label in ("jump", "wave"):
        for name in "abc":
            put_video(folder / "videos" / label / f"{name}.mp4", next(seeds))
    (folder / "lists").mkdir()
    for split in ("train", "val", "test"):
        lines = [f"../videos/{label}/{name}.mp4 {label}\n" for label in ("jump", "wave") for name in "abc"]
        (folder / "lists" / f"{split}.csv").write_text("".join(lines))
    for name in ("some_video.mp4", "another.webm", "video.mp4", "some_videos/one.mp4", "more_videos/two.mp4"):
        put_video(folder / name, next(seeds))
    put_video(folder / "hour.mp4", next(seeds), frames=40)
    put_ucf101(folder / "ucf101", seeds)
    model = tiny()
    model.classes = ("jump", "wave")
    for which in ("best", "last"):
        model.save_pretrained(folder / "runs" / "mine" / which)
    held_out = [f"../../videos/{label}/a.mp4 {label}\n" for label in ("jump", "wave")]
    (folder / "runs" / "mine" / "held_out.csv").write_text("".join(held_out))
    names = tuple(f"class {number}" for number in range(4))
    (folder / "kinetics400.txt").write_text("".join(f"{name}\n" for name in names))
    published = tiny(depth=9, num_classes=4)
    published.classes = names
    published.save_pretrained(folder / "timesformer_base_k400")
    hub = folder / "facebook" / "timesformer-base-finetuned-k400"
    convert(folder / "timesformer_base_k400", hub, "huggingface")
    convert(folder / "timesformer_base_k400", folder / "TimeSformer_divST_8x32_224_K400.pyth", "released")
    vit = tiny(attention="space_only", num_classes=0, image_size=224, patch_size=16)
    vit.save_pretrained(folder / "vit")
    (folder / "vit" / "model.safetensors").rename(folder / "vit.safetensors")
    paths = tuple(str(path.relative_to(folder)) for path in sorted(folder.glob("videos/*/*.mp4")))
    values = np.random.default_rng(0).standard_normal((len(paths), 64)).astype(np.float32)
    labels = np.repeat(np.arange(2), 3)
    Features(values, paths, labels, ("jump", "wave")).save(folder / "features.safetensors")
    (folder / "nearby.py").write_text(nearby_source())
    return folder


def put_ucf101(folder: Path, seeds: Iterator[int]) -> None:
    """A few videos under the names of UCF-101, and its lists."""
    for split, numbers in (("train", (8, 9)), ("test", (1,))):
        lines = []
        for label, name in enumerate(("ApplyEyeMakeup", "Archery"), 1):
            for number in numbers:
                path = f"{name}/v_{name}_g{number:02}_c01.avi"
                put_video(folder / path, next(seeds))
                lines.append(f"{path} {label}\n" if split == "train" else f"{path}\n")
        (folder / f"{split}list01.txt").write_text("".join(lines))
    (folder / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 Archery\n")


def nearby_source() -> str:
    """The worked example of a scheme."""
    page = ROOT / "docs" / "attention-scheme.md"
    return next(block.text for block in blocks(page) if block.language == "python")


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The prepared folder, to be worked in; schemes that a block adds are gone afterwards."""
    folder = tmp_path / "place"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = dict(SCHEMES)
    yield folder
    SCHEMES.clear()
    SCHEMES.update(before)


def names_at_hand() -> dict[str, Any]:
    """What the text, and not the code, says there is: a clip, frames of a camera."""
    frames = np.random.default_rng(0).integers(0, 256, (20, 40, 48, 3), dtype=np.uint8)
    clip = torch.randn(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    return {"__name__": "docs", "timesformer": timesformer, "clip": clip, "frames": list(frames)}


def smaller(text: str) -> str:
    for old, new in SUBSTITUTIONS.items():
        text = text.replace(old, new)
    return text


def run_python(page: Path, block: Block, names: dict[str, Any]) -> None:
    code = "\n" * block.line + smaller(block.text)  # so that a traceback tells the line of the page
    exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_blocks_run(page: Path, place: Path) -> None:
    if page.name in AFTER_COMMANDS:
        pytest.skip("needs what its commands write: see test_pages_run_from_top_to_bottom")
    names = names_at_hand()
    for block in blocks(page):
        if block.language == "python":
            run_python(page, block, names)


def run_command(command: str) -> None:
    """A command, smaller where it would take long; those of `timesformer` itself in this process."""
    words = words_of(smaller(command))
    arguments = arguments_of(words)
    assert arguments, f"{command}: is neither run nor in NOT_HERE"
    if arguments[0] == "train" and "--print-recipe" not in arguments:
        shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
        extra = ["--set", *QUICK]
        arguments, words = [*arguments, *extra], [*words, *extra]
    if words[0] == "timesformer":
        assert main(arguments) == 0, command
        return
    program = [sys.executable, "-m", "torch.distributed.run"] if words[0] == "torchrun" else [sys.executable]
    done = subprocess.run([*program, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("sh"))
def test_pages_run_from_top_to_bottom(page: Path, place: Path) -> None:
    if page.name in EXTRAS:
        pytest.importorskip(EXTRAS[page.name])
    names = names_at_hand()
    for block in blocks(page):
        if block.language == "python":
            run_python(page, block, names)
        for command in block.commands if block.language == "sh" else ():
            if not any(part in command for part in (*NOT_HERE, "[ $?")):
                run_command(command)


def test_what_cannot_run_here_is_still_there() -> None:
    """An entry that no command needs any more would hide another."""
    every = [
        command for page in PAGES for block in blocks(page) if block.language == "sh" for command in block.commands
    ]
    unused = [part for part in NOT_HERE if not any(part in command for command in every)]
    assert set(unused) <= {"timesformer demo", "python -m build"}
    texts = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(old in texts for old in SUBSTITUTIONS)


@pytest.mark.slow
def test_the_server_answers(place: Path) -> None:
    for module in ("fastapi", "uvicorn"):
        pytest.importorskip(module)
    if not shutil.which("curl"):
        pytest.skip("no curl")
    page = ROOT / "docs" / "serve.md"
    commands = [command for block in blocks(page) if block.language == "sh" for command in block.commands]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    serve = next(words_of(command) for command in commands if command.startswith("timesformer serve"))
    asked = [words_of(command.replace("8000", port)) for command in commands if command.startswith("curl")]
    server = subprocess.Popen([sys.executable, "-m", *(port if word == "8000" else word for word in serve)])
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz")
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.5)
        for words in asked:
            subprocess.run([words[0], "--fail-with-body", "-sS", *words[1:]], check=True)
        assert (place / "seen.gif").read_bytes().startswith(b"GIF8")
    finally:
        server.terminate()
        server.wait(30)


def test_capacity() -> None:
    """The page on scaling shows what the calculator says."""
    page = ROOT / "docs" / "scaling.md"
    every = blocks(page)
    shown = 0
    for block, after in zip(every, [*every[1:], Block("", "", 0)], strict=True):
        for command in block.commands if block.language == "sh" else ():
            done = subprocess.run([sys.executable, *words_of(command)[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            if after.language == "text":
                assert done.stdout == after.text
                shown += 1
    assert shown == 2


def test_the_paper_agrees_with_the_calculator() -> None:
    """416 hours of a V100 for the training, which Table 2 states, at 2.4 clips a second."""
    command = [sys.executable, "benchmarks/capacity.py", "--training", "2.4", "--devices", "1", "--hours", "500"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "  1 machine, 416.7 hours" in out


# Links


def slug(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


def prose(page: Path) -> str:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)}, target


# The reference


def described() -> list[str]:
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


def find(name: str) -> Any:
    """A module, or something in one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(find(module), last)


def public(thing: Any) -> Iterator[tuple[str, Any]]:
    """What the reference shows of a name: itself; a module's functions and classes; a class's methods."""
    yield getattr(thing, "__qualname__", getattr(thing, "__name__", "")), thing
    if inspect.ismodule(thing):
        for name, inner in vars(thing).items():
            defined = inspect.isfunction(inner) or inspect.isclass(inner)
            if defined and inner.__module__ == thing.__name__ and not name.startswith("_"):
                yield from public(inner)
    elif inspect.isclass(thing):
        for name, inner in vars(thing).items():
            if not name.startswith("_") and (inspect.isfunction(inner) or isinstance(inner, property | classmethod)):
                yield f"{thing.__qualname__}.{name}", getattr(thing, name)


def test_every_public_name_is_in_the_reference() -> None:
    assert {f"timesformer.{name}" for name in timesformer.__all__} <= set(described())


@pytest.mark.parametrize("name", described())
def test_what_is_in_the_reference_says_what_it_does(name: str) -> None:
    silent = [inner for inner, thing in public(find(name)) if not inspect.getdoc(thing)]
    assert not silent


def test_the_page_of_figures_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    written = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert importlib.import_module("report").page() == written, "python benchmarks/report.py writes it"


def test_names_in_the_text_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`(timesformer(?:\.\w+)+)`", page.read_text(encoding="utf-8")):
            if not name.endswith((".py", ".cli")) and not (ROOT / "src" / name.replace(".", "/")).exists():
                assert find(name) is not None, f"{page}: {name}"


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"'\s>]+)", text)
        loaded += re.findall(r"<link[^>]*\shref=[\"']?([^\"'\s>]+)", text)
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


# The worked example of a scheme


def test_the_example_is_short() -> None:
    lines = [line for line in nearby_source().splitlines() if line.strip()]
    assert len(lines) < 15


@pytest.mark.parametrize("grid", [Grid(t=1, h=2, w=3), Grid(t=4, h=2, w=2), Grid(t=9, h=2, w=3)])
def test_the_example_is_its_definition(grid: Grid, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.model import test_attention

    exec(nearby_source(), names_at_hand())
    step, _ = SCHEMES["nearby_space"]
    assert isinstance(step, Lookup)
    theirs = test_attention.attends

    def attends(name: str, query: Any, key: Any, grid: Grid) -> bool:
        if name != "nearby":
            return theirs(name, query, key, grid)
        return bool(query[1:] == key[1:] and abs(query[0] - key[0]) <= 2)

    monkeypatch.setattr(test_attention, "attends", attends)
    test_attention.assert_equals_definition("nearby", grid, step)
    pairs = sum(attends("nearby", (i, 0, 0), (j, 0, 0), grid) for i in range(grid["t"]) for j in range(grid["t"]))
    assert step.comparisons(grid) == pairs * grid["h"] * grid["w"]
    model = tiny(attention="nearby_space").double().eval()
    clip = torch.randn(1, 3, 4, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.tokens(clip)[0], test_attention.naive_tokens(model, clip), atol=1e-10, rtol=0)
