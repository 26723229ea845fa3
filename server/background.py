"""Work that goes on by itself while a server runs.

Invariant: it ends, and is awaited, when the stack that it began on unwinds; should it die before
that, an error says so.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack

logger = logging.getLogger(__name__)


def begin(stack: AsyncExitStack, work: Coroutine[None, None, None], name: str) -> None:
    """Do `work` in a task until the stack unwinds."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_note_end)

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    stack.push_async_callback(end)


def _note_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("background work died task=%s", task.get_name(), exc_info=error)
