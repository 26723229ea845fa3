"""Who is changing which digest's file: one at a time, a commit or a removal.

Invariant: whoever holds a digest's claim is the only one that renames a file to its place or takes
it away, with the row that goes with it. So a removal never takes what was stored meanwhile.
Everything runs on the event loop, so no locks.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.names import Digest


class Claims:
    """The digests that somebody holds."""

    def __init__(self) -> None:
        self._held: dict[Digest, asyncio.Event] = {}

    def take_free(self, digest: Digest) -> bool:
        """Claim a digest if nobody holds it, and tell; pair with one `release`."""
        if digest in self._held:
            return False
        self._held[digest] = asyncio.Event()
        return True

    def release(self, digest: Digest) -> None:
        """Let go of a digest; one of those who wait gets it."""
        self._held.pop(digest).set()

    @asynccontextmanager
    async def hold(self, digest: Digest) -> AsyncIterator[None]:
        """Claim a digest, waiting for whoever holds it."""
        while not self.take_free(digest):
            await self._held[digest].wait()
        try:
            yield
        finally:
            self.release(digest)
