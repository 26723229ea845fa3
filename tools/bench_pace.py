"""Small requests at a fixed rate, whatever the answers take: an open loop.

Invariant: a request is timed from when it was due, so one that has to wait for a free connection
is slow, and a server that stands still for a moment is charged for all who came meanwhile. It is
not charged for whom we share our processor with: where the kernel allows it, we come first there.

Run as `python -m tools.bench_pace` with a `Pace` as JSON on standard input; writes a `PaceResult`.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from typing import cast

import msgspec
import uvloop

from tools.bench_pull import ACCEPT

_CONNECTIONS = 64
_TICK_S = 0.001
_SETTLE_S = 5.0  # for the answers that are still due at the end


class Pace(msgspec.Struct, frozen=True):
    """What to ask for, how often a second and for how long."""

    address: str
    path: str
    body_bytes: int
    rate: float
    seconds: float
    method: str = "GET"


class PaceResult(msgspec.Struct, frozen=True):
    """What came of it. Times are those of whole responses, in seconds."""

    request_count: int
    elapsed_s: float
    p50_s: float
    p99_s: float
    failed_count: int


class _Line(asyncio.Protocol):
    """One connection: at most one request at a time."""

    def __init__(self, generator: "Generator") -> None:
        self._generator = generator
        self._left_bytes = 0
        self._head = b""
        self._due_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, due_at: float) -> None:
        self._due_at = due_at
        self._left_bytes = -1  # the head has not ended
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._left_bytes < 0:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            self._left_bytes = self._generator.check_head(head)
            data = body
        self._left_bytes -= len(data)
        if self._left_bytes == 0:
            self._generator.finish(self, self._due_at)

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.lose()


class Generator:
    """Asks at a fixed rate over a fixed set of connections."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._request = (
            f"{pace.method} {pace.path} HTTP/1.1\r\nHost: {pace.address}\r\n"
            f"User-Agent: bench\r\n{ACCEPT}\r\n\r\n"
        ).encode()
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Line] = []
        self._due: deque[float] = deque()
        self._latencies_s: list[float] = []
        self._failed_count = 0
        self._awaited_count = -1  # with so many answers all are here; not known while it asks
        self._settled = asyncio.Event()

    async def run(self) -> PaceResult:
        """Ask until the time is over, then wait a moment for the last answers."""
        lines = [await self._connect() for _ in range(_CONNECTIONS)]
        self._idle += lines
        try:
            return await self._ask_all()
        finally:
            for line in lines:
                line.close()

    async def _connect(self) -> _Line:
        host, _, port = self._pace.address.rpartition(":")
        _, line = await self._loop.create_connection(lambda: _Line(self), host, int(port))
        return line

    async def _ask_all(self) -> PaceResult:
        started_at = time.monotonic()
        asked_count = 0
        while (now := time.monotonic()) < started_at + self._pace.seconds:
            due_count = int((now - started_at) * self._pace.rate)
            self._due.extend([now] * (due_count - asked_count))
            asked_count = due_count
            self._ask_due()
            await asyncio.sleep(_TICK_S)
        elapsed_s = time.monotonic() - started_at
        await self._settle(asked_count)
        return self._sum_up(asked_count, elapsed_s)

    def check_head(self, head: bytes) -> int:
        """Return the length of the body that follows; one that is not as planned has failed."""
        _, _, rest = head.lower().partition(b"\r\ncontent-length:")
        body_bytes = int(rest.partition(b"\r\n")[0] or 0)
        if not head.startswith(b"HTTP/1.1 200 ") or body_bytes != self._pace.body_bytes:
            self._failed_count += 1
        return 0 if self._pace.method == "HEAD" else body_bytes

    def finish(self, line: _Line, due_at: float) -> None:
        """Note a response that is complete, and use its connection for the next request."""
        self._latencies_s.append(time.monotonic() - due_at)
        self._idle.append(line)
        self._ask_due()
        if len(self._latencies_s) == self._awaited_count:
            self._settled.set()

    def lose(self) -> None:
        """Note that a connection has been closed: what it was at never finishes."""
        self._failed_count += 1

    def _ask_due(self) -> None:
        while self._due and self._idle:
            self._idle.pop().ask(self._request, self._due.popleft())

    async def _settle(self, asked_count: int) -> None:
        if len(self._latencies_s) < asked_count:
            self._awaited_count = asked_count
            with contextlib.suppress(TimeoutError):  # what is missing then has failed
                async with asyncio.timeout(_SETTLE_S):
                    await self._settled.wait()

    def _sum_up(self, asked_count: int, elapsed_s: float) -> PaceResult:
        ordered = sorted(self._latencies_s) or [0.0]
        return PaceResult(
            len(self._latencies_s),
            elapsed_s,
            ordered[len(ordered) // 2],
            ordered[len(ordered) * 99 // 100],
            self._failed_count + asked_count - len(self._latencies_s),
        )


async def run(pace: Pace) -> PaceResult:
    """Run one generator."""
    return await Generator(pace).run()


def take_precedence() -> None:
    """Run before everybody else on this processor, as who measures time must (sched(7))."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("times include waits for the client's own processor", file=sys.stderr, flush=True)


if __name__ == "__main__":
    take_precedence()
    result = uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Pace)))
    print(msgspec.json.encode(result).decode(), flush=True)
