"""The loop that keeps the cache within its budget: measure, plan, remove, a page at a time.

Invariant: one round at a time; a round yields between pages, and whatever it does can be broken off
between them. The order is the plan's (engine/eviction.py): partials, expired, then by the policy.
A failing disk or index ends a round, never the loop.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from engine import capacity
from engine.blobdir import BlobDirectory
from engine.capacity import Capacity, FileSystem
from engine.errors import StorageError
from engine.eviction import Guard, Reason, Sweep, Ttls, Victim, plan_expired, plan_partials
from engine.guarding import Guarding
from engine.index_eviction import IndexEviction
from engine.leftovers import Leftovers
from engine.policies import FIRST, POLICIES, Balance, Order, Place
from engine.removal import BATCH, Removal
from engine.settings import EvictionSettings
from engine.space import Space, Watermarks

log = logging.getLogger(__name__)

# Not expired, but older than the shortest ttl: looked at again in a later round.
_MAX_SPARED = 4096
# What must stay changes while a long round goes on.
_GUARD_TTL_S = 5.0
# Behind a round that could do nothing: at least so long, and ten times as long as it took.
_PAUSE_S = 1.0
_PAUSE_FACTOR = 10
# What has just been stored is promised and stored for a moment; that is no reason for a round.
_SETTLE_S = 0.01


@dataclass(slots=True)
class Tally:
    """What was evicted: pieces and bytes, by reason."""

    counts: Counter[Reason] = field(default_factory=Counter)
    sizes_bytes: Counter[Reason] = field(default_factory=Counter)

    def note(self, reason: Reason, size_bytes: int) -> None:
        """Count one."""
        self.counts[reason] += 1
        self.sizes_bytes[reason] += size_bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """What only the file system knows."""

    file_system: FileSystem
    quarantine_bytes: int


@dataclass(frozen=True, slots=True)
class Parts:
    """What the evictor works on; none of it is the evictor's own."""

    space: Space
    leftovers: Leftovers
    blob_directory: BlobDirectory
    index: IndexEviction
    removal: Removal
    guarding: Guarding
    flush_uses: Callable[[], Awaitable[None]]
    measure: Callable[[], Measured]  # blocks


class Evictor:
    """Evicts, from `start` to `aclose`."""

    def __init__(self, parts: Parts, settings: EvictionSettings, ttls: Ttls) -> None:
        self.total = Tally()  # since the start
        self._parts = parts
        self.settings = settings
        self._ttls = ttls
        self._policy = POLICIES[settings.policy]()
        self._places: dict[Order, Place] = {}
        self._expiry_place = FIRST
        self._capacity = Capacity(parts.space.capacity_bytes)
        self._turn = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._is_asked = False
        self._task: asyncio.Task[None] | None = None
        self._fell_short = False

    def wake(self) -> None:
        """Have a round soon; from any callback on the event loop."""
        self._is_asked = True
        self._wanted.set()

    async def adopt(self, settings: EvictionSettings, ttls: Ttls) -> None:
        """Go by other settings from now on; a round under way ends by the former ones."""
        async with self._turn:
            if settings.policy != self.settings.policy:
                self._policy = POLICIES[settings.policy]()
                self._places = {}
            self.settings, self._ttls = settings, ttls
            self._parts.space.set_watermarks(make_watermarks(settings))
        self.wake()

    def start(self) -> None:
        """Evict on demand and at each interval."""
        self._parts.space.watch_high(self._wanted.set)
        if self._parts.space.is_above_high:
            self.wake()
        self._task = asyncio.create_task(self._run(), name="evictor")

    async def aclose(self) -> None:
        """End between two pages."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._parts.removal.aclose()

    async def evict_once(self, now: float | None = None) -> Tally:
        """Run one round and return what went. Raises `StorageError`.

        `now` is unix seconds. Cancelled, it leaves off between two pages.
        """
        async with self._turn:
            begun_at, tally = time.monotonic(), Tally()
            at = time.time() if now is None else now
            try:
                await self._run_round(tally, at)
            finally:
                self._log(tally, time.monotonic() - begun_at)
            self._warn_if_short()
            return tally

    async def _run(self) -> None:
        while True:
            await self._wait()
            begun_at = time.monotonic()
            tally = await self._try_once()
            if not tally.counts and self._parts.space.is_above_high:
                # There is nothing to be had, and whoever needs it will ask again at once.
                took_s = time.monotonic() - begun_at
                await asyncio.sleep(max(_PAUSE_S, _PAUSE_FACTOR * took_s))

    async def _wait(self) -> None:
        """Wait until a round is due, asked for or needed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.interval_s):
                while not self._is_asked and not self._parts.space.is_above_high:
                    self._wanted.clear()
                    await self._wanted.wait()
                    await asyncio.sleep(_SETTLE_S)
        self._is_asked = False

    async def _try_once(self) -> Tally:
        try:
            return await self.evict_once()
        except StorageError as exc:
            log.error("eviction failed cause=%s", exc)
            return Tally()

    async def _run_round(self, tally: Tally, now: float) -> None:
        parts = self._parts
        await parts.flush_uses()
        await _despite_failure(parts.removal.finish())
        await self.adjust()
        await self._remove_partials(tally, now)
        guard = await parts.guarding.make(now)
        await self._remove_expired(guard, tally, now)
        if parts.space.is_above_high:
            await self._sweep(guard, tally, now)

    async def adjust(self) -> None:
        """Fit the budget to what others leave of the file system. Raises `StorageError`."""
        space = self._parts.space
        measured = await asyncio.to_thread(self._parts.measure)
        space.count_quarantine(measured.quarantine_bytes)
        # What fills have written is neither free any more nor stored yet. It is left out: the
        # limit is too low by it rather than too high.
        found = capacity.limit(self.settings, measured.file_system, space.stored_bytes)
        if found.limit_bytes != space.capacity_bytes:
            space.resize(found.limit_bytes)
        if found.missing_bytes and not self._capacity.missing_bytes:
            log.warning(
                "file system filled by others missing_bytes=%d limit_bytes=%d action=nothing is "
                "evicted below half of eviction.maxsize; make room, or lower eviction.minfree",
                found.missing_bytes,
                found.limit_bytes,
            )
        self._capacity = found

    async def _remove_partials(self, tally: Tally, now: float) -> None:
        parts = self._parts
        needed_bytes = parts.space.above_low_bytes if parts.space.is_above_high else 0
        for leftover in plan_partials(parts.leftovers.oldest_first(), needed_bytes, now):
            if parts.leftovers.take(leftover.digest) is None:
                continue
            try:
                # On the loop, as nobody may begin to fill it before it is gone.
                parts.blob_directory.remove_partial(leftover.digest)
            except StorageError:
                parts.leftovers.add(leftover)
                raise
            tally.note(Reason.PARTIAL, leftover.allocated_bytes)
            self.total.note(Reason.PARTIAL, leftover.allocated_bytes)

    async def _remove_expired(self, guard: Guard, tally: Tally, now: float) -> None:
        before, spared_count = now - self._ttls.shortest_s, 0
        while spared_count < _MAX_SPARED:
            page = await self._parts.index.page_unused(before, self._expiry_place, BATCH)
            if not page:
                self._expiry_place = FIRST
                return
            self._expiry_place = page[-1][0].place(Order.BY_USE)
            victims = plan_expired(page, self._ttls, guard, now)
            spared_count += len(page) - len(victims)
            await self._remove(victims, tally)

    async def _sweep(self, guard: Guard, tally: Tally, now: float) -> None:
        parts = self._parts
        sweep = await self._begin_sweep(guard)
        begun_at = guarded_at = time.monotonic()
        while (page := sweep.next_page()) is not None:
            candidates = await parts.index.page(page.order, page.after, BATCH)
            step = sweep.judge(page, candidates, now)
            if step.moves:
                await _despite_failure(parts.index.move(step.moves))
            await self._remove(step.victims, tally)
            sweep.needed_bytes = parts.space.above_low_bytes
            if (passed_at := time.monotonic()) - guarded_at > _GUARD_TTL_S:
                guarded_at = passed_at
                sweep.guard = await parts.guarding.make(now + passed_at - begun_at)
        if self._policy.keeps_place:
            self._places = sweep.places
        await _despite_failure(parts.index.forget_oldest())

    async def _begin_sweep(self, guard: Guard) -> Sweep:
        space = self._parts.space
        new_bytes = await self._parts.index.sum_new_bytes()
        reason = Reason.MINFREE if self._capacity.is_squeezed else Reason.BUDGET
        balance = Balance(space.capacity_bytes, new_bytes)
        sweep = Sweep(self._policy, balance, guard, space.above_low_bytes, reason)
        sweep.resume(self._places)
        return sweep

    async def _remove(self, victims: Sequence[Victim], tally: Tally) -> None:
        if not victims:
            return
        for removed in await self._parts.removal.remove(victims):
            tally.note(removed.reason, removed.disk_bytes)
            self.total.note(removed.reason, removed.disk_bytes)

    def _log(self, tally: Tally, duration_s: float) -> None:
        space = self._parts.space
        if tally.counts:
            log.info(
                "evicted count=%d bytes=%d reasons=%s used_bytes=%d limit_bytes=%d duration_s=%.3f",
                tally.counts.total(),
                tally.sizes_bytes.total(),
                ",".join(f"{reason.value}:{count}" for reason, count in tally.counts.items()),
                space.used_bytes,
                space.capacity_bytes,
                duration_s,
            )

    def _warn_if_short(self) -> None:
        space = self._parts.space
        if space.is_above_high and not self._fell_short:
            log.warning(
                "eviction fell short used_bytes=%d limit_bytes=%d cause=the rest is pinned, being "
                "sent or being filled",
                space.used_bytes,
                space.capacity_bytes,
            )
        self._fell_short = space.is_above_high


def make_watermarks(settings: EvictionSettings) -> Watermarks:
    """Give the watermarks as configured."""
    return Watermarks(settings.highwatermark_fraction, settings.lowwatermark_fraction)


async def _despite_failure(write: Awaitable[object]) -> None:
    """Go on where the index cannot be written: a disk that is full must be freed all the same."""
    try:
        await write
    except StorageError as exc:
        log.warning("eviction goes on cause=%s", exc)
