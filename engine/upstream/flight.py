"""Single flight: whoever asks for a key that is being worked on gets the same result.

Invariant: the work is a task of its own, which no waiter's cancellation stops; it ends by itself
(callers bound it in time) or by `aclose`, and its failure is never lost: each waiter gets it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Generic, TypeVar

from engine.upstream.faults import NotAsked

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Tasks under way, by key."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    async def join(self, key: K, work: Callable[[], Coroutine[None, None, V]]) -> V:
        """Wait for the key's task, started by `work` if there is none. Safe to cancel."""
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(work())
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._end(key, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError as exc:
            waiter = asyncio.current_task()
            if task.cancelled() and waiter is not None and not waiter.cancelling():
                # Not this waiter was cancelled, but the work.
                raise NotAsked("the mirror is stopping") from exc
            raise

    def _end(self, key: K, task: asyncio.Task[V]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # retrieved, even where every waiter has left

    async def aclose(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
