"""Clients that pull: each asks for one thing after the other, or for a few at a time.

Invariant: every byte is checked, and a body that is short, long, wrong or not 200 counts as failed.

Run as `python -m tools.bench_pull` with a `Plan` as JSON on standard input; writes a `PullResult`.
"""

import socket
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec
import xxhash

from tools.bench_model import Fetch

ACCEPT = "Accept: application/vnd.oci.image.manifest.v1+json"
_BUFFER_BYTES = 256 * 1024
_TIMEOUT_S = 120.0
_HEAD_BYTES = 64 * 1024
# As dockerd, podman and CRI have it, give or take: blobs of one image at a time.
_PARALLEL = 4


class Plan(msgspec.Struct, frozen=True):
    """Clients, each with stages of requests; a stage begins when the one before has ended.

    `pace_bytes_s` limits each client; `repeat_s` lets clients begin again until then.
    """

    address: str
    clients: list[list[list[Fetch]]]
    pace_bytes_s: float = 0.0
    repeat_s: float = 0.0


class PullResult(msgspec.Struct, frozen=True):
    """What came of a plan. `first_byte_s`: of each client's last stage, the median."""

    request_count: int
    body_bytes: int
    elapsed_s: float
    first_byte_s: float
    failed_count: int


class PullFailed(Exception):
    """An answer that is not the one that was planned."""


class _Tally:
    """What all clients have done so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.request_count = 0
        self.body_bytes = 0
        self.failed_count = 0
        self.first_bytes_s: list[float] = []

    def add(self, body_bytes: int, *, is_failed: bool) -> None:
        with self._lock:
            self.request_count += 1
            self.body_bytes += body_bytes
            self.failed_count += is_failed

    def add_first_byte(self, seconds: float) -> None:
        with self._lock:
            self.first_bytes_s.append(seconds)


def fetch(
    address: str, asked: Fetch, pace_bytes_s: float = 0.0, tls: ssl.SSLContext | None = None
) -> float:
    """Get and check one answer; return the seconds until its body began. Raises `PullFailed`."""
    host, _, port = address.rpartition(":")
    started_at = time.monotonic()
    try:
        with ExitStack() as stack:
            sock = stack.enter_context(
                socket.create_connection((host, int(port)), timeout=_TIMEOUT_S)
            )
            if tls is not None:
                sock = stack.enter_context(tls.wrap_socket(sock))
            head = f"GET {asked.path} HTTP/1.1\r\nHost: {address}\r\n{ACCEPT}\r\n"
            sock.sendall(f"{head}Connection: close\r\n\r\n".encode())
            body = _read_head(sock, asked)
            first_byte_s = time.monotonic() - started_at
            _check_body(sock, body, asked, pace_bytes_s)
    except OSError as exc:
        raise PullFailed(f"{asked.path}: {exc}") from exc
    return first_byte_s


def _read_head(sock: socket.socket, asked: Fetch) -> bytes:
    """Read up to the body's first bytes and return them; an empty body has none."""
    received = b""
    while not (received.partition(b"\r\n\r\n")[2] or (not asked.size_bytes and received)):
        piece = sock.recv(_HEAD_BYTES)
        if not piece or len(received) > _HEAD_BYTES:
            raise PullFailed(f"{asked.path}: {received[:200]!r}")
        received += piece
    if not received.startswith(b"HTTP/1.1 200 "):
        raise PullFailed(f"{asked.path}: {received[:200]!r}")
    return received.partition(b"\r\n\r\n")[2]


def _check_body(sock: socket.socket, body: bytes, asked: Fetch, pace_bytes_s: float) -> None:
    hasher = xxhash.xxh3_128(body)
    count_bytes = len(body)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    began_at = time.monotonic()
    _wait_turn(began_at, count_bytes, pace_bytes_s)
    while received := sock.recv_into(buffer):
        hasher.update(buffer[:received])
        count_bytes += received
        _wait_turn(began_at, count_bytes, pace_bytes_s)
    if count_bytes != asked.size_bytes or hasher.hexdigest() != asked.xxh3:
        raise PullFailed(f"{asked.path}: {count_bytes} of {asked.size_bytes} bytes, or wrong ones")


def _wait_turn(began_at: float, count_bytes: int, pace_bytes_s: float) -> None:
    if pace_bytes_s:
        time.sleep(max(0.0, began_at + count_bytes / pace_bytes_s - time.monotonic()))


def run_plan(plan: Plan) -> PullResult:
    """Let all clients pull; returns when the last is done."""
    tally = _Tally()
    started_at = time.monotonic()
    with ThreadPoolExecutor(len(plan.clients) or 1) as clients:
        deadline = started_at + plan.repeat_s
        list(clients.map(lambda stages: _run_client(plan, stages, deadline, tally), plan.clients))
    return PullResult(
        tally.request_count,
        tally.body_bytes,
        time.monotonic() - started_at,
        statistics.median(tally.first_bytes_s or [0.0]),
        tally.failed_count,
    )


def _run_client(plan: Plan, stages: list[list[Fetch]], deadline: float, tally: _Tally) -> None:
    is_first = True
    while is_first or time.monotonic() < deadline:
        is_first = False
        for stage in stages:
            tally.add_first_byte(_run_stage(plan, stage, tally))


def _run_stage(plan: Plan, stage: list[Fetch], tally: _Tally) -> float:
    """Ask for everything of a stage; return the time to the first byte of the first answer."""
    if len(stage) == 1:
        return _fetch_counted(plan, stage[0], tally)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        first_byte_s, *_ = pool.map(lambda asked: _fetch_counted(plan, asked, tally), stage)
    return first_byte_s


def _fetch_counted(plan: Plan, asked: Fetch, tally: _Tally) -> float:
    try:
        first_byte_s = fetch(plan.address, asked, plan.pace_bytes_s)
    except PullFailed as exc:
        print(exc, file=sys.stderr, flush=True)
        tally.add(0, is_failed=True)
        return 0.0
    tally.add(asked.size_bytes, is_failed=False)
    return first_byte_s


def stages_of(fetches: Iterable[Fetch]) -> list[list[Fetch]]:
    """One request after the other."""
    return [[asked] for asked in fetches]


if __name__ == "__main__":
    result = run_plan(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))
    print(msgspec.json.encode(result).decode(), flush=True)
