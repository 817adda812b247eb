from __future__ import annotations

import subprocess
import sys

import pytest

# Large arrays between small ones that stay, after one so large that glibc takes them for usual from then on.
HELD = """
import sys
import numpy as np
from timesformer.training.memory import give_back_freed_memory

def held():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

if sys.argv[1] == "give back":
    give_back_freed_memory()
large = np.ones(31 * 2**20, np.uint8)
del large
before = held()
pieces = [(np.ones(2**21, np.uint8), np.ones(2**17, np.uint8)) for _ in range(100)]
stay = [small for _, small in pieces]
del pieces
print(held() - before)
"""


def held_on_to(how: str) -> float:
    """MiB."""
    return float(subprocess.run([sys.executable, "-c", HELD, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_given_back() -> None:
    if held_on_to("keep") < 150:
        pytest.skip("this C library keeps nothing")
    assert held_on_to("give back") < 50
