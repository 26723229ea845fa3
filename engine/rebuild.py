"""The index made to agree with the files at once, by an operator, while no server runs.

Invariant: what the old index knew is kept as far as it can be read; it is set aside only where it
is damaged, or where the operator wants to begin anew. Nothing is hashed, no blob file is changed.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from engine.acts import hold_lock
from engine.blobdir import BlobDirectory
from engine.errors import IndexDamaged
from engine.index import Index
from engine.index_connections import find_damage
from engine.index_upkeep import IndexUpkeep
from engine.layout import Layout
from engine.reconcile import Reconciler, Tally
from engine.recovery import Recovery


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was done. `set_aside`: where the old index is kept; None = it was kept in use."""

    tally: Tally
    damage: str | None
    set_aside: Path | None
    duration_s: float


async def rebuild(data_directory: Path, *, is_anew: bool = False) -> Rebuilt:
    """Reconcile index and files; `is_anew`: from the files alone, so links and tags are forgotten.

    Raises `DirectoryInUse` while a server runs, `IndexTooNew` or `StorageError`.
    """
    begun_at = time.monotonic()
    layout = Layout(data_directory)
    blob_directory = BlobDirectory(layout)
    blob_directory.prepare()
    with hold_lock(layout):
        recovery = Recovery(layout)
        # Not with the recovery: it would put the snapshot in the place of what was set aside.
        set_aside = recovery.set_aside() if is_anew else None
        damage = None if is_anew else await asyncio.to_thread(_find_damage, layout)
        index = await Index.open(layout.index_path, None if is_anew else recovery)
        try:
            if damage is not None and not index.connections.was_replaced.is_set():
                # Opening it did not come upon what reading all of it did.
                await index.connections.mend(IndexDamaged(damage))
            upkeep = IndexUpkeep(index.connections)
            tally = await Reconciler(upkeep, blob_directory).run_once()
            await upkeep.recount()
        finally:
            await index.aclose()
    if damage is not None:
        set_aside = max(layout.root.glob(f"{layout.index_path.name}.damaged-*"), default=None)
    return Rebuilt(tally, damage, set_aside, time.monotonic() - begun_at)


def _find_damage(layout: Layout) -> str | None:
    return find_damage(layout.index_path) if layout.index_path.exists() else None
