"""The façade that the server calls: what is here, what has to be fetched, and for whom.

Invariant: one `Cache` per data directory (the instance lock); it owns every task, file and
connection of the engine, and `aclose` ends them all.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack

from engine.acts import Acts
from engine.blobdir import BlobDirectory
from engine.blobs import Blobs
from engine.budget import make_space, make_ttls, open_evictor
from engine.capacity import measure
from engine.done import sum_up
from engine.errors import UpstreamError
from engine.evictor import Evictor
from engine.foothold import gain_foothold
from engine.hot import Content, Kind, OpenFile
from engine.index import Index
from engine.instance_lock import InstanceLock
from engine.layout import Layout
from engine.lead import Patience
from engine.live_views import CacheView
from engine.lookup import BlobHead, BlobLookup, ManifestLookup, ReferrersPage, TagPage
from engine.manifests import Manifests
from engine.names import Digest, Location, Reference
from engine.negative import NegativeCache
from engine.pem import PemError
from engine.recovery import Recovery
from engine.referrers import get_referrers
from engine.settings import EngineSettings, UpstreamSettings
from engine.single_flight import SingleFlight
from engine.store import Store
from engine.upkeep import Upkeep
from engine.upstream.api import TagList, Upstream
from engine.upstream.registry import Registry

log = logging.getLogger(__name__)

LIST_DEADLINE_S = 10.0
FLUSH_INTERVAL_S = 10.0


class Cache:
    """All of the engine. Made by `open`; `aclose` in the end."""

    def __init__(
        self,
        store: Store,
        upkeep: Upkeep,
        evictor: Evictor,
        upstreams: dict[str, Upstream],
        lock: InstanceLock,
        *,
        patience: Patience,
    ) -> None:
        negative = NegativeCache()
        self.space = store.space
        self.acts = Acts(store)
        self._store = store
        self._upkeep = upkeep
        self.evictor = evictor
        self._upstreams = upstreams
        self._lock = lock
        self._manifests = Manifests(store, upstreams, negative)
        self._blobs = Blobs(store, upstreams, negative, patience)
        self._tag_lists: SingleFlight[Location, TagList] = SingleFlight()
        self._flusher = asyncio.create_task(self._flush_uses(), name="access times")
        evictor.start()

    @classmethod
    async def open(
        cls,
        settings: EngineSettings,
        *,
        connect: Callable[[UpstreamSettings], Upstream] = Registry,
        patience: Patience | None = None,
    ) -> "Cache":
        """Open the data directory, making it where there is none; contacts no upstream.

        Raises `DirectoryInUse`, `IndexTooNew`, `StorageError` or `PemError`; leaves nothing open
        then.
        """
        upstreams = {upstream.namespace: connect(upstream) for upstream in settings.upstreams}
        layout = Layout(settings.data_directory)
        blob_directory = BlobDirectory(layout)
        blob_directory.prepare()
        lock = InstanceLock(layout.lock_path)
        try:
            blob_directory.clean()
            await asyncio.to_thread(gain_foothold, layout)
            file_system = await asyncio.to_thread(measure, layout.root)
            index = await Index.open(layout.index_path, Recovery(layout))
            store = Store(index, blob_directory, make_space(settings.eviction, file_system))
            try:
                evictor = await open_evictor(store, settings, file_system)
            except BaseException:
                await store.aclose()
                raise
        except BaseException:
            lock.release()
            raise
        upkeep = Upkeep(store, layout, settings.verify)
        return cls(store, upkeep, evictor, upstreams, lock, patience=patience or Patience())

    async def adopt(self, settings: EngineSettings) -> None:
        """Go by other settings from now on, of the same directory and the same upstreams.

        An upstream whose files of TLS cannot be used keeps its former settings.
        """
        await self.evictor.adopt(settings.eviction, make_ttls(settings))
        await self._upkeep.adopt(settings.verify)
        for upstream in settings.upstreams:
            try:
                await self._upstreams[upstream.namespace].adopt(upstream)
            except PemError as exc:
                log.error("former settings stay upstream=%s cause=%s", upstream.namespace, exc)

    def find(self, kind: Kind, location: Location, digest: Digest) -> Content | None:
        """The hit path: find content that `location` may be served, without waiting.

        None means "not known without I/O": ask `get_blob` or `get_manifest`. Notes the use.
        """
        return self._store.find_hot(kind, location, digest)

    def load_body(self, content: Content) -> bytes | None:
        """Give small content's bytes; None for large content.

        Raises `StorageError` where the file is gone; it is forgotten then, so asking again by
        `get_blob` or `get_manifest` fetches it anew.
        """
        return self._store.load_body(content)

    def open_file(self, content: Content) -> OpenFile:
        """Hold stored content's open file; the caller releases it. Raises as `load_body`."""
        return self._store.open_file(content)

    async def get_manifest(self, location: Location, reference: Reference) -> ManifestLookup:
        """Get a manifest with its content."""
        return await self._find_manifest(location, reference, is_head=False)

    async def head_manifest(self, location: Location, reference: Reference) -> ManifestLookup:
        """Get what a HEAD says; `content` may be None: nothing is downloaded for it."""
        return await self._find_manifest(location, reference, is_head=True)

    async def get_blob(self, location: Location, digest: Digest) -> BlobLookup:
        """Get a blob, stored or as a reader of its fill, which this starts if nobody has.

        Does not wait for upstream unless it must be asked whether `location` may be served what
        is here for another: a fill's errors come from its reader.
        """
        return await self._blobs.get(location, digest)

    async def head_blob(self, location: Location, digest: Digest) -> BlobHead:
        """Get a blob's size; nothing is downloaded for it."""
        return await self._blobs.head(location, digest)

    def open_side_fetch(
        self, location: Location, digest: Digest, start: int, end: int
    ) -> AsyncGenerator[bytes, None]:
        """Fetch bytes `start` up to without `end` of a blob past its fill's frontier; not stored.

        Errors are raised by the iterator. The blob's end must be held back by the caller.
        """
        return self._blobs.iter_range(location, digest, start, end)

    async def list_tags(self, location: Location) -> TagPage:
        """All tags, by upstream; those known here, with a warning, while it cannot be asked."""
        deadline = asyncio.get_running_loop().time() + LIST_DEADLINE_S
        upstream = self._upstreams[location.upstream]
        try:
            found, _ = await self._tag_lists.run(
                location, lambda: upstream.list_tags(location.repository, deadline=deadline)
            )
        except UpstreamError as exc:
            known = await self._store.index.list_tags(location)
            if not known:
                raise
            return TagPage(tuple(known), warning=f"only the tags known here: {exc}")
        return TagPage(found.tags)

    async def get_referrers(
        self, location: Location, digest: Digest, artifact_type: str | None
    ) -> ReferrersPage:
        """Referrers of `digest`: upstream's, else the fallback tag's content, else none."""
        upstream = self._upstreams[location.upstream]
        return await get_referrers(upstream, location, digest, artifact_type)

    async def list_repositories(self) -> list[Location]:
        """All repositories known here, in lexical order of `upstream/repository`."""
        return await self._store.index.list_repositories()

    async def settle(self, digest: Digest) -> None:
        """Wait until no fill of `digest` is under way: what it brought is committed then."""
        await self._blobs.settle(digest)

    def look(self) -> CacheView:
        """Tell what goes on now, fills, upstreams, upkeep, and what was done so far."""
        return CacheView(
            tuple(self._blobs.list_fills()),
            tuple(upstream.look() for upstream in self._upstreams.values()),
            *self._upkeep.look(),
            sum_up(
                self._blobs.tally, self.evictor.total, self.acts.total, self._upkeep, self._store
            ),
        )

    async def aclose(self) -> None:
        """Stop fills (their partials stay), write what is pending, close everything."""
        self._flusher.cancel()
        async with AsyncExitStack() as stack:
            stack.callback(self._lock.release)
            for upstream in self._upstreams.values():
                stack.push_async_callback(upstream.aclose)
            stack.push_async_callback(self._store.aclose)
            stack.push_async_callback(self._upkeep.aclose)
            stack.push_async_callback(self.evictor.aclose)
            stack.push_async_callback(self.acts.aclose)
            stack.push_async_callback(self._tag_lists.aclose)
            stack.push_async_callback(self._manifests.aclose)
            stack.push_async_callback(self._blobs.aclose)
            await asyncio.wait({self._flusher})

    async def _find_manifest(
        self, location: Location, reference: Reference, *, is_head: bool
    ) -> ManifestLookup:
        if isinstance(reference, Digest):
            return await self._manifests.by_digest(location, reference, is_head=is_head)
        return await self._manifests.by_tag(location, reference, is_head=is_head)

    async def _flush_uses(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self._store.flush_uses()
