"""The package as it is installed: what it holds, what importing it does, what it says of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import timesformer
from timesformer.cli import main

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_importing_writes_no_file_and_opens_no_socket(tmp_path: Path) -> None:
    code = """
import os, sys

def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        sys.exit(f"{event} {arguments}")
    if event in ("os.mkdir", "os.rename", "os.remove"):
        sys.exit(f"{event} {arguments}")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        if arguments[0] != os.devnull:
            sys.exit(f"{event} {arguments}")

sys.addaudithook(watch)
import timesformer
assert "torch" not in sys.modules
for name in timesformer.__all__:
    getattr(timesformer, name)
"""
    about = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    run(sys.executable, "-c", code, cwd=tmp_path, env=about)
    assert list(tmp_path.iterdir()) == []


def test_version_says_what_a_report_needs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    said = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["timesformer"] == timesformer.__version__
    assert said["python"].startswith(sys.version.split()[0])
    assert {"torch", "av", "numpy", "platform", "cpu", "cuda"} <= said.keys()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert "torch can't be imported" in capsys.readouterr().out


def test_the_citation_is_of_this_version() -> None:
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert about["version"] == timesformer.__version__
    assert about["preferred-citation"]["authors"][0]["family-names"] == "Bertasius"


def test_completion_in_bash(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    script = tmp_path / "completion.bash"
    script.write_text(run(sys.executable, "-m", "timesformer", "--print-completion", "bash", cwd=tmp_path))
    (tmp_path / "film.mp4").touch()
    for words, reply in (
        (["timesformer", "exp"], "explain export"),
        (["timesformer", "export", "m", "--to", ""], "onnx torch aoti"),
        (["timesformer", "predict", "fi"], "film.mp4"),
    ):
        asked = (
            f'source "{script}"; COMP_WORDS=({" ".join(word or repr("") for word in words)}); '
            f'COMP_CWORD={len(words) - 1}; _shtab_timesformer; echo "${{COMPREPLY[@]}}"'
        )
        assert run("bash", "-c", asked, cwd=tmp_path).strip() == reply
    assert "#compdef timesformer" in run(sys.executable, "-m", "timesformer", "--print-completion", "zsh", cwd=tmp_path)


def test_completion_names_its_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as exit_:
        main(["--print-completion", "bash"])
    assert exit_.value.code == 1
    assert "pip install 'timesformer[completion]'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_wheel_runs_outside_of_the_source_tree(tmp_path: Path) -> None:
    """Built from the source archive, installed into a clean environment that borrows this one's dependencies."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    source = shutil.copytree(
        ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".git", ".venv", "runs", ".*_cache")
    )
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", cwd=source)
    (wheel,), (archive,) = (list((tmp_path / "dist").glob(f"*{suffix}")) for suffix in (".whl", ".tar.gz"))
    own = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "timesformer").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"timesformer/py.typed", "timesformer/app/page.html"} <= own
    with zipfile.ZipFile(wheel) as packed:
        assert {name for name in packed.namelist() if ".dist-info/" not in name} == own
        about = next(name for name in packed.namelist() if name.endswith("/METADATA"))
        extras = [line for line in packed.read(about).decode().splitlines() if line.startswith("Provides-Extra")]
    assert {"web", "bulk", "ray", "openvino", "onnx", "completion"} <= {line.split(": ")[1] for line in extras}
    with tarfile.open(archive) as packed_source:
        assert any(name.endswith("/tests/test_package.py") for name in packed_source.getnames())

    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    paths = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    (Path(paths) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    imported = run(python, "-c", "import timesformer; print(timesformer.__file__)", cwd=elsewhere, env=clean)
    assert Path(imported.strip()).is_relative_to(place)
    command = place / "bin" / "timesformer"
    assert run(command, "--version", cwd=elsewhere, env=clean).startswith(f"timesformer {timesformer.__version__}\n")
    assert "--seed" in run(command, "demo", "--help", cwd=elsewhere, env=clean)
    recipe = ["train", "--data", "x", "--out", "y", "--recipe", "table1/ssv2_axial", "--print-recipe"]
    assert "attention: axial" in run(command, *recipe, cwd=elsewhere, env=clean)
    assert list(elsewhere.iterdir()) == []
