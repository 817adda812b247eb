"""Help: an example of each command, which is parsed as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from timesformer.cli import _parser, main
from timesformer.command_examples import EXAMPLES

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "demo", "train", "evaluate", "predict", "explain", "embed", "map", "serve", "reproduce", "convert", "push",
    "export", "profile", "schemes", "pack", "check",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    (line,) = re.findall(rf"^  (timesformer {command}\b.*)$", capsys.readouterr().out, re.MULTILINE)
    parsed = _parser().parse_args(shlex.split(line)[1:])
    assert parsed.parser.prog == f"timesformer {command}"


def test_no_command_is_left_out() -> None:
    assert EXAMPLES.keys() == set(COMMANDS)
    with pytest.raises(SystemExit):
        _parser().parse_args(["no-such-command"])


def test_an_extra_is_named_in_one_form() -> None:
    texts = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.py")]
    named = [
        (file.name, match) for file in texts for match in re.findall(r"pip install .?\S*\[\w+\]\S*", file.read_text())
    ]
    assert [pair for pair in named if not re.match(r"pip install 'timesformer\[\w+\]'", pair[1])] == []
