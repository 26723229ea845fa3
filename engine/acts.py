"""What an operator may do to a cache: quarantine, purge, pin.

Invariant: an act is carried out by whoever holds the instance lock, the running server or, where
there is none, the tool itself; so it meets fills, evictions and hits in one event loop. When an act
returns, no byte of what it took is served any more.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from engine.blobdir import BlobDirectory
from engine.eviction import Reason, Victim
from engine.evictor import Tally
from engine.guarding import Closures
from engine.index import Index
from engine.index_eviction import IndexEviction
from engine.index_pins import IndexPins, Pin
from engine.index_purge import IndexPurge
from engine.instance_lock import InstanceLock
from engine.layout import Layout
from engine.names import Digest, Location
from engine.purge import Goner, Linked, PurgePlan, keeping_roots, make_plan
from engine.recovery import Recovery
from engine.removal import BATCH, Removal
from engine.store import Store
from engine.subject import (
    DigestSubject,
    RepositorySubject,
    Subject,
    TagSubject,
    UpstreamSubject,
)


class Acts:
    """Acts on an open store. `aclose` before the store's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index = IndexPurge(store.index.connections)
        self._pins = IndexPins(store.index.connections)
        self._removal = Removal(store, IndexEviction(store.index.connections))
        self._turn = asyncio.Lock()
        self.total = Tally()  # what was purged since the start

    async def quarantine(self, digest: Digest, reason: str) -> Path | None:
        """Take a damaged blob out of service at once; see `Custody.quarantine`."""
        return await self._store.quarantine(digest, reason)

    async def purge(self, subject: Subject, *, is_dry_run: bool = False) -> PurgePlan:
        """Drop all that only `subject` needs, and return what that is. Raises `StorageError`.

        Once the index has it, a purge is finished whatever happens, after a crash at the next
        start. A pin does not keep anything from being purged.
        """
        async with self._turn:
            plan = await self._plan(subject)
            if not is_dry_run:
                await self._index.carry_out(plan)
                self._hide(subject)
                await self._remove(plan.blobs)
        return plan

    async def pin(self, glob: str) -> bool:
        """Keep what matches `glob` (over `upstream/repository:tag`); False if it was pinned."""
        return await self._pins.add(glob, time.time())

    async def unpin(self, glob: str) -> bool:
        """Take a pin back; False where there is none."""
        return await self._pins.remove(glob)

    async def list_pins(self) -> list[Pin]:
        """All pins that operators set."""
        return await self._pins.list_pins()

    async def aclose(self) -> None:
        """Wait for removals that were begun."""
        await self._removal.aclose()

    async def _plan(self, subject: Subject) -> PurgePlan:
        match subject:
            case TagSubject():
                return await self._plan_tag(subject)
            case RepositorySubject(location):
                linked = await self._index.list_linked(location, within=location.repository)
                return make_plan(subject, await self._name_tags(location), linked)
            case UpstreamSubject(upstream):
                return await self._plan_upstream(upstream)
            case DigestSubject(digest, location):
                return make_plan(subject, [], await self._index.find_linked([digest], location))

    async def _plan_tag(self, subject: TagSubject) -> PurgePlan:
        location = subject.location
        meanings = await self._index.list_tags(location)
        root = meanings.pop(subject.tag, None)
        if root is None:
            return make_plan(subject, [], [])
        closures = Closures(self._store.blob_directory)
        closure = await asyncio.to_thread(closures.close_over, [root])
        manifests = await self._index.list_manifests(location)
        keeping = keeping_roots(closure, manifests, meanings.values())
        kept = await asyncio.to_thread(closures.close_over, keeping)
        linked = await self._index.find_linked(closure - kept, location)
        return make_plan(subject, [str(subject)], linked)

    async def _plan_upstream(self, upstream: str) -> PurgePlan:
        tags: list[str] = []
        linked: list[Linked] = []
        for location in await self._index.list_repositories(upstream):
            tags += await self._name_tags(location)
            linked += await self._index.list_linked(location, within=None)
        return make_plan(UpstreamSubject(upstream), tags, linked)

    async def _name_tags(self, location: Location) -> list[str]:
        return [f"{location}:{tag}" for tag in await self._index.list_tags(location)]

    def _hide(self, subject: Subject) -> None:
        """Have repositories that lost their links not be served from memory either."""
        match subject:
            case RepositorySubject(location) | DigestSubject(location=Location() as location):
                self._store.hide_repositories(lambda each: each == location)
            case UpstreamSubject(upstream):
                self._store.hide_repositories(lambda each: each.upstream == upstream)
            case TagSubject() | DigestSubject():
                pass

    async def _remove(self, blobs: tuple[Goner, ...]) -> None:
        for blob in blobs:
            self._store.hide(blob.digest)
        for start in range(0, len(blobs), BATCH):
            victims = [
                Victim(blob.digest, blob.size_bytes, float("inf"), Reason.PURGE)
                for blob in blobs[start : start + BATCH]
            ]
            for removed in await self._removal.remove(victims):
                self.total.note(removed.reason, removed.disk_bytes)


@asynccontextmanager
async def open_acts(data_directory: Path) -> AsyncIterator[Acts]:
    """Act on a cache that no server has open; nothing goes on there by itself meanwhile.

    Raises `DirectoryInUse`, `IndexTooNew` or `StorageError`.
    """
    layout = Layout(data_directory)
    blob_directory = BlobDirectory(layout)
    blob_directory.prepare()
    with hold_lock(layout):
        index = await Index.open(layout.index_path, Recovery(layout))
        store = Store(index, blob_directory)
        try:
            acts = Acts(store)
            try:
                yield acts
            finally:
                await acts.aclose()
        finally:
            await store.aclose()


@contextmanager
def hold_lock(layout: Layout) -> Iterator[None]:
    """Hold the instance lock. Raises `DirectoryInUse`, which names the server's pid."""
    lock = InstanceLock(layout.lock_path)
    try:
        yield
    finally:
        lock.release()
