"""One run of a piece of work for all who ask for it at the same moment.

Invariant: at most one task a key, owned here and by nobody who waits. A waiter that is cancelled
harms neither the work nor the others; the work goes on even when all have left.
A result is shared only with those who asked before it was there: nothing is remembered.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Generic, TypeVar

from engine.errors import NotAsked

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """The work under way, by key. Whoever made it closes it."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    async def run(self, key: K, factory: Callable[[], Coroutine[None, None, V]]) -> tuple[V, bool]:
        """Give the result for `key`, and whether this call started the work.

        Joins the work that is under way; else starts it by `factory()`, as a task that survives
        the cancellation of this call. All who wait get the result, or the exception it raised;
        `NotAsked` where `aclose` stopped it or has been called before.
        """
        if self._is_closed:
            raise _stopped()
        task = self._tasks.get(key)
        is_lead = task is None
        if task is None:
            task = self._tasks[key] = asyncio.create_task(self._work(key, factory))
            task.add_done_callback(_note_end)
        # Unlike `await task`, this neither cancels the task nor raises for it.
        await asyncio.wait({task})
        if task.cancelled():
            # Not this call was cancelled, so it must not look as if.
            raise _stopped()
        return task.result(), is_lead

    async def aclose(self) -> None:
        """Cancel all work and wait until it has ended. Idempotent."""
        self._is_closed = True
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tasks.clear()

    async def _work(self, key: K, factory: Callable[[], Coroutine[None, None, V]]) -> V:
        try:
            return await factory()
        finally:
            # Here and not in a callback: who asks next must not get a result of the past.
            del self._tasks[key]


def _note_end(task: asyncio.Task[V]) -> None:
    # Looking at the exception also tells asyncio that somebody did, if all waiters have left.
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("flight_failed error=%r", error)


def _stopped() -> NotAsked:
    return NotAsked("the mirror is stopping")
