"""`GET` and `HEAD` of a blob: from the store, or as a reader of its fill.

Source: OCI distribution-spec "Pulling blobs".
"""

from engine.cache import Cache
from engine.hot import Kind
from engine.lookup import BlobLookup, CacheStatus
from server.conditional import is_not_modified
from server.exchange import Exchange
from server.provenance import HIT, trace
from server.reply import send_not_modified, send_whole
from server.response import blob_fields, build_head, content_length, quote_etag
from server.routes import BlobRoute
from server.stored import StoredSender
from server.streamed import FillSender


class Blobs:
    """Answers what `/v2/<name>/blobs/<digest>` asks."""

    def __init__(self, cache: Cache, stored: StoredSender) -> None:
        self._cache = cache
        self._stored = stored
        self._fills = FillSender(cache)

    def respond_now(self, exchange: Exchange, route: BlobRoute) -> bool:
        """Answer a hit; False where I/O is needed first."""
        content = self._cache.find(Kind.BLOB, route.asked.location, route.digest)
        if content is None:
            return False
        self._stored.send(exchange, content, HIT, route.asked.namespace)
        return True

    async def respond(self, exchange: Exchange, route: BlobRoute) -> None:
        """Answer, waiting for upstream as far as it is needed."""
        exchange.digest = route.digest
        if exchange.method == b"HEAD" or _is_not_modified(exchange, route):
            await self._respond_head(exchange, route)
            return
        lookup = await self._cache.get_blob(route.asked.location, route.digest)
        if lookup.content is not None:
            provenance = trace(lookup.status)
            self._stored.send(exchange, lookup.content, provenance, route.asked.namespace)
            return
        await self._follow(exchange, route, lookup)

    async def _follow(self, exchange: Exchange, route: BlobRoute, lookup: BlobLookup) -> None:
        reader = lookup.reader
        assert reader is not None, f"{route.digest}: neither stored nor being filled"

        def last_lines() -> bytes:
            provenance = trace(lookup.status if reader.is_stored else CacheStatus.BYPASS)
            exchange.cache_status = provenance.word
            return self._stored.last_lines(provenance, route.asked.namespace, lookup.stored_at)

        try:
            await self._fills.send(exchange, route, reader, last_lines)
        finally:
            reader.close()

    async def _respond_head(self, exchange: Exchange, route: BlobRoute) -> None:
        """Answer what needs no byte of the blob, so that none is fetched for it."""
        found = await self._cache.head_blob(route.asked.location, route.digest)
        provenance = trace(found.status, is_stored=found.stored_at is not None)
        exchange.cache_status = provenance.word
        last_lines = self._stored.last_lines(provenance, route.asked.namespace, found.stored_at)
        fields = blob_fields(route.digest)
        if _is_not_modified(exchange, route):
            send_not_modified(exchange, fields, last_lines)
            return
        if found.size_bytes is not None:
            fields.append(content_length(found.size_bytes))
        send_whole(exchange, 200, build_head(200, fields) + last_lines)


def _is_not_modified(exchange: Exchange, route: BlobRoute) -> bool:
    return is_not_modified(exchange.header(b"if-none-match"), quote_etag(route.digest))
