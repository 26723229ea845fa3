"""The pace of a download that is not stored: as fast as its fastest reader, nearly.

Invariant: nothing is dropped from the window that no reader has got; who has not got it either is
waited for only while the fastest still has something to read, or grace is left (engine/grace.py).
Who waits for bytes that are further on, or reads elsewhere, is waited for by nobody.
Must not know: files, upstream.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from engine.grace import Grace
from engine.window import BLOCK_BYTES, Window


class Abandoned(Exception):
    """Nobody reads what is not stored."""


@dataclass(slots=True, eq=False)
class Seat:
    """Where a reader is.

    `is_aside`: it reads elsewhere for a while, and sets no pace here. `holds_file`: it may yet need
    the partial's descriptor.
    """

    offset: int = 0
    is_aside: bool = False
    holds_file: bool = True


class Pace:
    """Of one window. `seats` are those of the readers there are, kept by who made this."""

    def __init__(self, window: Window, seats: Collection[Seat]) -> None:
        self.released_bytes = window.base  # how far readers may get
        self._window = window
        self._seats = seats
        self._grace = Grace(asyncio.get_running_loop().time())
        self._changed = asyncio.Event()

    def note_change(self) -> None:
        """Say that a reader has moved or left."""
        self._changed.set()

    async def wait_room(self) -> int:
        """Wait until the window takes more, and return how many bytes. Raises `Abandoned`.

        One caller at a time. Cancelled, it leaves everything as it is.
        """
        window = self._window
        self._grace.earn(asyncio.get_running_loop().time())
        while self._seats:
            self._changed.clear()
            if window.free_bytes:
                return window.free_bytes
            if not window.room_bytes:
                await self._wait_fastest()
            elif self._grace.left_s and self._is_oldest_needed():
                await self._wait_others()
            else:
                return min(window.room_bytes, BLOCK_BYTES)
        raise Abandoned

    async def _wait_fastest(self) -> None:
        if any(not seat.is_aside and seat.offset <= self._window.end for seat in self._seats):
            await self._changed.wait()
        else:
            # Those who are further on would wait for ever.
            self._window.skip_readers()

    async def _wait_others(self) -> None:
        """Wait for a move of those behind, for as long as may be once the fastest waits too."""
        loop, grace = asyncio.get_running_loop(), self._grace
        if self._window.read_to < self.released_bytes:
            await self._changed.wait()
            grace.earn(loop.time())
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(grace.left_s):
                await self._changed.wait()
        grace.spend(loop.time())

    def _is_oldest_needed(self) -> bool:
        """Whether somebody has yet to read the oldest block."""
        oldest = range(self._window.start, self._window.start + BLOCK_BYTES)
        return any(not seat.is_aside and seat.offset in oldest for seat in self._seats)
