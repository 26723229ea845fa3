"""An upstream in memory: no socket and no delay, for tests of what lies on the disk.

It serves what a `Content` holds; every call that it was asked is noted in `calls`, by its name.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.cache import Cache
from engine.errors import BlobUnknown, ManifestUnknown, UpstreamUnavailable
from engine.live_views import UpstreamView
from engine.names import Digest, Reference, Repository
from engine.settings import EngineSettings, UpstreamSettings, VerifySettings
from engine.upstream.api import BlobStream, ManifestBody, ManifestHead, TagList
from tests.fakes.caches import QUICK
from tests.fakes.upstream_content import Content

NO_SCRUB = VerifySettings(interval_s=0)
SETTINGS = UpstreamSettings("docker.io", "http://127.0.0.1:1", ("docker.io",))
_PIECE_BYTES = 64 * 1024


class MemoryStream:
    """A blob's body."""

    def __init__(self, data: bytes, start: int, end: int | None) -> None:
        self.start = start
        self.size_bytes: int | None = len(data)
        self._data = data[:end]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for offset in range(self.start, len(self._data), _PIECE_BYTES):
            yield self._data[offset : offset + _PIECE_BYTES]

    async def aclose(self) -> None:
        """Nothing is open."""


class MemoryUpstream:
    """Serves `content`, to any number of caches."""

    def __init__(self, settings: UpstreamSettings = SETTINGS) -> None:
        self.settings = settings
        self.content = Content()
        self.calls: list[str] = []
        self.is_down = False

    def connect(self, settings: UpstreamSettings) -> "MemoryUpstream":
        """Be the upstream that a cache connects to."""
        assert settings == self.settings
        return self

    async def adopt(self, settings: UpstreamSettings) -> None:
        self.settings = settings

    async def head_manifest(
        self, repository: Repository, reference: Reference, *, deadline: float
    ) -> ManifestHead:
        self._note("head_manifest")
        found = self._manifest(repository, reference)
        return ManifestHead(found.digest, len(found.body), found.media_type)

    async def get_manifest(
        self, repository: Repository, reference: Reference, *, deadline: float
    ) -> ManifestBody:
        self._note("get_manifest")
        return self._manifest(repository, reference)

    async def head_blob(
        self, repository: Repository, digest: Digest, *, deadline: float
    ) -> int | None:
        self._note("head_blob")
        return len(self._blob(repository, digest))

    async def open_blob(
        self,
        repository: Repository,
        digest: Digest,
        *,
        start: int = 0,
        end: int | None = None,
        deadline: float,
    ) -> BlobStream:
        self._note("open_blob")
        return MemoryStream(self._blob(repository, digest), start, end)

    async def list_tags(self, repository: Repository, *, deadline: float) -> TagList:
        self._note("list_tags")
        return TagList(tuple(sorted(self.content.holding(repository).tags)))

    async def get_referrers(
        self, repository: Repository, digest: Digest, *, deadline: float
    ) -> bytes | None:
        self._note("get_referrers")
        return None

    def look(self) -> UpstreamView:
        return UpstreamView(self.settings.namespace, self.settings.url)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.is_down:
            raise UpstreamUnavailable("connection refused")

    def _manifest(self, repository: Repository, reference: Reference) -> ManifestBody:
        holding = self.content.holding(repository)
        digest = holding.tags.get(reference, reference)
        if digest not in holding.manifests:
            raise ManifestUnknown(f"{repository} has no {reference}")
        media_type, body = holding.manifests[digest]
        return ManifestBody(body, media_type, Digest(digest))

    def _blob(self, repository: Repository, digest: Digest) -> bytes:
        blobs = self.content.holding(repository).blobs
        if digest not in blobs:
            raise BlobUnknown(f"{repository} has no {digest}")
        return blobs[digest]


async def settle_fills(cache: Cache) -> None:
    """Wait until what was fetched is committed: readers get the last byte before that."""
    await asyncio.gather(*(running.task for running in cache._blobs._leads if running.task))


@asynccontextmanager
async def cache_before(
    path: Path, upstream: MemoryUpstream, verify: VerifySettings = NO_SCRUB
) -> AsyncIterator[Cache]:
    """Open a cache in front of `upstream`, and close it, whatever happened."""
    settings = EngineSettings(path, (upstream.settings,), verify=verify)
    cache = await Cache.open(settings, connect=upstream.connect, patience=QUICK)
    try:
        yield cache
    finally:
        await cache.aclose()
