"""malloc keeps the memory of pieces, and gives back that of what is larger."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from server.allocator import keep_large_pieces

_MAKE_AND_DROP = """
import resource
from server.allocator import keep_large_pieces
if {is_kept}:
    keep_large_pieces()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    pieces = [b"x" * 256_000 for _ in range(10)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

# What lies behind it keeps the end of the heap from being given back.
_LARGER = """
import os
from pathlib import Path
from server.allocator import keep_large_pieces
def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
keep_large_pieces()
before = resident_bytes()
large = b"x" * 3_000_000
small = [bytes(1000) for _ in range(1000)]
del large
print(resident_bytes() - before)
"""


def count_faults(*, is_kept: bool) -> int:
    program = _MAKE_AND_DROP.format(is_kept=is_kept)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.system
def test_pieces_take_the_memory_of_those_before() -> None:
    assert count_faults(is_kept=True) * 10 < count_faults(is_kept=False)


@pytest.mark.system
def test_what_is_larger_leaves_no_hole() -> None:
    done = subprocess.run([sys.executable, "-c", _LARGER], capture_output=True, check=True)
    assert int(done.stdout) < 2_000_000


def test_a_c_library_without_the_call_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    keep_large_pieces()
