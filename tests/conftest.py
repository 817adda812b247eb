from __future__ import annotations

import os
from pathlib import Path

# Tests run in several processes at a time, which would fight for the cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real videos, which are not part of the project; tests that need them skip without it."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TIMESFORMER_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real videos at {folder}: set TIMESFORMER_TEST_DATA to a folder that has them")
    return folder
