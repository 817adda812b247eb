"""Documents from others: bounded, and plain values only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from timesformer.documents import dump_yaml, parse_json, parse_yaml, read_json, read_yaml

NINE = "[*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} {NINE.format(a=a)}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "values"),
        ("&a [*a]", "deep"),
        ("[" * 20_000, "deep|nesting"),
        ("a: &a {x: 1}\nb: {<<: *a}", "merge keys"),
        ("a: !!python/object/apply:os.system [id]", "plain values"),
        ("a: !!binary aGk=", "type bytes"),
        ("a: {b: [{class_path: os.system}]}", "class_path"),
        ("_target_: os.system", "_target_"),
        ("a: " + "9" * 5000, "plain values"),
        ("? {a: b}\n: c", "plain values"),
        ("%YAML 9.9\n---\nx", "plain values"),
        ("a" * (2**20 + 1), "1048576 bytes"),
    ],
)
def test_yaml_that_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^x.yaml: .*(?:{reason})"):
        parse_yaml(text, "x.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "deep"),
        ("[" * 65 + "]" * 65, "deep"),
        ('{"a": [1, {"class_path": 2}]}', "class_path"),
        ("9" * 5000, "is not JSON"),
        (b"\xff\xfe[\0]\0", "is not JSON"),
        ("[1", "is not JSON"),
        ("[" + "0," * 4_000_000 + "0]", "values"),
    ],
)
def test_json_that_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^x.json: .*{reason}"):
        parse_json(text, "x.json")


def test_documents_of_the_usual_kind(tmp_path: Path) -> None:
    value = {"model": {"name": "x", "sizes": [1, 2.5, None, True]}, "text": "ü"}
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode())
    assert read_json(tmp_path / "x.json") == value
    (tmp_path / "x.yaml").write_text(dump_yaml(value), encoding="utf-8")
    assert read_yaml(tmp_path / "x.yaml") == value
    assert parse_yaml("a: &a [1]\nb: *a", "x") == {"a": [1], "b": [1]}
    assert parse_json("[" * 64 + "]" * 64, "x") is not None


def test_limits_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESFORMER_MAX_DOCUMENT_DEPTH", "70")
    assert parse_json("[" * 65 + "]" * 65, "x") is not None
    monkeypatch.setenv("TIMESFORMER_MAX_YAML_VALUES", "3")
    with pytest.raises(ValueError, match=r"more than 3 values \(TIMESFORMER_MAX_YAML_VALUES\)"):
        parse_yaml("[1, 2, 3]", "x")
    monkeypatch.setenv("TIMESFORMER_MAX_DOCUMENT_DEPTH", "many")
    with pytest.raises(ValueError, match="TIMESFORMER_MAX_DOCUMENT_DEPTH='many'"):
        parse_json("[]", "x")


def test_no_encoding_is_guessed() -> None:
    """`json` imports the codec of whatever encoding bytes look like."""
    program = (
        "import sys; from timesformer.documents import parse_json; before = set(sys.modules)\n"
        "for content in (b'\\xff\\xfe\\0\\0[\\0\\0\\0', b'\\0\\0\\0[', b'[\\0]\\0'):\n"
        "    try: parse_json(content, 'x')\n"
        "    except ValueError: pass\n"
        "print(sorted(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
