"""Manifests: by digest they are for ever, by tag upstream is asked each time.

Invariant: a moved tag is seen at once; an upstream that fails is hidden by what is stored, with a
warning, and never looks like "not found".
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from engine.errors import (
    CacheError,
    ContentMismatch,
    ManifestUnknown,
    NotFound,
    UpstreamError,
    UpstreamProtocolError,
)
from engine.fault_log import RepeatedLines
from engine.freshness import Freshness, decide
from engine.hot import Content, Kind
from engine.index_records import LinkRecord, LinkState, TagRecord
from engine.lookup import CacheStatus, ManifestLookup
from engine.manifest_fetch import ManifestFetcher
from engine.names import Digest, Location, Tag
from engine.negative import NegativeCache
from engine.single_flight import SingleFlight
from engine.store import Known, Store
from engine.tags import Resolved, Tags
from engine.upstream.api import ManifestHead, Upstream

log = logging.getLogger(__name__)

# With a stale copy at hand nobody should wait long for upstream; without one, clients have 30 s.
STALE_DEADLINE_S = 4.0
DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tag as it was last seen, with its manifest."""

    record: TagRecord
    content: Content


class Manifests:
    """All manifests of all upstreams."""

    def __init__(
        self, store: Store, upstreams: dict[str, Upstream], negative: NegativeCache
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self._negative = negative
        self._warnings = RepeatedLines(log)
        self._tags = Tags(store, upstreams)
        self._fetcher = ManifestFetcher(store, upstreams)
        self._heads: SingleFlight[tuple[Location, Digest], ManifestHead] = SingleFlight()

    async def aclose(self) -> None:
        """Give up what is under way."""
        await self._tags.aclose()
        await self._fetcher.aclose()
        await self._heads.aclose()

    async def by_digest(
        self, location: Location, digest: Digest, *, is_head: bool
    ) -> ManifestLookup:
        """Get a manifest by digest; a HEAD downloads nothing."""
        known = await self._store.find(Kind.MANIFEST, location, digest)
        content = self._store.find_permitted(Kind.MANIFEST, location, known)
        if content is not None:
            return _lookup(CacheStatus.HIT, content)
        key = (Kind.MANIFEST, location, digest)
        if self._negative.holds(key, time.time()):
            raise ManifestUnknown(f"{location.upstream} said a moment ago that {digest} is unknown")
        try:
            return await self._ask_by_digest(location, digest, known, is_head=is_head)
        except NotFound:
            settings = self._upstreams[location.upstream].settings
            self._negative.note(key, time.time() + settings.negativettl_s)
            raise

    async def by_tag(self, location: Location, tag: Tag, *, is_head: bool) -> ManifestLookup:
        """Get a manifest by tag: upstream's word, or what is stored while it has none."""
        stored = await self._find_stored(location, tag)
        now = time.time()
        tagttl_s = self._upstreams[location.upstream].settings.tagttl_s
        if stored and decide(stored.record, now, tagttl_s) is Freshness.FRESH:
            return _lookup(CacheStatus.HIT, stored.content)
        deadline = _deadline(STALE_DEADLINE_S if stored else DEADLINE_S)
        try:
            return await self._ask_by_tag(location, tag, deadline, is_head=is_head)
        except (UpstreamError, ContentMismatch) as exc:
            if stored is None:
                raise
            key = (location.upstream, type(exc))
            message = "stale served location=%s tag=%s cause=%s"
            self._warnings.warn(key, message, location, tag, exc)
            return _stale(stored, exc, now)

    async def _find_stored(self, location: Location, tag: Tag) -> _Stored | None:
        record = await self._store.find_tag(location, tag)
        if record is None:
            return None
        content = await self._store.find_content(Kind.MANIFEST, location, record.digest)
        return _Stored(record, content) if content else None

    async def _ask_by_tag(
        self, location: Location, tag: Tag, deadline: float, *, is_head: bool
    ) -> ManifestLookup:
        resolved = await self._tags.resolve(location, tag, deadline=deadline)
        if resolved is None:
            return await self._fetch(location, tag, deadline)
        if resolved.content is not None:
            return _lookup(CacheStatus.REVALIDATED, resolved.content, upstream_status=200)
        if is_head and (described := _describe(resolved)):
            return described
        try:
            return await self._fetch(location, resolved.digest, deadline)
        except ManifestUnknown:
            # The tag has moved on since, or this upstream serves it by tag only.
            return await self._fetch(location, tag, deadline)

    async def _ask_by_digest(
        self, location: Location, digest: Digest, known: Known, *, is_head: bool
    ) -> ManifestLookup:
        deadline = _deadline(DEADLINE_S)
        if known.blob is not None:
            content = await self._permit(location, digest, known, deadline)
            if content is not None:
                return _lookup(CacheStatus.REVALIDATED, content, upstream_status=200)
        elif is_head:
            described = await self._head(location, digest, known, deadline)
            if described is not None:
                return described
        return await self._fetch(location, digest, deadline)

    async def _fetch(
        self, location: Location, reference: Digest | Tag, deadline: float
    ) -> ManifestLookup:
        now = time.time()
        try:
            content, is_lead = await self._fetcher.fetch(
                location, reference, now=now, deadline=deadline
            )
        except NotFound:
            if isinstance(reference, Tag):
                await self._tags.drop(location, reference, now)
            raise
        await self._tags.settle(location, content.digest)
        status = CacheStatus.MISS if is_lead else CacheStatus.COLLAPSED
        if self._store.find_hot(Kind.MANIFEST, location, content.digest) is None:
            status = CacheStatus.BYPASS
        return _lookup(status, content, upstream_status=200)

    async def _permit(
        self, location: Location, digest: Digest, known: Known, deadline: float
    ) -> Content | None:
        """Ask upstream whether `location` has what is stored; None where only a GET can tell."""
        head = await self._ask_head(location, digest, deadline)
        if known.blob is None or head is None or not head.media_type:
            return None
        link = LinkRecord(
            digest, Kind.MANIFEST, LinkState.HELD, head.media_type, known.blob.size_bytes
        )
        await self._store.hold(location, link)
        return self._store.admit(Kind.MANIFEST, location, known.blob, head.media_type)

    async def _head(
        self, location: Location, digest: Digest, known: Known, deadline: float
    ) -> ManifestLookup | None:
        """Describe a manifest that is not here: by an image index that names it, or upstream."""
        link = known.link
        if link is not None and link.kind is Kind.MANIFEST:
            named = Resolved(digest, link.size_bytes, link.media_type, None)
            if described := _describe(named, CacheStatus.HIT):
                return described
        head = await self._ask_head(location, digest, deadline)
        if head is None:
            return None
        return _describe(Resolved(digest, head.size_bytes, head.media_type, None))

    async def _ask_head(
        self, location: Location, digest: Digest, deadline: float
    ) -> ManifestHead | None:
        """Ask upstream for what it says of `digest`; None where only a GET can tell."""
        upstream = self._upstreams[location.upstream]
        try:
            head, _ = await self._heads.run(
                (location, digest),
                lambda: upstream.head_manifest(location.repository, digest, deadline=deadline),
            )
        except UpstreamProtocolError as exc:
            log.info("no HEAD location=%s digest=%s cause=%s", location, digest, exc)
            return None
        return None if head.digest not in (None, digest) else head


def _deadline(patience_s: float) -> float:
    return asyncio.get_running_loop().time() + patience_s


def _lookup(
    status: CacheStatus, content: Content, *, upstream_status: int | None = None
) -> ManifestLookup:
    return ManifestLookup(
        status,
        content.digest,
        content.size_bytes,
        content.media_type,
        content,
        upstream_status=upstream_status,
    )


def _describe(resolved: Resolved, status: CacheStatus = CacheStatus.MISS) -> ManifestLookup | None:
    """A HEAD's answer for a manifest that is not here, if enough is known for one."""
    if resolved.size_bytes is None or not resolved.media_type:
        return None
    return ManifestLookup(
        status,
        resolved.digest,
        resolved.size_bytes,
        resolved.media_type,
        content=None,
        upstream_status=None if status is CacheStatus.HIT else 200,
    )


def _stale(stored: _Stored, cause: CacheError, now: float) -> ManifestLookup:
    content = stored.content
    checked_at = stored.record.checked_at
    # 0: it came from another mirror's storage, and upstream was never asked from here.
    when = f"{max(0, int(now - checked_at))} s ago" if checked_at else "before it was taken over"
    return ManifestLookup(
        CacheStatus.STALE,
        content.digest,
        content.size_bytes,
        content.media_type,
        content,
        warning=f"last checked {when}: {cause}",
        upstream_status=cause.upstream_status if isinstance(cause, UpstreamError) else None,
    )
