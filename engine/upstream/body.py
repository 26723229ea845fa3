"""A blob's body under way.

Invariant: what is yielded is exactly the bytes asked for, in order, from `start` on; a body that
breaks off, stalls or runs over raises and never just ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp

from engine.errors import UpstreamUnavailable
from engine.upstream.client import map_faults, place_of
from engine.upstream.kinds import Counts
from engine.upstream.span import Span


class HTTPBlobStream:
    """Implements `BlobStream` over a response. It is its own iterator: there is one pass."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        span: Span,
        *,
        start: int,
        stall_s: float,
        release: Callable[[], None],
        counts: Counts,
    ) -> None:
        self.start = start
        self.size_bytes = span.size_bytes
        self._response = response
        self._place = place_of(response.url)
        self._span = span
        self._skip_bytes = span.skip_bytes
        self._left_bytes = span.count_bytes
        self._stall_s = stall_s
        self._release = release
        self._counts = counts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Give the next piece; at the end, or on an error, the connection is given back."""
        try:
            piece = await self._next_piece()
        except BaseException:
            await self.aclose()
            raise
        if not piece:
            await self.aclose()
            raise StopAsyncIteration
        return piece

    async def _next_piece(self) -> bytes:
        """Read until there is something to yield; empty at the right end."""
        while True:
            if self._left_bytes == 0 and self._is_end_far():
                return b""
            piece = self._skip(await self._read())
            if piece is None:
                continue
            return self._take(piece)

    def _is_end_far(self) -> bool:
        """Whether the response goes on after what was asked: its end is not waited for."""
        if self._span.is_short:
            raise UpstreamUnavailable(f"{self._place}: sent less than the range asked for")
        return self._span.is_cut

    def _skip(self, piece: bytes) -> bytes | None:
        """Drop what is before `start`; None where all of it is. An empty piece is the end."""
        if not self._skip_bytes or not piece:
            return piece
        kept = piece[self._skip_bytes :]
        self._skip_bytes -= len(piece) - len(kept)
        return kept or None

    def _take(self, piece: bytes) -> bytes:
        """Count a piece down; cut it where the range asked for ends."""
        left = self._left_bytes
        if not piece and (left or self._skip_bytes):
            missing = (left or 0) + self._skip_bytes
            raise UpstreamUnavailable(f"{self._place}: the body ended {missing} bytes early")
        if left is None:
            return piece
        if len(piece) > left and not self._span.is_cut:
            raise UpstreamUnavailable(f"{self._place}: the body is longer than its headers say")
        self._left_bytes = max(left - len(piece), 0)
        return piece[:left]

    async def _read(self) -> bytes:
        content = self._response.content
        try:
            async with asyncio.timeout(self._stall_s):
                with map_faults(self._place):
                    # Chunk by chunk as they came: `readany` would copy them into one.
                    piece, is_boundary = await content.readchunk()
                    while is_boundary and not piece:
                        piece, is_boundary = await content.readchunk()
        except TimeoutError as exc:
            message = f"{self._place}: stalled, nothing came for {self._stall_s:g} s"
            raise UpstreamUnavailable(message) from exc
        self._counts.blob_bytes += len(piece)
        return piece

    async def aclose(self) -> None:
        """Drop the connection where the body is unfinished, else keep it. Idempotent."""
        self._response.close()
        self._release()
