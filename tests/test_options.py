"""Numbers of every command's options: finite, in a stated range, and written as numbers are."""

from __future__ import annotations

import argparse
import itertools

import pytest

from timesformer import cli

REQUIRED = {
    "demo": [], "train": ["--data", "d", "--out", "o"], "evaluate": ["m", "--data", "d"], "predict": ["m", "v"],
    "embed": ["m", "d", "--out", "o"], "map": ["f"], "serve": ["m"], "reproduce": ["table1"],
    "export": ["m", "--to", "onnx", "--out", "o"], "profile": ["m"], "schemes": ["--out", "o"],
    "pack": ["d", "--out", "o"], "check": ["d"],
}  # fmt: skip
# Of each option, the ends of what it takes, and values next to them that it does not.
OPTIONS = {
    "--seed": (["0", "4294967295"], ["-1", "4294967296", "1e30", "1.5"]),
    "--fraction": (["1", "1e-3", ".5"], ["0", "1.01"]),
    "--workers": (["1", "1024"], ["0", "1025", "100000"]),
    "--top": (["1", "1000000"], ["0", "1000001"]),
    "--hop": (["1", "1000000"], ["0", "1000001", "2.0"]),
    "--threshold": (["0", "1"], ["-0.1", "1.01"]),
    "--clips": (["1", "1000", "cover"], ["0", "1001", "all"]),
    "--crops": (["1", "3"], ["2", "0"]),
    "--time-limit": (["0.1", "86400"], ["0", "86401", "-1"]),
    "--replicas": (["1", "1000000"], ["0", "1000001"]),
    "--port": (["0", "65535"], ["-1", "65536", "99999"]),
    "--max-megabytes": (["0.5", "1000000"], ["0", "1000001"]),
    "--max-duration": (["1", "1000000"], ["0", "1000001"]),
    "--max-waiting": (["1", "1000000"], ["0", "1000001"]),
    "--max-seconds": (["1", "86400"], ["0", "1e10"]),
    "--max-start-seconds": (["1", "86400"], ["0", "86401"]),
    "--max-upload-space": (["0.5", "1000000"], ["0", "1000001"]),
    "--max-connections": (["1", "1000000"], ["0", "1000001"]),
    "--seeds": (["1", "1000000"], ["0", "1000001"]),
    "--processes": (["1", "1024"], ["0", "1025"]),
    "--tolerance": (["0", "1e-4", "1000"], ["-1e-9", "1001"]),
    "--frames": (["1", "10000"], ["0", "10001"]),
    "--size": (["1", "16384"], ["0", "16385"]),
    "--classes": (["1", "1000000"], ["0", "1000001"]),
    "--sweep": (["frames=8,16", "size=224"], ["frames=", "frames=0", "size=16385", "depth=3", f"frames=8{',8' * 100}"]),
    "--grid": (["1,1,1", "4,64,64"], ["0,8,8", "5,8", "65,1,1", "64,64,64", "a,b,c"]),
    "--query": (["0,0,0", "63,63,63"], ["-1,0,0", "64,0,0"]),
    "--short-side": (["1", "16384"], ["0", "16385"]),
    "--shard-megabytes": (["0.1", "1000000"], ["0", "1e308"]),
    "--min-frames": (["1", "1000000"], ["0", "1000001"]),
}  # fmt: skip
NO_NUMBERS = ["inf", "-inf", "nan", "infinity", "1e999", "x", "", "²", "٣", "1_0", "0x1", "9" * 5000]


def _commands() -> dict[str, argparse.ArgumentParser]:
    subparsers = next(action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(subparsers.choices)


def _numeric(command: str) -> list[str]:
    """The options of a command whose values are changed into something other than text and paths."""
    plain = {"_data", "Path", "_host"}
    actions = _commands()[command]._actions
    typed = [action for action in actions if action.option_strings and action.type is not None]
    return [action.option_strings[0] for action in typed if getattr(action.type, "__name__", "") not in plain]


def test_every_numeric_option_is_in_the_table() -> None:
    for command in _commands():
        beyond = [option for option in _numeric(command) if option not in OPTIONS]
        assert not beyond, f"{command}: {beyond}"


@pytest.mark.parametrize("command", REQUIRED)
def test_options_take_their_range_and_nothing_else(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = _commands()[command]
    for option in _numeric(command):
        good, bad = OPTIONS[option]
        for value in good:
            parser.parse_args([*REQUIRED[command], f"{option}={value}"])
        for value in itertools.chain(bad, NO_NUMBERS):
            with pytest.raises(SystemExit) as exit_:
                parser.parse_args([*REQUIRED[command], f"{option}={value}"])
            assert exit_.value.code == 2, (option, value)
            error = capsys.readouterr().err.strip().splitlines()[-1]
            assert f"argument {option}: " in error
            assert len(error) < 400, error


def test_an_error_says_the_range(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("inf", "0", "86401"):
        with pytest.raises(SystemExit):
            cli.main(["check", "d", "--time-limit", value])
        error = capsys.readouterr().err
        assert f"argument --time-limit: '{value}' is not a number above 0, up to 86400" in error


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("depth", "setting 'depth' is not of the form key=value"),
        ("depht=3", "'depht': did you mean depth?"),
        ("attention={class_path: os.system}", "the key 'class_path' names code to be run, which is never allowed"),
        ("attention={a: b}", "attention={'a': 'b'}: must be one value or a flat list of them"),
        ("attention=!!python/name:os.system", "is not YAML of plain values"),
        ("depth=[1", "is not YAML of plain values"),
        ("mlp_ratio=.nan", "mlp_ratio=nan must be a number"),
    ],
)
def test_options_of_a_model(setting: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", "timesformer_tiny", "--no-measure", "--set", setting]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
