"""The page on security says the limits that hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from timesformer import limits

PAGE = Path(__file__).parents[1] / "docs" / "security.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of the package")
def test_the_page_lists_every_limit_with_its_value() -> None:
    rows = re.findall(r"^\| `TIMESFORMER_(\w+)` \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert {name: int(value) for name, value in rows} == limits._USUAL
    assert len(rows) == len(limits._USUAL)
