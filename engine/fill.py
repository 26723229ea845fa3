"""In-flight fills: one upstream fetch per digest, any number of readers.

Invariant: bytes below `written_bytes` are on disk and never change; a fill ends exactly once.
A reader is released bytes up to `released_bytes`: all but the last `HELD_BACK_BYTES` until the
digest is verified, so no client completes a wrong blob.
Readers may leave at any time and nothing here waits for them; the partial's descriptor, which they
share with the lead, is closed when the last has left.
Must not know: HTTP, SQL, eviction, upstream. Everything runs on the event loop, so no locks.
"""

import asyncio
import os
from enum import Enum, auto

from engine.errors import CacheError
from engine.names import Digest

HELD_BACK_BYTES = 64 * 1024


class Outcome(Enum):
    """How a fill ended."""

    DONE = auto()  # verified; the bytes are right
    NOT_FOUND = auto()  # upstream answered 404
    RETRYABLE = auto()  # upstream failed for now; the partial stays and is resumed
    MISMATCH = auto()  # size or digest differ: the partial is gone
    DANGLING = auto()  # the lead was cancelled (the mirror stops)


class Fill:
    """Progress of one partial file (idea: pingora-cache `PartialHit`, but a failure is visible)."""

    def __init__(self, digest: Digest, size_bytes: int | None) -> None:
        self.digest = digest
        self.size_bytes = size_bytes  # None until a descriptor or upstream's headers say
        self.written_bytes = 0
        self.is_open = False  # upstream said 200 (or all of it is here): a head may leave
        self.is_exposed = False  # a reader has sent something; the bytes may not change any more
        self.outcome: Outcome | None = None
        self.error: CacheError | None = None
        self._fd: int | None = None
        self._holders = 1  # the lead, and each reader
        self._changed = asyncio.Event()

    @property
    def released_bytes(self) -> int:
        """How far readers may send."""
        if self.outcome is Outcome.DONE:
            return self.written_bytes
        size = self.size_bytes if self.size_bytes is not None else self.written_bytes
        return max(0, min(self.written_bytes, size - HELD_BACK_BYTES))

    def open(self, size_bytes: int | None) -> None:
        """Upstream answered, and says how large the blob is, if it says."""
        if size_bytes is not None:
            self.size_bytes = size_bytes
        self.is_open = True
        self._wake()

    @property
    def fd(self) -> int:
        """The partial's descriptor. A commit renames the file, which does not matter to it."""
        assert self._fd is not None, f"{self.digest} has no file yet"
        return self._fd

    def attach(self, fd: int) -> None:
        """Give the fill its partial file; the last to leave closes it."""
        self._fd = fd

    def join(self) -> None:
        """Keep the partial's descriptor open; pair with one `leave`."""
        self._holders += 1

    def leave(self) -> None:
        """Let go of the partial's descriptor."""
        self._holders -= 1
        if self._holders == 0 and self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def advance(self, count_bytes: int) -> None:
        """Publish `count_bytes` more, already written to the file."""
        before = self.released_bytes
        self.written_bytes += count_bytes
        if self.released_bytes > before:
            self._wake()

    def restart(self, size_bytes: int | None) -> None:
        """Begin anew at byte 0; only while nothing was exposed."""
        assert not self.is_exposed, f"{self.digest} restarted under its readers"
        self.size_bytes = size_bytes
        self.written_bytes = 0
        self.is_open = False

    def end(self, outcome: Outcome, error: CacheError | None = None) -> None:
        """Record how the fill ended, with the error for readers unless it is `DONE`."""
        assert self.outcome is None, f"{self.digest} ended twice"
        assert (error is None) == (outcome is Outcome.DONE)
        self.outcome = outcome
        self.error = error
        self._wake()

    async def wait_changed(self) -> None:
        """Wait for the next change. Safe to cancel: it holds nothing."""
        await self._changed.wait()

    def _wake(self) -> None:
        # A fresh event per change: a late reader simply sees the new numbers, and there is no
        # clear() for two readers to race over.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Reader:
    """One client of a fill. Opened by `Cache.get_blob`; whoever got it closes it."""

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self._is_closed = False
        fill.join()

    @property
    def digest(self) -> Digest:
        """What is read."""
        return self._fill.digest

    @property
    def released_bytes(self) -> int:
        """How far may be sent now, without waiting."""
        return self._fill.released_bytes

    @property
    def fd(self) -> int:
        """The partial's descriptor, for `sendfile`; valid after `wait_open` until `close`."""
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

    def expose(self) -> None:
        """Say that something of it leaves for a client now."""
        self._fill.is_exposed = True

    async def wait_past(self, offset: int) -> int:
        """Return `released_bytes` once it exceeds `offset`, or the size at the verified end.

        Raises the fill's error where it ended otherwise and nothing more can be released.
        """
        fill = self._fill
        while fill.released_bytes <= offset and fill.outcome is None:
            await fill.wait_changed()
        if fill.released_bytes <= offset and fill.error is not None:
            raise fill.error
        return fill.released_bytes

    def close(self) -> None:
        """Leave. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._fill.leave()
