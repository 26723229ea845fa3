"""What will become of a stored blob: when it goes, and why."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from engine.index_views import BlobView
from engine.outlook import Outlook
from engine.units import humane_bytes

# A rehearsal of so many takes some seconds; what is not among them stays for long.
MAX_RANK = 10_000


@dataclass(frozen=True, slots=True)
class Fate:
    """`expires_at`: unix seconds, None = never. `rank`, `needed_bytes`: None = not in sight."""

    text: str
    expires_at: float | None
    rank: int | None = None
    needed_bytes: int | None = None
    pins: tuple[str, ...] = ()


async def foretell_fate(outlook: Outlook, blob: BlobView, upstreams: Sequence[str]) -> Fate:
    """Foretell what becomes of a blob that `upstreams` link."""
    now = time.time()
    expires_at = outlook.ttls.expires_at(blob.used_at, upstreams)
    expiry = None if expires_at == float("inf") else expires_at
    if blob.state != "valid":
        return Fate("it is being removed", expiry)
    pins = tuple(await outlook.find_pins(blob.digest))
    if pins:
        return Fate("it is pinned, and never evicted", None, pins=pins)
    rank = 0
    async for expected in outlook.iter_victims(now):
        rank += 1
        if expected.victim.digest == blob.digest:
            return Fate(_describe(expected.needed_bytes), expiry, rank, expected.needed_bytes)
        if rank == MAX_RANK:
            break
    return Fate(f"it is not among the next {rank} to go", expiry)


def _describe(needed_bytes: int) -> str:
    if needed_bytes == 0:
        return "it goes in the next round of eviction"
    return f"it goes when {humane_bytes(needed_bytes)} more are stored, if it is not used again"
