"""`GET` and `HEAD` of a manifest, byte for byte and whatever its media type.

There is no content negotiation: `Accept` is not read, as clients name types in any order and the
digest decides what the bytes are.
Source: OCI distribution-spec "Pulling manifests".
"""

from engine.cache import Cache
from engine.hot import Kind
from engine.lookup import ManifestLookup
from engine.names import Digest
from server.conditional import is_not_modified
from server.exchange import Exchange
from server.provenance import HIT, Provenance, trace
from server.reply import send_not_modified, send_whole
from server.response import build_head, content_length, manifest_fields, quote_etag
from server.routes import ManifestRoute
from server.stored import StoredSender


class Manifests:
    """Answers what `/v2/<name>/manifests/<reference>` asks."""

    def __init__(self, cache: Cache, stored: StoredSender) -> None:
        self._cache = cache
        self._stored = stored

    def respond_now(self, exchange: Exchange, route: ManifestRoute) -> bool:
        """Answer a hit by digest; False where I/O is needed first. Of a tag upstream decides."""
        if not isinstance(route.reference, Digest):
            return False
        content = self._cache.find(Kind.MANIFEST, route.asked.location, route.reference)
        if content is None:
            return False
        self._stored.send(exchange, content, HIT, route.asked.namespace)
        return True

    async def respond(self, exchange: Exchange, route: ManifestRoute) -> None:
        """Answer, waiting for upstream as far as it is needed."""
        if exchange.method == b"HEAD":
            lookup = await self._cache.head_manifest(route.asked.location, route.reference)
        else:
            lookup = await self._cache.get_manifest(route.asked.location, route.reference)
        provenance = trace(
            lookup.status,
            is_stored=lookup.content is not None,
            upstream_status=lookup.upstream_status,
            warning=lookup.warning,
        )
        if lookup.content is not None:
            self._stored.send(exchange, lookup.content, provenance, route.asked.namespace)
        else:
            self._send_head(exchange, route, lookup, provenance)

    def _send_head(
        self,
        exchange: Exchange,
        route: ManifestRoute,
        lookup: ManifestLookup,
        provenance: Provenance,
    ) -> None:
        """Answer a HEAD of a manifest that is not stored here."""
        exchange.digest = lookup.digest
        exchange.cache_status = provenance.word
        last_lines = self._stored.last_lines(provenance, route.asked.namespace, None)
        fields = manifest_fields(lookup.digest, lookup.media_type)
        if is_not_modified(exchange.header(b"if-none-match"), quote_etag(lookup.digest)):
            send_not_modified(exchange, fields, last_lines)
            return
        fields.append(content_length(lookup.size_bytes))
        send_whole(exchange, 200, build_head(200, fields) + last_lines)
