"""An operation: attempts until the deadline, within the retry budget, past breaker and pauses.

Invariant: an operation that is admitted either gets an answer, or has tried as long as its
deadline allows; it never sleeps past it. Must not know: HTTP, tokens, what is asked for.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine.errors import NotAsked, NotFound, UpstreamError, UpstreamUnavailable
from engine.live_views import LaneView
from engine.upstream.breaker import Verdict
from engine.upstream.clock import loop_now
from engine.upstream.guard import RateGuard
from engine.upstream.kinds import Counts, Kind, LaneName
from engine.upstream.lane import Lane, Slot
from engine.upstream.limits import Limits
from engine.upstream.retry import RetryBudget, backoff_s

T = TypeVar("T")


class _OutOfTime(UpstreamUnavailable):
    """The deadline cut an attempt short."""


# Gets a slot and gives it back, unless what it returns goes on using it.
Attempt = Callable[[Slot], Awaitable[T]]


class Operations:
    """Runs the operations on one upstream."""

    def __init__(
        self, namespace: str, max_connections: int, limits: Limits, counts: Counts, guard: RateGuard
    ) -> None:
        self._namespace = namespace
        self._limits = limits
        self._counts = counts
        self._guard = guard
        self._budget = RetryBudget(0.0)
        # A quarter is kept free of blob bodies, which hold a connection for long. At least one
        # connection each.
        control = max(1, max_connections // 4)
        self._lanes = {
            LaneName.CONTROL: Lane(namespace, LaneName.CONTROL, control, limits),
            LaneName.BLOB: Lane(
                namespace, LaneName.BLOB, max(1, max_connections - control), limits
            ),
        }

    def look(self, now: float) -> tuple[LaneView, ...]:
        """Tell how the circuit breakers stand."""
        return tuple(lane.look(now) for lane in self._lanes.values())

    async def run(self, kind: Kind, deadline: float, attempt: Attempt[T]) -> T:
        """Attempt until there is an answer; raises what the last attempt raised.

        `deadline` is of the event loop's clock. Safe to cancel.
        """
        lane, began_at = self._lanes[kind.lane], loop_now()
        self._guard.check(kind, began_at)
        verdict = lane.admit(began_at)
        if verdict is Verdict.REFUSED:
            self._counts.refused[kind, "breaker"] += 1
            raise lane.refusal(began_at)
        self._budget.note_request()
        try:
            result = await self._attempt_until(lane, kind, deadline, attempt, verdict)
        except NotAsked:
            raise
        except UpstreamUnavailable as exc:
            lane.failed(exc, began_at=began_at, now=loop_now())
            raise
        except (NotFound, UpstreamError):
            lane.answered(loop_now())
            raise
        finally:
            if verdict is Verdict.PROBE:
                lane.abandoned()
        lane.answered(loop_now())
        return result

    async def _attempt_until(
        self, lane: Lane, kind: Kind, deadline: float, attempt: Attempt[T], verdict: Verdict
    ) -> T:
        failures = 0
        cause: UpstreamUnavailable | None = None
        while True:
            try:
                return await self._attempt_once(lane, kind, deadline, attempt)
            except NotAsked:
                raise
            except UpstreamUnavailable as exc:
                failures += 1
                # The last attempt may have had no time to fail: what failed before says more.
                if cause is not None and isinstance(exc, _OutOfTime):
                    raise cause from exc
                cause = exc
                # A probe has one attempt, so that its failure is fast too.
                if verdict is Verdict.PROBE or not await self._wait(failures, deadline):
                    raise
            self._counts.retries += 1
            self._guard.check(kind, loop_now())

    async def _wait(self, failures: int, deadline: float) -> bool:
        """Sleep before a retry; False where there is no time for one.

        Without budget it sleeps on: an operation gives up by its deadline alone.
        """
        while True:
            wait_s = backoff_s(failures, random.random(), self._limits)
            if loop_now() + wait_s >= deadline:
                return False
            await asyncio.sleep(wait_s)
            if self._budget.take(loop_now()):
                return True
            failures += 1

    async def _attempt_once(
        self, lane: Lane, kind: Kind, deadline: float, attempt: Attempt[T]
    ) -> T:
        try:
            slot = await lane.take_slot(deadline)
        except TimeoutError as exc:
            self._counts.refused[kind, "busy"] += 1
            raise NotAsked(
                f"{self._namespace}: all {lane.slots_count} connections for {lane.name.value} "
                "requests are busy (maxconnections)"
            ) from exc
        try:
            return await self._attempt_in_time(slot, deadline, attempt)
        except BaseException:
            slot.release()
            raise

    async def _attempt_in_time(self, slot: Slot, deadline: float, attempt: Attempt[T]) -> T:
        began_at = loop_now()
        until = min(deadline, began_at + self._limits.attempt_s)
        try:
            async with asyncio.timeout_at(until):
                return await attempt(slot)
        except TimeoutError as exc:
            message = f"{self._namespace}: no complete answer within {until - began_at:.1f} s"
            made = _OutOfTime if until == deadline else UpstreamUnavailable
            raise made(message) from exc
