"""One client of a fill: waits for what is released, and takes it from where it is.

Invariant: a reader gets each byte once and in order, from the partial, from the window of what is
not stored, or, where it fell out of that, by a detour; it never gets more than was released.
Must not know: HTTP.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from engine.detour import Detour, FetchRange
from engine.errors import SizeMismatch
from engine.fill import Fill
from engine.names import Digest


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Bytes `start` up to without `end` of an open file."""

    fd: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class Reader:
    """Opened by `Cache.get_blob`; whoever got it closes it."""

    def __init__(self, fill: Fill, fetch: FetchRange | None = None) -> None:
        """`fetch` gives bytes of the blob as upstream serves them to this client's repository."""
        self._fill = fill
        self._fetch = fetch
        self._seat = fill.join()
        self._is_closed = False

    @property
    def digest(self) -> Digest:
        """What is read."""
        return self._fill.digest

    @property
    def released_bytes(self) -> int:
        """How far may be sent now, without waiting."""
        return self._fill.released_bytes

    @property
    def is_stored(self) -> bool:
        """Whether the blob is being stored, as far as is known now."""
        return self._fill.window is None

    @property
    def fd(self) -> int:
        """The partial's descriptor, while the blob is being stored."""
        return self._fill.fd

    async def wait_open(self) -> int | None:
        """Wait until a head may leave; return the blob's size in bytes if it is known.

        A blob of at most `HELD_BACK_BYTES`, or of unknown size, waits for its end to be verified
        (its size is known then) or for more than that to be written. Raises the fill's error.
        """
        fill = self._fill
        while fill.outcome is None and not (fill.is_open and fill.released_bytes > 0):
            await fill.wait_changed()
        if fill.error is not None:
            raise fill.error
        return fill.size_bytes

    async def wait_end(self) -> int:
        """Wait for the verified end; return the size in bytes. Raises the fill's error."""
        fill = self._fill
        while fill.outcome is None:
            await fill.wait_changed()
        if fill.error is not None:
            raise fill.error
        return fill.written_bytes

    async def wait_kept(self) -> bool:
        """Wait for the verified end of what is being stored; False once it is not stored.

        Raises the fill's error.
        """
        fill = self._fill
        while fill.outcome is None and fill.window is None:
            await fill.wait_changed()
        if fill.error is not None:
            raise fill.error
        return fill.window is None

    def expose(self) -> None:
        """Say that something of it leaves for a client now."""
        self._fill.is_exposed = True

    def step_aside(self) -> None:
        """Say that bytes come from elsewhere until `pieces` are asked for."""
        self._fill.step_aside(self._seat)

    async def wait_past(self, offset: int) -> int:
        """Return `released_bytes` once it exceeds `offset`, or the size at the verified end.

        Raises the fill's error where it ended otherwise and nothing more can be released.
        """
        fill = self._fill
        fill.move(self._seat, offset)
        while fill.released_bytes <= offset and fill.outcome is None:
            await fill.wait_changed()
            fill.move(self._seat, offset)
        if fill.released_bytes <= offset and fill.error is not None:
            raise fill.error
        return fill.released_bytes

    async def pieces(self, start: int, end: int | None) -> AsyncGenerator[FileSpan | bytes, None]:
        """Give bytes `start` up to without `end` (None = the verified end) as they are released.

        A span may be read until the next piece is asked for. Raises the fill's error,
        `SizeMismatch` where the blob ends before `end`, and what a detour raises. Close it.
        """
        offset = start
        detour = Detour(self._fill, self._fetch)
        try:
            while end is None or offset < end:
                released = await self.wait_past(offset)
                if released <= offset:
                    break
                stop = released if end is None else min(released, end)
                piece = self._find(offset, stop)
                if piece is None:
                    piece = await detour.read(offset, stop)
                else:
                    await detour.aclose()
                yield piece
                offset += len(piece)
        finally:
            await detour.aclose()
        if end is not None and offset < end:
            raise SizeMismatch(self.digest, end, offset)

    def close(self) -> None:
        """Leave. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._fill.quit(self._seat)

    def _find(self, offset: int, stop: int) -> FileSpan | bytes | None:
        """Give what is at `offset`; None where the window has moved past it."""
        fill = self._fill
        if offset < fill.stored_bytes:
            stop = min(stop, fill.stored_bytes)
            return FileSpan(fill.fd, offset, stop) if fill.body is None else fill.body[offset:stop]
        assert fill.window is not None
        return fill.window.read(offset, stop) if offset >= fill.window.start else None
