"""What a tag means now: upstream's HEAD, shared by all who ask at that moment.

Invariant: a tag's record in the index is what upstream said at `checked_at`, of a manifest that was
here then: one that is not yet does not displace what could be served instead. A tag that upstream
says is gone is dropped. Nothing is downloaded here.
"""

import logging
import time
from dataclasses import dataclass

from engine.announced import Announced
from engine.custody import log_failed_write
from engine.errors import NotFound, UpstreamDenied, UpstreamProtocolError
from engine.hot import Content, Kind
from engine.index_records import LinkRecord, LinkState, TagRecord
from engine.names import Digest, Location, Tag
from engine.single_flight import SingleFlight
from engine.store import Store
from engine.upstream.api import ManifestHead, Upstream

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What upstream said. `content` is the manifest where it is stored here already."""

    digest: Digest
    size_bytes: int | None
    media_type: str | None
    content: Content | None


class Tags:
    """Tags of all upstreams."""

    def __init__(self, store: Store, upstreams: dict[str, Upstream]) -> None:
        self._store = store
        self._upstreams = upstreams
        self._announced = Announced()
        self._flights: SingleFlight[tuple[Location, Tag], Resolved | None] = SingleFlight()

    async def resolve(self, location: Location, tag: Tag, *, deadline: float) -> Resolved | None:
        """Ask upstream by HEAD; None where only a GET can tell.

        Raises as the upstream does; on `NotFound` the tag has been dropped.
        """
        resolved, _ = await self._flights.run(
            (location, tag), lambda: self._resolve(location, tag, deadline)
        )
        return resolved

    async def drop(self, location: Location, tag: Tag, asked_at: float) -> None:
        """Forget a tag that upstream, asked at `asked_at` (unix seconds), said is gone."""
        self._announced.drop(location, tag)
        with log_failed_write("tag", f"{location}:{tag}"):
            await self._store.index.drop_tag(location, tag, asked_at)

    async def settle(self, location: Location, digest: Digest) -> None:
        """Record the tags that mean a manifest which has just been fetched, if it was stored."""
        records = self._announced.take(location, digest)
        if records and (await self._store.find(Kind.MANIFEST, location, digest)).blob is not None:
            for record in records:
                await self._write(location, record)

    async def aclose(self) -> None:
        """Give up what is under way."""
        await self._flights.aclose()

    async def _resolve(self, location: Location, tag: Tag, deadline: float) -> Resolved | None:
        upstream = self._upstreams[location.upstream]
        now = time.time()
        try:
            head = await upstream.head_manifest(location.repository, tag, deadline=deadline)
        except NotFound:
            await self.drop(location, tag, now)
            raise
        except (UpstreamDenied, UpstreamProtocolError) as exc:
            # Some registries refuse a HEAD and answer the GET.
            log.info("tag not resolved by HEAD location=%s tag=%s cause=%s", location, tag, exc)
            return None
        return await self._record(location, tag, head, now)

    async def _record(
        self, location: Location, tag: Tag, head: ManifestHead, now: float
    ) -> Resolved | None:
        """Note what the HEAD said, and find the manifest here."""
        if head.digest is None:
            return None
        known = await self._store.find(Kind.MANIFEST, location, head.digest)
        media_type = head.media_type or (known.link.media_type if known.link else "")
        if not media_type:
            return None
        size_bytes = known.blob.size_bytes if known.blob else head.size_bytes
        record = TagRecord(tag, head.digest, media_type, size_bytes, head.etag, now, now)
        if known.blob is None:
            self._announced.note(location, record)
            return Resolved(head.digest, size_bytes, media_type, None)
        self._announced.drop(location, tag)
        await self._write(location, record)
        content = self._store.find_permitted(Kind.MANIFEST, location, known)
        if content is None:
            # Upstream has just said that this repository has it.
            link = LinkRecord(
                head.digest, Kind.MANIFEST, LinkState.HELD, media_type, known.blob.size_bytes
            )
            await self._store.hold(location, link)
            content = self._store.admit(Kind.MANIFEST, location, known.blob, media_type)
        return Resolved(head.digest, size_bytes, media_type, content)

    async def _write(self, location: Location, record: TagRecord) -> None:
        with log_failed_write("tag", f"{location}:{record.tag}"):
            await self._store.index.record_tag(location, record)
