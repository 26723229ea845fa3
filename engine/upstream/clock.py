"""The clock of all deadlines, pauses and lifetimes here: the event loop's."""

import asyncio


def loop_now() -> float:
    """Give the running loop's time, in seconds from an arbitrary zero."""
    return asyncio.get_running_loop().time()
