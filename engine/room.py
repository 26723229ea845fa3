"""Room for what is to be stored: asked for before a byte is written.

Invariant: content is stored only on a promise of its bytes, and a promise ends exactly once: by
`release`, when a row counts the bytes or when they have left the disk.
Says no, by `StorageError`, where the budget has no room even after a moment's eviction, while the
disk fails, and while nobody knows what is stored; then content is served without being stored.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from engine.disk_health import DiskHealth
from engine.errors import OutOfSpace, StorageError, StoragePaused
from engine.fault_log import RepeatedLines
from engine.names import Digest
from engine.space import Reservation, Space

log = logging.getLogger(__name__)

# Long enough for a batch of eviction; clients wait for a first byte for ten times as long.
PATIENCE_S = 2.0


class Promise:
    """Bytes that one piece of content may take. Whoever got it releases it."""

    def __init__(self, room: "Room", reservation: Reservation, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._room = room
        self._reservation = reservation

    async def grow(self, size_bytes: int) -> None:
        """Have `size_bytes` promised in all. Raises as `Room.promise`; it stays what it was."""
        extra_bytes = size_bytes - self.size_bytes
        if extra_bytes > 0:
            await self._room.grow(self._reservation, extra_bytes)
            self.size_bytes = size_bytes

    def release(self) -> None:
        """End it. Idempotent."""
        self._room.release(self._reservation)


class Room:
    """Makes promises out of `space`. `clock` is monotonic, in seconds.

    `wake` is called where something should be evicted; who evicts sets it.
    """

    def __init__(
        self,
        space: Space,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wake: Callable[[], None] = _do_nothing
        self._space = space
        self._patience_s = patience_s
        self._clock = clock
        self._health = DiskHealth()
        self._warnings = RepeatedLines(log)
        self._freed = asyncio.Event()
        space.watch(self._note_freed)

    async def promise(self, size_bytes: int) -> Promise:
        """Promise `size_bytes`; where that must be evicted first, wait for it.

        Raises `OutOfSpace` where it never fits, or not within `patience_s`; `StoragePaused`.
        Cancelled, it leaves nothing promised.
        """
        if not self._health.admit(self._clock()):
            raise StoragePaused("the disk failed a moment ago")
        reservation = self._space.reserve(0)
        try:
            await self.grow(reservation, size_bytes)
        except BaseException:
            self.release(reservation)
            raise
        return Promise(self, reservation, size_bytes)

    async def grow(self, reservation: Reservation, extra_bytes: int) -> None:
        """Add to a reservation, waiting as `promise` does."""
        if self._try_grow(reservation, extra_bytes):
            return
        with self._space.want(extra_bytes):
            self.wake()
            try:
                async with asyncio.timeout(self._patience_s):
                    while not self._try_grow(reservation, extra_bytes):
                        await self._freed.wait()
            except TimeoutError:
                if not self._space.blobs.is_known:
                    cause = "the index was lost, and what is stored is still being counted"
                    raise StoragePaused(cause) from None
                self._space.grow(reservation, extra_bytes)

    def release(self, reservation: Reservation) -> None:
        """End a reservation. Idempotent."""
        self._space.release(reservation)

    def failed(self, cause: StorageError) -> None:
        """Note that the disk refused: nothing is stored for a while."""
        if self._health.failed(self._clock()):
            log.error(
                "storing failed cause=%s action=what is fetched is streamed and not stored "
                "hint=check free space, quota, inodes and health of the data directory's disk",
                cause,
            )
        self.wake()

    def note_unstored(self, what: str, digest: Digest, cause: StorageError) -> None:
        """Log that something is served without being stored."""
        self._warnings.warn(
            (what, type(cause)), "%s not stored digest=%s cause=%s", what, digest, cause
        )

    def worked(self) -> None:
        """Note that something was stored."""
        if self._health.worked():
            log.warning("storing works again")

    def _try_grow(self, reservation: Reservation, extra_bytes: int) -> bool:
        """Grow; False where eviction may help. Raises `OutOfSpace` where it never fits."""
        try:
            self._space.grow(reservation, extra_bytes)
        except OutOfSpace as exc:
            if not exc.can_ever_fit:
                raise
            return False
        return True

    def _note_freed(self) -> None:
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()


def _do_nothing() -> None:
    """Nobody evicts."""
