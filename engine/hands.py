"""Threads that open, write and hash what is being filled, so that the event loop waits for no disk.

Invariant: work that was begun is waited for, even by a caller that is cancelled: the file it works
on is the caller's. The threads are apart from asyncio's own, which wait for fsync, so that one
blob's arrival does not wait for another's commit. Both kinds leave the processor to the loop.
Must not know: what the work is.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Hands:
    """As many threads as processors; whoever made them closes them."""

    def __init__(self) -> None:
        # Two at least, so that one that waits for a disk is not the only one.
        self._pool = make_pool("hands", max(2, os.cpu_count() or 1))

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Begin `work`. The future must not be cancelled: see `finish`."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def run(self, work: Callable[[], T], undo: Callable[[T], None]) -> T:
        """Do `work` and return its result; where the caller is cancelled, `undo` it."""
        future = self.start(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await finish(future)
            if future.exception() is None:
                undo(future.result())
            raise

    def close(self) -> None:
        """Let the threads end when their work is done."""
        self._pool.shutdown(wait=False)


def make_pool(name: str, max_threads: int | None = None) -> ThreadPoolExecutor:
    """Make threads that leave the processor to the event loop when both have something to do.

    Without `max_threads` as many as asyncio's own pool has.
    """
    return ThreadPoolExecutor(max_threads, name, initializer=_become_batch)


def _become_batch() -> None:
    """Tell the kernel that this thread computes, so that it never preempts the loop on waking.

    Its share of the processor stays the same, as it must: a thread that starves while it has the
    interpreter's lock would stop the loop. See sched(7), SCHED_BATCH.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as exc:
        logger.debug("threads run as any other: %s", exc)


async def finish(future: "asyncio.Future[T]") -> None:
    """Wait for what was begun, through any cancellation: for no longer than a piece takes."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({future})
