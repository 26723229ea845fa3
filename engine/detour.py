"""The way of a reader that fell out of the window: a Range of its own to upstream.

Invariant: what it gives is, block by block, what the fill received and hashed; so the end of the
blob, which is held back until the fill's digest is right, vouches for these bytes as well. At most
`MAX_DETOURS` of a fill at a time.
"""

from collections.abc import AsyncGenerator, Callable

from engine.errors import BlockMismatch, FellBehind, UpstreamError, UpstreamUnavailable
from engine.fill import HELD_BACK_BYTES, MAX_DETOURS, Fill
from engine.window import BLOCK_BYTES, Window

# Gives bytes `start` up to without `end` of the blob, from upstream.
FetchRange = Callable[[int, int], AsyncGenerator[bytes, None]]


class Detour:
    """Costs nothing until it is read. Close it; it may be read again after that."""

    def __init__(self, fill: Fill, fetch: FetchRange | None) -> None:
        self._fill = fill
        self._fetch = fetch
        self._is_open = False
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._start = 0  # of the block
        self._block = b""  # whole and checked, or nothing
        self._rest = bytearray()  # what came after it

    async def read(self, offset: int, stop: int) -> bytes:
        """Give bytes from `offset` to at most `stop`, which have left the window.

        Raises `FellBehind` where too many do so, `BlockMismatch` where upstream sends other bytes
        than before, and what upstream raises.
        """
        window = self._fill.window
        assert window is not None, f"{self._fill.digest} is stored"
        if self._fill.error is not None:
            raise self._fill.error
        self._open()
        start = window.block_start(offset)
        if not self._block or start != self._start:
            await self._load(window, start)
        return self._block[offset - start : stop - start]

    async def aclose(self) -> None:
        """Drop the request. Idempotent."""
        if self._is_open:
            self._is_open = False
            self._fill.detour_count -= 1
            await self._forget()

    def _open(self) -> None:
        if self._is_open:
            return
        if self._fetch is None or self._fill.detour_count >= MAX_DETOURS:
            raise FellBehind(self._fill.digest)
        self._fill.detour_count += 1
        self._is_open = True

    async def _load(self, window: Window, start: int) -> None:
        if start != self._start + len(self._block):
            await self._forget()
        self._start, self._block = start, b""
        while len(self._rest) < BLOCK_BYTES:
            self._rest += await self._next_piece(window)
        block = bytes(self._rest[:BLOCK_BYTES])
        if not window.holds_sum(start, block):
            raise BlockMismatch(self._fill.digest, start)
        self._block = block
        del self._rest[:BLOCK_BYTES]

    async def _next_piece(self, window: Window) -> bytes:
        """Go on with the request; with another one where it ended, or broke after some bytes."""
        is_new = self._pieces is None
        if self._pieces is None:
            self._pieces = self._begin(window)
        try:
            piece = await anext(self._pieces, b"")
        except UpstreamError:
            if is_new:
                raise
            piece = b""
        if not piece:
            if is_new:
                raise UpstreamUnavailable(f"upstream sent nothing of {self._fill.digest}")
            await self._drop_pieces()
        return piece

    def _begin(self, window: Window) -> AsyncGenerator[bytes, None]:
        assert self._fetch is not None
        size_bytes = self._fill.size_bytes
        # All that may be needed, since a request a block would be many. It is dropped as soon as
        # the window is reached, at the latest where the end is held back.
        end = window.start if size_bytes is None else size_bytes - HELD_BACK_BYTES
        return self._fetch(self._start + len(self._rest), end)

    async def _forget(self) -> None:
        self._block = b""
        self._rest.clear()
        await self._drop_pieces()

    async def _drop_pieces(self) -> None:
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            await pieces.aclose()
