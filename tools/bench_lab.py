"""Where a benchmark takes place: the upstream, the slow link to it, clients, and what they cost.

Invariant: servers that are measured have one processor, everything else has another; all that was
started has ended, and all files are gone, when the lab is closed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tools.bench_certificate import make_pair
from tools.bench_content import Content, Sizes, make_content
from tools.bench_model import Sample
from tools.bench_process import (
    Child,
    ChildFailed,
    Command,
    clean_environment,
    cpu_s,
    peak_rss_bytes,
    reset_peak_rss,
)
from tools.bench_servers import Server, Target, start_upstream

LIMITED_BYTES_S = 100_000_000
_CLIENT_TIMEOUT_S = 180.0
_CONTENT_LINE = re.compile(rb'"(?:GET|HEAD) /v2/[^"]+/(?:blobs|manifests)/')


@dataclass(frozen=True, slots=True)
class Cpus:
    """The numbers of two processors."""

    server: int
    client: int


class Lab:
    """Made by `open_lab`."""

    def __init__(self, directory: Path, cpus: Cpus, content: Content, stack: ExitStack) -> None:
        self.cpus = cpus
        self.content = content
        self.pair = make_pair(directory)  # for all that speak TLS
        self._directory = directory
        self._count = 0
        self._upstream = stack.enter_context(
            start_upstream(self._new_directory("upstream"), cpus.client, content)
        )
        self._relay_address = self._start_relay(stack)

    @contextmanager
    def run_target(self, target: Target, *, is_limited: bool = False) -> Iterator[Server]:
        """Run a target that has nothing yet; its files are gone afterwards."""
        directory = self._new_directory(target.name)
        # The kernel is not to write what others have left to write while this one is measured.
        os.sync()
        address = self._relay_address if is_limited else self._upstream.address
        try:
            with target.launch(directory, self.cpus.server, f"http://{address}") as server:
                yield server
        finally:
            shutil.rmtree(directory)

    def count_upstream(self) -> int:
        """How often the upstream was asked for content so far."""
        return len(_CONTENT_LINE.findall(self._upstream.log.read_bytes()))

    def observe(self, server: Server, work: Callable[[], Sample]) -> Sample:
        """Do `work` and note what it has cost the server and the upstream."""
        reset_peak_rss(server.pid)
        upstream_before, cpu_before_s = self.count_upstream(), cpu_s(server.pid)
        sample = work()
        return msgspec.structs.replace(
            sample,
            cpu_s=cpu_s(server.pid) - cpu_before_s,
            peak_rss_bytes=peak_rss_bytes(server.pid),
            upstream_count=self.count_upstream() - upstream_before,
        )

    def start_client(self, module: str, plan: msgspec.Struct, *, nice: int = 0) -> "Client":
        """Start a client, a module of `tools`, with its plan; the caller ends it."""
        argv = [sys.executable, "-m", f"tools.{module}"]
        return Client(Command(argv, self.cpus.client, nice=nice), plan)

    def _start_relay(self, stack: ExitStack) -> str:
        argv = [sys.executable, "-m", "tools.bench_relay", self._upstream.address]
        log = self._new_directory("relay") / "log"
        child = Child(Command([*argv, str(LIMITED_BYTES_S)], self.cpus.client), log)
        stack.callback(child.stop)
        return child.wait_for(r"listening addr=(\S+)")

    def _new_directory(self, name: str) -> Path:
        self._count += 1
        directory = self._directory / f"{self._count:04}-{name}"
        directory.mkdir()
        return directory


class Client:
    """A running client: it reads its plan from standard input, and writes what came of it."""

    def __init__(self, command: Command, plan: msgspec.Struct) -> None:
        self._process = subprocess.Popen(
            command.pinned_argv(),
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(msgspec.json.encode(plan))
        self._process.stdin = None  # `communicate` would flush it

    def read_line(self) -> str:
        """Read one line of its output; empty at the end."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode()

    def result(self) -> bytes:
        """Wait for its end and return its output. Raises `ChildFailed`."""
        output, _ = self._process.communicate(timeout=_CLIENT_TIMEOUT_S)
        if self._process.returncode:
            raise ChildFailed(f"{self._process.args!r} failed")
        return output

    def stop(self) -> None:
        """End it before its time. Idempotent."""
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def open_lab(cpus: Cpus, sizes: Sizes) -> Iterator[Lab]:
    """Make the content and start the upstream. Raises `ChildFailed`."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        root = directory / "content"
        root.mkdir()
        yield Lab(directory, cpus, make_content(root, sizes), stack)
