"""Child processes whose output is read while they run.

Invariant: a child that a test started is gone when its `with` block ends, however that ends.
Waiting is for a line of output, never for time to pass; every line is also kept in a log file.
"""

import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

# A loaded machine of two cores starts a server within a few seconds; this says "never".
START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
# Goes on to run a command that sees, and makes, mounts of its own; root's alone.
OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")
_DEBIAN_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class ChildFailed(Exception):
    """A child ended, or said nothing of what was waited for; the message bears its last lines."""


def clean_environment(home: Path, **extra: str) -> dict[str, str]:
    """Make an environment in which nothing of the caller's shines through.

    No proxy, no registry credentials and no configuration of the machine's may steer a test.
    """
    return {"PATH": _DEBIAN_PATH, "HOME": str(home), "LC_ALL": "C.UTF-8", **extra}


class Child:
    """A started process; `log` gets its standard output and error. It inherits `pass_fds`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.log = log
        self._lines: list[str] = []
        self._is_at_end = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
        )
        self._reader = threading.Thread(target=self._read, name=f"log of {argv[0]}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id, of a process that may have ended but has not been forgotten."""
        return self._process.pid

    @property
    def peak_rss_bytes(self) -> int:
        """The most memory it has had resident so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (found,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found) * 1024

    def lines(self) -> list[str]:
        """Everything said so far."""
        with self._changed:
            return list(self._lines)

    def wait_for(
        self, pattern: str, *, after: int = 0, timeout_s: float = START_TIMEOUT_S
    ) -> re.Match[str]:
        """Return the first match in lines `after` and on, waiting for it to be said.

        Raises `ChildFailed` when the child ends or `timeout_s` passes without one.
        """
        wanted = re.compile(pattern)
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_at_end or self._find(wanted, after) is not None, timeout_s
            )
            found = self._find(wanted, after)
        if found is None:
            raise ChildFailed(f"no {pattern!r} in the output of {self._process.args!r}:\n{self}")
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the child has ended."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = _STOP_TIMEOUT_S) -> int:
        """Return the exit code (negative: the signal's number) with all output read."""
        code = self._process.wait(timeout_s)
        self._reader.join()
        return code

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for what the child does without saying so. Raises `ChildFailed` where it ends."""
        while not condition():
            with self._changed:
                self._changed.wait(0.005)
            if self._process.poll() is not None and not condition():
                raise ChildFailed(f"{self._process.args!r} ended before:\n{self}")

    def kill(self) -> None:
        """End it as `kill -9` does, and wait until it is gone."""
        self._process.kill()
        self.wait()

    def stop(self) -> int:
        """Ask it to end by SIGTERM, insist after a while; return the exit code."""
        self._process.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise ChildFailed(f"{self._process.args!r} ignored SIGTERM:\n{self}") from None

    def __str__(self) -> str:
        return "\n".join(self.lines()[-30:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.stop()
        self._reader.join()

    def _find(self, wanted: re.Pattern[str], after: int) -> re.Match[str] | None:
        return next((m for line in self._lines[after:] if (m := wanted.search(line))), None)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output, self.log.open("ab", buffering=0) as log:
            for raw in output:
                log.write(raw)
                with self._changed:
                    self._lines.append(raw.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._is_at_end = True
            self._changed.notify_all()
