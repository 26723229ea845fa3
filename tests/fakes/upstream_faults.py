"""What a scripted upstream can be told to do wrong, and for which of the next requests.

A `Fault` is one way of answering wrongly; a `Rule` says which requests get it and how many of
them. The oldest rule that matches a request and is not used up is taken.
"""

import asyncio
from dataclasses import dataclass, field


class Gate:
    """Something that a request waits for until a test opens it, from any thread."""

    def __init__(self) -> None:
        self._is_open = False
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self) -> None:
        """Wait, in the upstream's loop, until the gate is open."""
        self._loop = asyncio.get_running_loop()
        self._reached.set()
        if not self._is_open:
            await self._opened.wait()

    async def wait_reached(self) -> None:
        """Wait until a request stands at the gate; for tests in the upstream's own loop."""
        await self._reached.wait()

    def open(self) -> None:
        """Let everything through, now and later."""
        self._is_open = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._opened.set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way of answering wrongly. Offsets count bytes of the body as it would be sent."""

    status: int | None = None  # instead of the answer, with an OCI error body
    code: str = "UNKNOWN"
    message: str = "scripted"
    headers: dict[str, str | None] = field(default_factory=dict)  # added, replaced; None = left out
    body: bytes | None = None  # instead of the body
    drop: bool = False  # reset the connection before a head is sent
    hold: Gate | None = None  # wait before the head is sent
    stall_at: int | None = None  # send so much, then wait for `gate`
    gate: Gate | None = None
    truncate_at: int | None = None  # send so much, then close
    reset_at: int | None = None  # send so much, then reset
    corrupt_at: int | None = None  # flip a bit there
    drip_bytes: int | None = None  # send in pieces of so much
    drip_s: float = 0.0  # and wait so long between them
    no_range: bool = False  # 200 whatever Range says
    range_shift: int = 0  # a 206 that starts so much later than asked, and says so
    chunked: bool = False  # no Content-Length
    redirect_to: str | None = None  # Location, with `status` or 307


@dataclass(slots=True, kw_only=True)
class Rule:
    """Which requests get a fault. None matches everything."""

    fault: Fault
    method: str | None = None
    kind: str | None = None
    repository: str | None = None
    reference: str | None = None
    times: int | None = 1  # None = always
    hits: int = 0

    def matches(self, method: str, kind: str, repository: str, reference: str) -> bool:
        """Whether a request is meant and the rule is not used up."""
        asked = (method, kind, repository, reference)
        wanted = (self.method, self.kind, self.repository, self.reference)
        is_meant = all(want in (None, have) for want, have in zip(wanted, asked, strict=True))
        return is_meant and (self.times is None or self.hits < self.times)
