"""What will go next, and when: the budget and the plan of eviction, looked at from outside.

Invariant: it says what `engine/evictor.py` would do now by the same pure plan, and changes nothing
(engine/rehearsal.py says what it cannot know).
"""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from engine import capacity
from engine.blobdir import BlobDirectory
from engine.budget import list_leftovers, make_ttls, measure
from engine.eviction import Guard, Reason, Sweep, Ttls, Victim
from engine.guarding import Closures, Guarding
from engine.index_connections import Connections
from engine.index_eviction import IndexEviction
from engine.index_inspection import IndexInspection
from engine.index_pins import IndexPins
from engine.layout import Layout
from engine.names import Digest
from engine.policies import POLICIES, Balance
from engine.rehearsal import Rehearsal
from engine.settings import EngineSettings

# More than any budget: a rehearsal goes on until its caller has seen enough.
_ALL_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Budget:
    """What the data directory holds, and may hold, in bytes."""

    blob_bytes: int
    partial_bytes: int
    quarantine_bytes: int
    limit_bytes: int
    high_bytes: int
    low_bytes: int

    @property
    def used_bytes(self) -> int:
        """All of it."""
        return self.blob_bytes + self.partial_bytes + self.quarantine_bytes


@dataclass(frozen=True, slots=True)
class Expected:
    """A victim. `needed_bytes`: how much must be stored until it goes; 0 = it goes now."""

    victim: Victim
    needed_bytes: int


def bytes_until_gone(ahead_bytes: int, budget: Budget) -> int:
    """Tell how much must be stored until what stands behind `ahead_bytes` is evicted. Pure.

    Nothing goes below the high watermark; a round then frees down to the low one.
    """
    to_high_bytes = max(0, budget.high_bytes - budget.used_bytes + 1)
    above_low_bytes = budget.used_bytes + to_high_bytes - budget.low_bytes
    if ahead_bytes < above_low_bytes:
        return to_high_bytes
    # Further rounds, each after as much has come in again.
    step_bytes = max(1, budget.high_bytes - budget.low_bytes)
    rounds = (ahead_bytes - above_low_bytes) // step_bytes + 1
    return to_high_bytes + rounds * step_bytes


async def read_budget(settings: EngineSettings, index: IndexInspection) -> Budget:
    """Measure and count, as a server that starts would. Raises `StorageError`."""
    layout = Layout(settings.data_directory)
    measured = measure(layout)
    blob_bytes = await index.count_disk_bytes()
    partial_bytes = sum(each.allocated_bytes for each in list_leftovers(layout))
    held_bytes = blob_bytes + partial_bytes + measured.quarantine_bytes
    limit_bytes = capacity.limit(settings.eviction, measured.file_system, held_bytes).limit_bytes
    return Budget(
        blob_bytes,
        partial_bytes,
        measured.quarantine_bytes,
        limit_bytes,
        int(limit_bytes * settings.eviction.highwatermark_fraction),
        int(limit_bytes * settings.eviction.lowwatermark_fraction),
    )


class Outlook:
    """Foretells eviction on an index that is open, for reading or more."""

    def __init__(self, settings: EngineSettings, connections: Connections) -> None:
        self.ttls: Ttls = make_ttls(settings)
        self._settings = settings
        self._index = IndexEviction(connections)
        self._inspection = IndexInspection(connections)
        self._pins = IndexPins(connections)
        self._blob_directory = BlobDirectory(Layout(settings.data_directory))

    async def iter_victims(self, now: float | None = None) -> AsyncIterator[Expected]:
        """All that may go, in the order in which it would."""
        at = time.time() if now is None else now
        guard = await self._make_guard(at)
        budget = await read_budget(self._settings, self._inspection)
        rehearsal = Rehearsal(self._index)
        freed_bytes = 0
        async for victim in rehearsal.iter_expired(self.ttls, guard, at):
            freed_bytes += victim.disk_bytes
            yield Expected(victim, 0)
        async for victim in rehearsal.iter_swept(await self._make_sweep(guard, budget), at):
            yield Expected(victim, bytes_until_gone(freed_bytes, budget))
            freed_bytes += victim.disk_bytes

    async def list_pins(self) -> list[str]:
        """All pins: the configuration's, and operators'."""
        pins = await self._pins.list_pins()
        return [*self._settings.eviction.pins, *(pin.glob for pin in pins)]

    async def find_pins(self, digest: Digest) -> list[str]:
        """The pins that keep a digest."""
        closures = Closures(self._blob_directory)
        return [
            glob
            for glob in await self.list_pins()
            if digest in closures.close_over(await self._index.find_pinned(glob))
        ]

    async def _make_guard(self, now: float) -> Guard:
        async def list_pins() -> Sequence[str]:
            return await self.list_pins()

        guarding = Guarding(self._index, self._blob_directory, list_pins, lambda digest: None)
        return await guarding.make(now)

    async def _make_sweep(self, guard: Guard, budget: Budget) -> Sweep:
        policy = POLICIES[self._settings.eviction.policy]()
        balance = Balance(budget.limit_bytes, await self._index.sum_new_bytes())
        return Sweep(policy, balance, guard, _ALL_BYTES, Reason.BUDGET)
