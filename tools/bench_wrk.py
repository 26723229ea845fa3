"""`wrk` as load generator: closed loop, one thread, keep-alive unless a header says otherwise.

It knows GET only: after HEAD it would wait for a body.

Invariant: a response counts as failed if its status is an error, if it breaks off, or if fewer
bytes came than the bodies of all responses have; that they are the right bytes is checked by a
request of ours beforehand.
"""

import re
import subprocess
from dataclasses import dataclass
from tempfile import NamedTemporaryFile

import msgspec

from tools.bench_process import ChildFailed, Command, clean_environment

_SCRIPT = """
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        '\\nBENCH {"request_count":%d,"received_bytes":%d,"duration_us":%d,"p50_us":%d,' ..
        '"p99_us":%d,"failed_count":%d}\\n',
        summary.requests, summary.bytes, summary.duration, latency:percentile(50),
        latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# As tracing clients do it: dockerd with the containerd image store sends one for each request.
_VARYING = """
local count = 0
request = function()
    count = count + 1
    wrk.headers["Traceparent"] = string.format("00-%032x-%016x-01", count, count)
    return wrk.format()
end
"""
_GRACE_S = 30


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask for, again and again; `is_varying`: no two requests are alike."""

    path: str
    connections: int
    headers: tuple[str, ...] = ()
    is_varying: bool = False


class WrkResult(msgspec.Struct, frozen=True):
    """What wrk says. `received_bytes` includes heads, and what came of unfinished responses."""

    request_count: int
    received_bytes: int
    duration_us: int
    p50_us: int
    p99_us: int
    failed_count: int


def run_wrk(program: str, url: str, load: Load, seconds: int, cpu: int) -> WrkResult:
    """Run wrk against a server's base URL on one processor for `seconds`. Raises `ChildFailed`."""
    # By name: wrk reads it once for itself and once for each thread.
    with NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(_SCRIPT + _VARYING if load.is_varying else _SCRIPT)
        file.flush()
        done = subprocess.run(
            Command(_argv(program, url, load, seconds, file.name), cpu).pinned_argv(),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE_S,
            check=False,
        )
    return parse_result(done.stdout, done.stderr)


def _argv(program: str, url: str, load: Load, seconds: int, script: str) -> list[str]:
    return [
        program, "--threads", "1", "--connections", str(load.connections),
        "--duration", f"{seconds}s", "--timeout", "10s", "--latency", "--script", script,
        *(word for header in load.headers for word in ("--header", header)),
        f"{url}{load.path}",
    ]  # fmt: skip


def parse_result(output: str, errors: str = "") -> WrkResult:
    """Find the line that our script writes. Raises `ChildFailed` where there is none."""
    match = re.search(r"^BENCH (.*)$", output, re.MULTILINE)
    if match is None:
        raise ChildFailed(f"wrk has no result:\n{output}{errors}")
    return msgspec.json.decode(match[1], type=WrkResult)
