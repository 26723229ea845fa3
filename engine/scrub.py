"""The scrub: everything stored is read and compared, in the background and at a bounded rate.

Invariant: it reads no faster than its rate, newest content first, and nothing again that was
compared within the interval, in whichever run; so a restart goes on where the last run stopped.
Bytes that prove wrong go into quarantine, to be fetched anew when they are asked for.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from engine.errors import StorageError
from engine.index_upkeep import IndexUpkeep, Verified
from engine.live_views import ScrubView, Weight
from engine.names import Digest
from engine.settings import VerifySettings
from engine.trust import Verdicts
from engine.verification import Check

log = logging.getLogger(__name__)

# The first moments of a run belong to those who have waited for it.
DELAY_S = 10.0
# How often to look for what has come due.
PASS_PAUSE_S = 3600.0
PIECE_BYTES = 1024 * 1024
_PAGE = 256
_NEWEST = (float("inf"), "")


class Pace:
    """Keeps bytes to a rate. Pure: takes `now`, of any clock, and says how long to wait."""

    def __init__(self, rate_bytes_s: int) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._free_at = 0.0

    def spend(self, count_bytes: int, now: float) -> float:
        """Note that `count_bytes` were read; return the seconds to wait before more are.

        Time that passed unused is not saved up: after a pause there is no burst.
        """
        self._free_at = max(self._free_at, now) + count_bytes / self._rate_bytes_s
        return self._free_at - now


def is_due(verified_at: float | None, now: float, interval_s: float) -> bool:
    """Tell whether a blob is to be compared again. Pure.

    A time in the future is of a clock that was set back since, and tells nothing.
    """
    return verified_at is None or not now - interval_s < verified_at <= now


@dataclass(slots=True)
class _Pass:
    checked_count: int = 0
    checked_bytes: int = 0
    damaged_count: int = 0

    def add(self, other: "_Pass") -> None:
        self.checked_count += other.checked_count
        self.checked_bytes += other.checked_bytes
        self.damaged_count += other.damaged_count


class Scrub:
    """Compares all blobs. `open_blob` opens a blob's file."""

    def __init__(
        self,
        index: IndexUpkeep,
        open_blob: Callable[[Digest], int],
        verdicts: Verdicts,
        settings: VerifySettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._index = index
        self._open_blob = open_blob
        self._verdicts = verdicts
        self._settings = settings
        self._sleep = sleep
        self._pace = Pace(settings.rate_bytes_s)
        self._pass = _Pass()  # the one under way, else the last that found something to do
        self._over = _Pass()  # all passes before the one under way
        self._is_running = False
        self._finished_at: float | None = None

    @property
    def total(self) -> Weight:
        """All that was compared since the start."""
        total = replace(self._over)
        if self._is_running:
            total.add(self._pass)
        return Weight(total.checked_count, total.checked_bytes)

    def look(self) -> ScrubView:
        """Tell how far it is."""
        done = self._pass
        return ScrubView(
            self._is_running,
            done.checked_count,
            done.checked_bytes,
            done.damaged_count,
            self._finished_at,
        )

    async def run(self) -> None:
        """Scrub until cancelled; at once over where the interval is 0."""
        interval_s = self._settings.interval_s
        if not interval_s:
            return
        await self._sleep(min(DELAY_S, interval_s))
        while True:
            try:
                await self.run_once()
            except StorageError as exc:
                log.error("scrub broken off cause=%s action=it is tried again later", exc)
            await self._sleep(min(PASS_PAUSE_S, interval_s))

    async def run_once(self) -> int:
        """Compare all that is due; return how many were damaged. Raises `StorageError`."""
        done = _Pass()
        try:
            async for found in self._iter_due():
                self._pass, self._is_running = done, True
                await self._scrub(found, done)
        finally:
            self._is_running = False
            self._over.add(done)
        self._finished_at = time.time()
        if done.checked_count:
            log.info(
                "scrubbed blobs=%d bytes=%d damaged=%d",
                done.checked_count,
                done.checked_bytes,
                done.damaged_count,
            )
        return done.damaged_count

    async def _iter_due(self) -> AsyncIterator[Verified]:
        after: tuple[float, str] = _NEWEST
        while page := await self._index.page_newest(after, _PAGE):
            for found in page:
                if is_due(found.verified_at, time.time(), self._settings.interval_s):
                    yield found
            after = page[-1].stored_at, page[-1].digest

    async def _scrub(self, found: Verified, done: _Pass) -> None:
        try:
            descriptor = self._open_blob(found.digest)
        except OSError as exc:
            # Evicted in the meantime, most likely. If not, the next request for it heals it.
            log.debug("not scrubbed digest=%s cause=%s", found.digest, exc)
            return
        try:
            check = Check(found.blob)
            fault = await self._read(check, descriptor)
            done.checked_count += 1
            done.checked_bytes += check.offset
            if fault is None:
                await self._verdicts.note_verified(found.digest, check.xxh3)
            else:
                done.damaged_count += 1
                await self._verdicts.quarantine(found.digest, fault, descriptor)
        finally:
            os.close(descriptor)

    async def _read(self, check: Check, descriptor: int) -> str | None:
        """Read to the end at the scrub's pace; return what is wrong, if anything."""
        buffer = bytearray(PIECE_BYTES)
        try:
            while not check.is_at_end:
                count = await asyncio.to_thread(check.read, descriptor, buffer)
                if count == 0:
                    break
                await self._sleep(self._pace.spend(count, time.monotonic()))
        except StorageError as exc:
            return str(exc)
        return check.find_fault()
