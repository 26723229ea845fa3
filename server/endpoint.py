"""A handler and all the connections it serves, from admission to drain.

Invariant: every connection that was admitted is in `connections` until its transport has closed,
and every task of a handler is awaited before `drain` returns; at most `max_connections` are
admitted at a time.
Must not know: listeners, bytes, HTTP.
"""

import asyncio
import logging
from collections.abc import Coroutine
from heapq import nsmallest
from typing import Protocol

from server.exchange import Exchange, Handler
from server.framing import HeadEnds
from server.limits import Limits, Phase, Watch
from server.repeats import Repeats
from server.request import KnownHeads
from server.tcp_memory import Memory, Plenty

logger = logging.getLogger(__name__)

# A search for idle connections looks at all of them, so where it was in vain the next one waits:
# whoever fills the table with half requests must not have it searched for each further connection.
_SEARCH_PAUSE_S = 0.1


class Observer(Protocol):
    """Whoever wants to know of each exchange once it is over: access log, metrics."""

    def exchange_over(self, exchange: Exchange, sent_bytes: int, duration_s: float) -> None:
        """Note an exchange; called on the loop, must not block. `sent_bytes` has the head too."""


class Peer(Protocol):
    """A connection as its endpoint sees it."""

    watch: Watch

    def look(self) -> tuple[Phase, int]:
        """Say what the connection is at, and a mark that moves when it gets on."""

    def wind_up(self) -> None:
        """Close when idle, else after the response under way."""

    def cut(self, cause: str) -> None:
        """End the connection now."""


class Endpoint:
    """One handler behind any number of listeners."""

    def __init__(
        self,
        handler: Handler,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        limits: Limits | None = None,
        observers: tuple[Observer, ...] = (),
        memory: Memory | None = None,
        is_alike: bool = False,
    ) -> None:
        """Needs a running loop.

        `is_alike`: the handler gives equal requests equal answers, whoever sends them, so that it
        need not be asked each time. No handler that judges clients is one of these.
        """
        self.handler = handler
        self.head_ends = HeadEnds(headers)
        self.known_heads = KnownHeads()
        self.repeats = Repeats(is_used=is_alike)
        self.limits = limits or Limits()
        self.observers = observers
        self.memory = memory or Plenty()
        self.is_draining = False
        self.connections: set[Peer] = set()
        self.loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()
        self.refused_count = 0  # connections, since the start
        self._reported_count = 0  # of them
        self._search_at = 0.0  # not before
        self._sweep_timer = self.loop.call_later(self.limits.sweep_s, self._sweep)

    def adopt(self, headers: tuple[tuple[str, str], ...]) -> None:
        """Have other extra headers from now on, in repeated answers too."""
        self.head_ends.adopt(headers)
        self.repeats.forget()

    def admit(self, peer: Peer) -> bool:
        """Take a new connection in, closing idle ones to make room; False where there is none."""
        if self.is_draining or (
            len(self.connections) >= self.limits.max_connections and not self._make_room()
        ):
            self.refused_count += 1
            return False
        self.connections.add(peer)
        return True

    def discard(self, peer: Peer) -> None:
        """Forget a connection that has closed."""
        self.connections.discard(peer)
        if not self.connections:
            self._emptied.set()

    @property
    def waiting_count(self) -> int:
        """How many requests wait for disk, upstream or a client that reads slowly."""
        return len(self._tasks)

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a handler's work in a task that the endpoint awaits in the end."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait_empty(self) -> None:
        """Wait until no connection is left."""
        while self.connections:
            self._emptied.clear()
            await self._emptied.wait()

    async def drain(self, timeout_s: float) -> None:
        """Close idle connections, let responses under way end, and cut them after `timeout_s`.

        Cancelled, it cuts at once; `cut_all` ends it early. No connection and no task is left when
        it returns.
        """
        self.is_draining = True
        try:
            for peer in tuple(self.connections):
                peer.wind_up()
            if timeout_s > 0:
                async with asyncio.timeout(timeout_s):
                    await self.wait_empty()
        except TimeoutError:
            logger.warning("responses cut at the end of the drain count=%d", len(self.connections))
        finally:
            await self._finish()

    def cut_all(self) -> None:
        """End all connections now."""
        for peer in tuple(self.connections):
            peer.cut("the server stops")

    async def _finish(self) -> None:
        self.cut_all()
        await self.wait_empty()
        self._sweep_timer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make_room(self) -> bool:
        """Close the longest idle connections: some at once, for the search looks at all of them."""
        now = self.loop.time()
        if now < self._search_at:
            return False
        idle = []
        for peer in self.connections:
            phase, mark = peer.look()
            peer.watch.is_overdue(phase, mark, now, self.limits)  # it may have been busy just now
            if phase is Phase.IDLE:
                idle.append(peer)
        count = max(1, self.limits.max_connections // 64)
        for peer in nsmallest(count, idle, key=lambda peer: peer.watch.since):
            self.connections.discard(peer)
            peer.cut("room for another connection")
        if not idle:
            self._search_at = now + _SEARCH_PAUSE_S
        return bool(idle)

    def _sweep(self) -> None:
        now = self.loop.time()
        self.repeats.expire(now)
        for peer in tuple(self.connections):
            phase, mark = peer.look()
            if peer.watch.is_overdue(phase, mark, now, self.limits):
                peer.cut(f"no progress in {self.limits.patience_s(phase):g} s ({phase.name})")
        unreported_count = self.refused_count - self._reported_count
        if unreported_count:
            logger.warning(
                "connections refused count=%d max=%d",
                unreported_count,
                self.limits.max_connections,
            )
            self._reported_count = self.refused_count
        self._sweep_timer = self.loop.call_later(self.limits.sweep_s, self._sweep)
