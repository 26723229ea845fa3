"""What goes on in the background of a running mirror: inspecting, reconciling, copying, scrubbing.

Invariant: nothing waits for any of it, the start least of all; none of it ends before `aclose`,
whatever fails. When the index is replaced, at the start or later, all of it is reconciled; where
nobody knows what the files take, they are counted before anything else.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine

from engine.blobdir import count_bytes
from engine.errors import StorageError
from engine.index_eviction import IndexEviction
from engine.layout import Layout
from engine.live_views import ReconcileView, ScrubView, Weight
from engine.reconcile import Reconciler
from engine.scrub import Scrub
from engine.settings import VerifySettings
from engine.snapshot import Snapshots
from engine.store import Store

log = logging.getLogger(__name__)

SNAPSHOT_INTERVAL_S = 600.0
RETRY_S = 60.0


class Upkeep:
    """Owns the tasks. Made in a running loop; `aclose` before the store's."""

    def __init__(self, store: Store, layout: Layout, verify: VerifySettings) -> None:
        custody, blob_directory = store.custody, store.blob_directory
        self._store = store
        self._was_replaced = store.index.connections.was_replaced
        self._is_closed = False
        self._snapshots = Snapshots(store.index.connections, layout)
        self._index = IndexEviction(store.index.connections)
        self._reconciler = Reconciler(custody.upkeep, blob_directory)
        self._tasks = [
            _begin(self._keep_agreeing(), "reconcile"),
            _begin(self._keep_copies(), "snapshots"),
        ]
        open_blob = blob_directory.open_blob
        self._scrub = Scrub(custody.upkeep, open_blob, custody, verify)
        self._scrubbing = _begin(self._scrub.run(), "scrub")

    async def adopt(self, verify: VerifySettings) -> None:
        """Scrub by other settings from now on; the scrub goes on where it stopped."""
        if self._scrub.adopt(verify):
            self._scrubbing.cancel()
            await asyncio.wait({self._scrubbing})
            self._scrubbing = _begin(self._scrub.run(), "scrub")

    def look(self) -> tuple[ScrubView, ReconcileView]:
        """Tell how far it is."""
        return self._scrub.look(), self._reconciler.look()

    @property
    def scrubbed(self) -> Weight:
        """What was compared since the start."""
        return self._scrub.total

    async def aclose(self) -> None:
        """Stop, and leave a snapshot of everything. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        tasks = (*self._tasks, self._scrubbing)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._store.flush_uses()
        try:
            await self._snapshots.take_once()
        except StorageError as exc:
            log.error("damaged index not replaced cause=%s action=done at the next start", exc)
        finally:
            self._snapshots.close()

    async def _keep_agreeing(self) -> None:
        if not self._store.space.blobs.is_known:
            await _insist(self._count_files)
        await _insist(self._snapshots.inspect_once)
        while True:
            self._was_replaced.clear()
            await _insist(self._reconcile_once)
            await self._was_replaced.wait()

    async def _count_files(self) -> None:
        begun_at, space, total_bytes = time.monotonic(), self._store.space, 0
        # One at a time, since whoever stops the mirror waits for its threads.
        for path in await asyncio.to_thread(self._store.blob_directory.list_shard_paths):
            total_bytes += await asyncio.to_thread(count_bytes, path, space.block_bytes)
        space.count_files(total_bytes)
        took_s = time.monotonic() - begun_at
        log.info("blob files counted bytes=%d duration_s=%.1f", space.blob_bytes, took_s)

    async def _reconcile_once(self) -> None:
        space = self._store.space
        if not space.blobs.is_settled:
            await self._index.set_blocks(space.block_bytes)
        await self._reconciler.run_once()
        if not self._was_replaced.is_set():
            space.settle_blobs()

    async def _keep_copies(self) -> None:
        while True:
            await self._store.custody.prune_quarantine(time.time())
            await asyncio.sleep(SNAPSHOT_INTERVAL_S)
            await _insist(self._snapshots.take_once)


def _begin(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_note_end)
    return task


def _note_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("upkeep died task=%s", task.get_name(), exc_info=error)


async def _insist(act: Callable[[], Awaitable[object]]) -> None:
    """Do it, again and again until the disk lets it be done."""
    while True:
        try:
            await act()
        except StorageError as exc:
            log.error("upkeep failed cause=%s action=tried again in %d s", exc, RETRY_S)
        else:
            return
        await asyncio.sleep(RETRY_S)
