"""`wrk` as load generator: closed loop, one thread, keep-alive unless a header says otherwise.

Invariant: a response counts as failed if its status is an error, if it breaks off, or if fewer
bytes came than the bodies of all responses have; that they are the right bytes is checked by a
request of ours beforehand.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tools.bench_process import ChildFailed, Command, clean_environment

_SCRIPT = """
wrk.method = %s
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        '\\nBENCH {"request_count":%%d,"received_bytes":%%d,"duration_us":%%d,"p50_us":%%d,' ..
        '"p99_us":%%d,"failed_count":%%d}\\n',
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
    method: str = "GET"
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


def run_wrk(program: str, address: str, load: Load, seconds: int, cpu: int) -> WrkResult:
    """Run wrk on one processor for `seconds`. Raises `ChildFailed`."""
    script = _SCRIPT % msgspec.json.encode(load.method).decode()
    argv = [
        program, "--threads", "1", "--connections", str(load.connections),
        "--duration", f"{seconds}s", "--timeout", "10s", "--latency", "--script", "/dev/stdin",
        *(word for header in load.headers for word in ("--header", header)),
        f"http://{address}{load.path}",
    ]  # fmt: skip
    done = subprocess.run(
        Command(argv, Path("/dev/null"), cpu).pinned_argv(),
        input=script + _VARYING if load.is_varying else script,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=seconds + _GRACE_S,
        check=False,
    )
    return parse_result(done.stdout, done.stderr)


def parse_result(output: str, errors: str = "") -> WrkResult:
    """Find the line that our script writes. Raises `ChildFailed` where there is none."""
    match = re.search(r"^BENCH (.*)$", output, re.MULTILINE)
    if match is None:
        raise ChildFailed(f"wrk has no result:\n{output}{errors}")
    return msgspec.json.decode(match[1], type=WrkResult)
