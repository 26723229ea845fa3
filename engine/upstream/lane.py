"""A lane: a bounded number of connections, and a circuit breaker, that some kinds share.

Invariant: whoever holds a slot uses at most one connection at a time (a redirect's next hop after
the last one, a token fetch in the slots of those who wait for it), so slots bound connections.
"""

import asyncio
import logging

from engine.errors import UpstreamUnavailable
from engine.live_views import LaneView
from engine.upstream.breaker import Breaker, Cause, Verdict
from engine.upstream.kinds import LaneName
from engine.upstream.limits import Limits

logger = logging.getLogger(__name__)


class Slot:
    """The right to one connection. `release` is idempotent."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots

    def release(self) -> None:
        """Let the next one have it."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()


class Lane:
    """Slots and a breaker. `now` is the event loop's clock."""

    def __init__(self, namespace: str, name: LaneName, slots_count: int, limits: Limits) -> None:
        self.name = name
        self.slots_count = slots_count
        self._namespace = namespace
        self._slots = asyncio.Semaphore(slots_count)
        self._breaker = Breaker(limits)

    async def take_slot(self, deadline: float) -> Slot:
        """Wait for a slot, in order of arrival. Raises `TimeoutError` at the deadline."""
        async with asyncio.timeout_at(deadline):
            await self._slots.acquire()
        return Slot(self._slots)

    def admit(self, now: float) -> Verdict:
        """Ask the breaker about an operation that begins."""
        return self._breaker.admit(now)

    def refusal(self, now: float) -> UpstreamUnavailable:
        """Make the error for those whom the breaker refuses."""
        cause = self._breaker.cause or Cause("it is being probed", None)
        return UpstreamUnavailable(
            f"{self._namespace} is not asked for now, since it failed: {cause.message}",
            upstream_status=cause.upstream_status,
            retry_after_s=self._breaker.remaining_s(now),
        )

    def look(self, now: float) -> LaneView:
        """Tell how the breaker stands."""
        if not self._breaker.is_open:
            return LaneView(self.name.value, is_open=False, wait_s=0.0, cause="")
        cause = self._breaker.cause
        return LaneView(
            self.name.value,
            is_open=True,
            wait_s=self._breaker.remaining_s(now),
            cause=cause.message if cause else "",
        )

    def answered(self, now: float) -> None:
        """Upstream answered: close the breaker."""
        if self._breaker.answered(now):
            logger.warning("upstream is back upstream=%s lane=%s", self._namespace, self.name.value)

    def failed(self, error: UpstreamUnavailable, *, began_at: float, now: float) -> None:
        """An operation gave up: perhaps open the breaker."""
        cause = Cause(str(error), error.upstream_status)
        if self._breaker.failed(cause, began_at=began_at, now=now):
            logger.warning(
                "upstream is unavailable upstream=%s lane=%s pause_s=%.0f cause=%r "
                "hint=what is stored is served meanwhile; check network, proxy and upstream status",
                self._namespace,
                self.name.value,
                self._breaker.remaining_s(now),
                cause.message,
            )

    def abandoned(self) -> None:
        """Give a probe back that came to no end."""
        self._breaker.abandoned()
