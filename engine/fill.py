"""In-flight fills: one upstream fetch per digest, any number of readers.

Invariant: bytes below `written_bytes` never change, and a fill ends exactly once. They are on disk,
in memory where the blob is small, or, from where storing stopped, in a window that moves on with
the fastest reader, which is held up a little for the others. A reader is released bytes up to
`released_bytes`: all but the last `HELD_BACK_BYTES` until the digest is verified, so no client
completes a wrong blob.
Readers may leave at any time. A fill that is stored waits for nobody and goes on when all have
left; one that is not stored stops then. The partial's descriptor, which readers share with the
lead, is closed when the last who needs it has left.
Must not know: HTTP, SQL, eviction, upstream. Everything runs on the event loop, so no locks.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto

from engine.errors import CacheError
from engine.names import Digest
from engine.pace import Pace, Seat
from engine.window import Window
from engine.windows import Windows

HELD_BACK_BYTES = 64 * 1024
# Readers that fell out of the window and have an upstream request each; more of them are cut.
MAX_DETOURS = 8


class Outcome(Enum):
    """How a fill ended."""

    DONE = auto()  # verified; the bytes are right
    NOT_FOUND = auto()  # upstream answered 404
    RETRYABLE = auto()  # upstream failed for now; the partial stays and is resumed
    MISMATCH = auto()  # size or digest differ: the partial is gone
    DANGLING = auto()  # the lead was cancelled (the mirror stops), or nobody reads any more


class Fill:
    """Progress of one download (idea: pingora-cache `PartialHit`, but a failure is visible)."""

    def __init__(
        self, digest: Digest, size_bytes: int | None, windows: Windows | None = None
    ) -> None:
        """`windows`: those that a window of this fill shares memory with."""
        self.digest = digest
        self.size_bytes = size_bytes  # None until a descriptor or upstream's headers say
        self.written_bytes = 0
        self.is_open = False  # upstream said 200 (or all of it is here): a head may leave
        self.is_exposed = False  # a reader has sent something; the bytes may not change any more
        self.outcome: Outcome | None = None
        self.error: CacheError | None = None
        # What the lead went through
        self.resumed_count = 0
        self.retried_count = 0
        self.is_adopted = False
        # Once it is not stored
        self.window: Window | None = None
        self.detour_count = 0
        self._windows = windows or Windows()
        self._pace: Pace | None = None
        # Small content, where it waits to be stored; else the partial
        self.body: bytes | None = None
        self._fd: int | None = None
        self._closed: Callable[[], None] = _do_nothing
        self._is_led = True
        self._holders = 1  # the lead, and each seat that holds the file
        # Who reads
        self._seats: set[Seat] = set()
        self._changed = asyncio.Event()

    @property
    def released_bytes(self) -> int:
        """How far readers may send."""
        if self.outcome is Outcome.DONE:
            return self.written_bytes
        size = self.size_bytes if self.size_bytes is not None else self.written_bytes
        return max(0, min(self.written_bytes, size - HELD_BACK_BYTES))

    @property
    def stored_bytes(self) -> int:
        """How far the partial goes."""
        return self.written_bytes if self.window is None else self.window.base

    @property
    def is_joinable(self) -> bool:
        """Whether a reader that comes now finds the first byte."""
        window = self.window
        if window is None:
            return True
        return window.start == window.base and (window.base == 0 or self._fd is not None)

    @property
    def reader_count(self) -> int:
        """How many read it."""
        return len(self._seats)

    @property
    def fd(self) -> int:
        """The partial's descriptor. A commit renames the file, which does not matter to it."""
        assert self._fd is not None, f"{self.digest} has no file"
        return self._fd

    # For the lead

    def attach(self, fd: int, closed: Callable[[], None] | None = None) -> None:
        """Give the fill its partial; the last who needs it closes it, and calls `closed`."""
        self._fd = fd
        self._closed = closed or _do_nothing

    def open(self, size_bytes: int | None) -> None:
        """Upstream answered, and says how large the blob is, if it says."""
        if size_bytes is not None:
            self.size_bytes = size_bytes
        self.is_open = True
        self._wake()

    def advance(self, count_bytes: int) -> None:
        """Publish `count_bytes` more, already written to the file."""
        before = self.released_bytes
        self.written_bytes += count_bytes
        if self.released_bytes > before:
            self._wake()

    def stop_storing(self) -> None:
        """Keep what comes from now on in a window. What is in the file is still read from there."""
        self._begin_window()
        self.leave()
        self._wake()

    async def wait_room(self) -> int:
        """Wait until the window takes more, and return how many bytes. Raises `Abandoned`."""
        assert self._pace is not None, f"{self.digest} is stored"
        self._pace.released_bytes = self.released_bytes
        return await self._pace.wait_room()

    def pass_on(self, data: memoryview) -> None:
        """Publish bytes that are not stored, at most what `wait_room` said."""
        assert self.window is not None, f"{self.digest} is stored"
        self.window.append(data)
        self.advance(len(data))

    def restart(self, size_bytes: int | None) -> None:
        """Begin anew at byte 0; only while nothing was exposed."""
        assert not self.is_exposed, f"{self.digest} restarted under its readers"
        self.size_bytes = size_bytes
        self.written_bytes = 0
        self.is_open = False
        if self.window is not None:
            self._begin_window()

    def end(self, outcome: Outcome, error: CacheError | None = None) -> None:
        """Record how the fill ended, with the error for readers unless it is `DONE`."""
        assert self.outcome is None, f"{self.digest} ended twice"
        assert (error is None) == (outcome is Outcome.DONE)
        self.outcome = outcome
        self.error = error
        self._close_unread()
        self._wake()

    def leave(self) -> None:
        """The lead has no more use for the file. Idempotent."""
        if self._is_led:
            self._is_led = False
            self._drop_hold()

    # For readers

    def join(self) -> Seat:
        """Take a seat at the first byte; pair with one `quit`."""
        seat = Seat(holds_file=self.window is None or self._fd is not None)
        self._holders += seat.holds_file
        self._seats.add(seat)
        return seat

    def move(self, seat: Seat, offset: int) -> None:
        """Note that a reader wants what is at `offset` next, and nothing before it again."""
        seat.offset, seat.is_aside = offset, False
        if self.window is not None:
            self._settle(seat)
            self.window.note_read(offset)
            self._tell_pace()

    def step_aside(self, seat: Seat) -> None:
        """Note that nobody need wait for this reader until it moves again."""
        seat.is_aside = True
        self._tell_pace()

    def quit(self, seat: Seat) -> None:
        """Leave a seat."""
        self._seats.discard(seat)
        self._let_go(seat)
        self._close_unread()
        self._tell_pace()

    async def wait_changed(self) -> None:
        """Wait for the next change. Safe to cancel: it holds nothing."""
        await self._changed.wait()

    def _begin_window(self) -> None:
        if self.window is not None:
            self._windows.close(self.window)
        self.window = self._windows.open(self.written_bytes)
        self._pace = Pace(self.window, self._seats)
        for seat in self._seats:
            self._settle(seat)

    def _close_unread(self) -> None:
        if self.window is not None and self.outcome is not None and not self._seats:
            self._windows.close(self.window)

    def _tell_pace(self) -> None:
        if self._pace is not None:
            self._pace.note_change()

    def _settle(self, seat: Seat) -> None:
        """Let a reader that is past what was stored do without the file."""
        if seat.offset >= self.stored_bytes:
            self._let_go(seat)

    def _let_go(self, seat: Seat) -> None:
        if seat.holds_file:
            seat.holds_file = False
            self._drop_hold()

    def _drop_hold(self) -> None:
        self._holders -= 1
        if self._holders == 0 and self._fd is not None:
            # A blob was synced before; what a failed close may lose of a leftover is found when it
            # is hashed again.
            with suppress(OSError):
                os.close(self._fd)
            self._fd = None
            self._closed()

    def _wake(self) -> None:
        # A fresh event per change: a late reader simply sees the new numbers, and there is no
        # clear() for two readers to race over.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _do_nothing() -> None:
    """Nobody minds that the file was closed."""
