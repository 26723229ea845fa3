"""The referrers of a digest: always an image index, never 404, as clients take that for "no API".

Source: OCI distribution-spec "Listing Referrers".
"""

from engine.cache import Cache
from engine.descriptor import OCI_INDEX
from engine.errors import NotFound
from engine.lookup import CacheStatus, ReferrersPage
from server.exchange import Exchange
from server.provenance import trace
from server.reply import send_document
from server.response import namespace_line
from server.routes import ReferrersRoute

_NONE = ReferrersPage(
    b'{"schemaVersion":2,"mediaType":"%b","manifests":[]}' % OCI_INDEX.encode("ascii"),
    is_filtered=False,
)
# The list is not stored: each request is forwarded.
_FORWARDED = trace(CacheStatus.BYPASS)


class Referrers:
    """Answers what `/v2/<name>/referrers/<digest>` asks."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def respond(self, exchange: Exchange, route: ReferrersRoute) -> None:
        """Answer with those that upstream knows; none for what it does not know."""
        exchange.digest = route.digest
        page = await self._get_page(route)
        exchange.cache_status = _FORWARDED.word
        fields = [("OCI-Filters-Applied", "artifactType")] if page.is_filtered else []
        last_lines = _FORWARDED.lines + namespace_line(route.asked.namespace)
        send_document(exchange, page.body, last_lines, fields, media_type=OCI_INDEX)

    async def _get_page(self, route: ReferrersRoute) -> ReferrersPage:
        location, digest = route.asked.location, route.digest
        try:
            return await self._cache.get_referrers(location, digest, route.artifact_type)
        except NotFound:
            return _NONE
