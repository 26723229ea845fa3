"""What the kernel says of a child: its processor, its time, its memory; and that it ends."""

import os
import sys
from pathlib import Path

import pytest

from tools.bench_process import (
    Child,
    ChildFailed,
    Command,
    cpu_s,
    family,
    peak_rss_bytes,
    reset_peak_rss,
)

CPU = min(os.sched_getaffinity(0))
WAIT = "import sys; print('ready', flush=True); sys.stdin.read(); import signal; signal.pause()"


def start(directory: Path, code: str) -> Child:
    return Child(Command([sys.executable, "-c", code], CPU), directory / "log")


def test_a_child_stays_on_its_processor_and_ends(tmp_path: Path) -> None:
    child = start(tmp_path, WAIT)
    try:
        assert child.wait_for("(ready)") == "ready"
        assert os.sched_getaffinity(child.pid) == {CPU}
        assert family(child.pid) == [child.pid]
    finally:
        child.stop()
    assert family(child.pid) == []


def test_time_and_memory_are_those_of_the_child_and_its_children(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "if os.fork() == 0:\n"
        "    data = bytearray(64 * 2**20)\n"
        "    while time.process_time() < 0.2: pass\n"
        "    print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    child = start(tmp_path, code)
    try:
        child.wait_for("(ready)")
        inner = family(child.pid)[1]
        assert cpu_s(child.pid) >= 0.2
        assert peak_rss_bytes(child.pid) >= 64 * 2**20
        reset_peak_rss(child.pid)
        assert peak_rss_bytes(child.pid) >= 64 * 2**20  # it still has it
        os.kill(inner, 9)
    finally:
        child.stop()


def test_a_child_that_ends_too_soon_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    child = start(tmp_path, "print('no luck')")
    with pytest.raises(ChildFailed, match="no luck"):
        child.wait_for("(ready)")
