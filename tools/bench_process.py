"""Child processes on a processor of their own, and what the kernel says they have used.

Invariant: a child is started on one processor and stays there, writes all it says to one file, and
is ended by its process id, with everything that it has started, when its owner stops it.
"""

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_POLL_S = 0.02


class ChildFailed(Exception):
    """A child has ended, or did not say what was waited for."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and where. `cpu` is the number of a processor."""

    argv: Sequence[str]
    cpu: int
    directory: Path | None = None
    environment: Mapping[str, str] | None = None  # on top of ours
    nice: int = 0

    def pinned_argv(self) -> list[str]:
        """The command line with its processor and niceness, by util-linux and coreutils.

        Both replace themselves by the program, so the process id is the program's.
        """
        return [
            "taskset", "--cpu-list", str(self.cpu), "nice", "-n", str(self.nice), *self.argv
        ]  # fmt: skip


class Child:
    """A running process; `log` gets its standard output and error."""

    def __init__(self, command: Command, log: Path, pass_fds: Sequence[int] = ()) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command.pinned_argv(),
                cwd=command.directory,
                env=clean_environment() | dict(command.environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait_for(self, pattern: str) -> str:
        """Return the first group of `pattern` once the log has a match for it.

        Raises `ChildFailed` where the child ends, or says nothing of the kind within a minute.
        """
        wanted = re.compile(pattern.encode())
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            is_over = self._process.poll() is not None
            match = wanted.search(self._log.read_bytes())
            if match is not None:
                return match[1].decode()
            if is_over:
                break
            time.sleep(_POLL_S)
        self.stop()
        last = self._log.read_text(errors="replace")[-2000:]
        raise ChildFailed(f"{self._process.args!r} said nothing like {pattern!r}:\n{last}")

    def stop(self) -> None:
        """End it, by SIGTERM first. Idempotent."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def clean_environment() -> dict[str, str]:
    """Our environment without what would steer a registry or a client: proxies, REGISTRY_*."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("REGISTRY_") and not name.lower().endswith("_proxy")
    }


def family(pid: int) -> list[int]:
    """A process and its children, as nginx has a master and workers."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(int(child) for child in children)]


def cpu_s(pid: int) -> float:
    """CPU seconds that a process and its children have used."""
    return sum(time.clock_gettime(_cpu_clock(process)) for process in family(pid))


def _cpu_clock(pid: int) -> int:
    """Name the clock of a process's CPU time, as glibc's clock_getcpuclockid(3) does on Linux.

    /proc tells the same time in steps of 10 ms, and some cases take no more than a few of those.
    """
    return (~pid << 3) | 2


def reset_peak_rss(pid: int) -> None:
    """Let the peak begin anew (proc(5), clear_refs)."""
    for process in family(pid):
        Path(f"/proc/{process}/clear_refs").write_text("5")


def peak_rss_bytes(pid: int) -> int:
    """The most memory that a process and its children have had resident, since the last reset."""
    return sum(_parse_peak(Path(f"/proc/{p}/status").read_text()) for p in family(pid))


def _parse_peak(status: str) -> int:
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
