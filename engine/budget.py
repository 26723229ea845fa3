"""The byte budget of a data directory put together: what is counted, and who evicts.

Invariant: when `open_evictor` returns, everything in the data directory is counted that may grow:
blobs by their rows, partials and quarantine by their files; no blob is looked at one by one. Where
the index is not the one that an earlier run left, that count is not trusted until upkeep has looked
at the files.
"""

import asyncio
import time
from pathlib import Path

from engine import capacity
from engine.blobdir import BlobDirectory, map_exceptions
from engine.capacity import FileSystem
from engine.errors import InvalidDigest
from engine.eviction import Ttls
from engine.evictor import Evictor, Measured, Parts, make_watermarks
from engine.guarding import Guarding
from engine.index_eviction import IndexEviction
from engine.index_pins import IndexPins
from engine.layout import Layout
from engine.leftovers import Leftover
from engine.names import DIGEST_HEX_CHARS, Digest
from engine.quarantine import Quarantine
from engine.removal import Removal
from engine.settings import EngineSettings, EvictionSettings
from engine.space import Space
from engine.store import Store
from engine.touch import MAX_BATCH

_BLOCK_OF_STAT_BYTES = 512  # the unit of st_blocks, on every file system


def make_space(settings: EvictionSettings, file_system: FileSystem) -> Space:
    """Make the accounts of a data directory on `file_system`; what it holds is counted later."""
    limit = capacity.limit(settings, file_system, 0)
    return Space(limit.limit_bytes, make_watermarks(settings), block_bytes=file_system.block_bytes)


def make_ttls(settings: EngineSettings) -> Ttls:
    """Say how long content of which upstream stays unused."""
    by_upstream = {upstream.namespace: upstream.ttl_s for upstream in settings.upstreams}
    return Ttls(by_upstream, default_s=settings.upstreams[0].ttl_s)


async def open_evictor(store: Store, settings: EngineSettings, file_system: FileSystem) -> Evictor:
    """Count what is there, finish evictions that a crash broke off, and make the evictor.

    Raises `StorageError`.
    """
    space, layout = store.space, store.blob_directory.layout
    index = IndexEviction(store.index.connections)
    await index.count_bytes(file_system.block_bytes, space.count_blobs, space.blobs.restart)
    if store.index.connections.was_replaced.is_set() and _has_blobs(store.blob_directory):
        space.blobs.distrust()
    for leftover in await asyncio.to_thread(list_leftovers, layout):
        store.leftovers.add(leftover)
    removal = Removal(store, index)
    await removal.finish()
    pins = IndexPins(store.index.connections)

    async def list_pins() -> list[str]:
        return [*evictor.settings.pins, *(pin.glob for pin in await pins.list_pins())]

    parts = Parts(
        space=space,
        leftovers=store.leftovers,
        blob_directory=store.blob_directory,
        index=index,
        removal=removal,
        guarding=Guarding(index, store.blob_directory, list_pins, store.find_used_at),
        flush_uses=lambda: _flush_uses(store),
        measure=lambda: measure(layout),
    )
    evictor = Evictor(parts, settings.eviction, make_ttls(settings))
    await evictor.adjust()
    store.room.wake = evictor.wake
    return evictor


def measure(layout: Layout) -> Measured:
    """Look at the file system and at quarantine. Blocks; raises `StorageError`."""
    kept = Quarantine(layout).list_kept()
    return Measured(capacity.measure(layout.root), sum(each.allocated_bytes for each in kept))


def list_leftovers(layout: Layout) -> list[Leftover]:
    """List the partials that an earlier run left. Blocks; raises `StorageError`."""
    with map_exceptions(f"list {layout.partial_directory}"):
        found = [_find_leftover(path) for path in layout.partial_directory.iterdir()]
    return [leftover for leftover in found if leftover is not None]


def _find_leftover(path: Path) -> Leftover | None:
    algorithm, _, digits = path.name.partition("-")
    try:
        digest = Digest.parse(f"{algorithm}:{digits}")
    except InvalidDigest:
        return None
    found = path.stat()
    # A clock that was set back must not keep it for ever.
    left_at = min(found.st_mtime, time.time())
    return Leftover(digest, found.st_blocks * _BLOCK_OF_STAT_BYTES, left_at)


def _has_blobs(blob_directory: BlobDirectory) -> bool:
    return any(blob_directory.has_any(algorithm) for algorithm in DIGEST_HEX_CHARS)


async def _flush_uses(store: Store) -> None:
    """Let the index know of all uses so far."""
    for _ in range(0, len(store.touch), MAX_BATCH):
        await store.flush_uses()
