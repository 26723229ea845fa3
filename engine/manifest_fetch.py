"""Fetching manifests: one GET for all who wait, verified before it is stored or shown.

Invariant: what `fetch` returns hashes to its digest, and upstream served it to that repository.
"""

import logging

from engine.descriptor import guess_media_type, is_json_object
from engine.errors import ContentMismatch, UpstreamProtocolError
from engine.hashing import digest_of, verify
from engine.hot import Content, Kind
from engine.index_records import LinkRecord, LinkState, TagRecord
from engine.names import Digest, Location, Reference, Tag
from engine.single_flight import SingleFlight
from engine.store import Store
from engine.upstream.api import ManifestBody, Upstream

log = logging.getLogger(__name__)

# Types that a server gives to what it does not know; the manifest's own word is better.
_VAGUE_TYPES = frozenset(
    {"", "application/json", "application/octet-stream", "text/plain", "binary/octet-stream"}
)


class ManifestFetcher:
    """GETs of manifests, by tag and by digest."""

    def __init__(self, store: Store, upstreams: dict[str, Upstream]) -> None:
        self._store = store
        self._upstreams = upstreams
        self._flights: SingleFlight[tuple[Location, Reference], Content] = SingleFlight()

    async def fetch(
        self, location: Location, reference: Reference, *, now: float, deadline: float
    ) -> tuple[Content, bool]:
        """Get a manifest; also tell whether this call led, rather than shared another's.

        By tag, the tag is recorded with it. Raises as the upstream does, and `DigestMismatch`
        where the bytes were wrong twice, `UpstreamProtocolError` where they are no manifest.
        """
        return await self._flights.run(
            (location, reference), lambda: self._fetch(location, reference, now, deadline)
        )

    async def aclose(self) -> None:
        """Give up what is under way."""
        await self._flights.aclose()

    async def _fetch(
        self, location: Location, reference: Reference, now: float, deadline: float
    ) -> Content:
        upstream = self._upstreams[location.upstream]
        try:
            received = await upstream.get_manifest(
                location.repository, reference, deadline=deadline
            )
            digest = _check(reference, received)
        except ContentMismatch as exc:
            log.warning("manifest retried location=%s cause=%s", location, exc)
            received = await upstream.get_manifest(
                location.repository, reference, deadline=deadline
            )
            digest = _check(reference, received)
        media_type = _media_type(received)
        size_bytes = len(received.body)
        tag = None
        if isinstance(reference, Tag):
            tag = TagRecord(reference, digest, media_type, size_bytes, received.etag, now, now)
        return await self._store.commit_manifest(
            location,
            LinkRecord(digest, Kind.MANIFEST, LinkState.HELD, media_type, size_bytes),
            received.body,
            is_public=not upstream.settings.has_credentials,
            tag=tag,
        )


def _check(reference: Reference, received: ManifestBody) -> Digest:
    """Verify a manifest by the name it was asked by, or the one that upstream claims for it."""
    expected = reference if isinstance(reference, Digest) else received.digest
    if expected is None:
        # Nothing vouches for these bytes, and a login page on the way comes with 200 as well.
        if not is_json_object(received.body):
            kind = received.media_type or "nothing known"
            raise UpstreamProtocolError(f"{reference}: no digest and no manifest came, but {kind}")
        return digest_of(received.body)
    verify(received.body, expected)
    return expected


def _media_type(received: ManifestBody) -> str:
    stated = (received.media_type or "").partition(";")[0].strip()
    return guess_media_type(received.body) if stated in _VAGUE_TYPES else stated
