"""A side fetch: bytes far past a fill's frontier, straight from upstream to one client.

Invariant: it is only a shortcut. Where it cannot be had, or breaks, the reader of the fill goes on
from the offset that was reached; so its failures are no failures of the response.
It never covers the blob's held-back end: that leaves only when the fill has verified it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator

from engine.errors import CacheError
from engine.fill import HELD_BACK_BYTES
from server.conditional import Part
from server.exchange import Exchange

# Nearer than this, waiting for the fill costs less than another request to upstream.
NEAR_BYTES = 8 * 1024 * 1024

PATIENCE_S = 10.0

logger = logging.getLogger(__name__)


def plan_side_fetch(part: Part, size_bytes: int, released_bytes: int) -> Part | None:
    """Decide which bytes of `part` to fetch aside; None where the fill is near enough."""
    end = min(part.end, size_bytes - HELD_BACK_BYTES)
    if part.start - released_bytes <= NEAR_BYTES or part.start >= end:
        return None
    return Part(part.start, end)


class SideFetch:
    """The bytes of `part`, from `pieces`. Whoever made it closes it."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], part: Part) -> None:
        self._pieces = pieces
        self._part = part
        self._next = b""

    async def open(self) -> None:
        """Wait for the first piece, but not for long: the head is to leave."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._advance()
        except TimeoutError:
            logger.info("side fetch too slow, the fill serves instead offset=%d", self._part.start)

    async def send(self, exchange: Exchange) -> int:
        """Send what comes; return the offset reached. Raises `ClientGone`."""
        offset = self._part.start
        while self._next and offset < self._part.end:
            piece = self._next[: self._part.end - offset]
            await exchange.write(piece)
            offset += len(piece)
            await self._advance()
        return offset

    async def aclose(self) -> None:
        """Drop the request where it is unfinished. Idempotent."""
        await self._pieces.aclose()

    async def _advance(self) -> None:
        try:
            self._next = await anext(self._pieces, b"")
        except CacheError as error:
            logger.info(
                "side fetch broke, the fill goes on offset=%d cause=%s", self._part.start, error
            )
            self._next = b""
