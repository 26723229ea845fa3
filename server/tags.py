"""`tags/list` of a repository, and `_catalog`, the repositories known here.

Both are sorted, cut into pages by the same rules and name things as the client asks for them.
Source: OCI distribution-spec "Listing Tags"; Docker's registry API for `_catalog`.
"""

from collections.abc import Iterable

import msgspec

from engine.cache import Cache
from engine.lookup import CacheStatus, TagPage
from engine.names import Location
from server.access_gate import Access
from server.exchange import Exchange
from server.paging import Page, cut_page, link_to_next
from server.provenance import HIT, Provenance, trace
from server.reply import send_document
from server.response import namespace_line
from server.routes import CatalogRoute, TagsRoute


class _TagDocument(msgspec.Struct):
    name: str
    tags: tuple[str, ...]


class _CatalogDocument(msgspec.Struct):
    repositories: tuple[str, ...]


class Tags:
    """Answers what `/v2/<name>/tags/list` asks. `max_entries` of a page; 0 = no bound.

    Where there is `access`, it names what the client may pull.
    """

    def __init__(self, cache: Cache, max_entries: int, access: Access | None = None) -> None:
        self._cache = cache
        self._max_entries = max_entries
        self._access = access

    async def respond(self, exchange: Exchange, route: TagsRoute) -> None:
        """Answer by upstream's list, or what is known here with a warning."""
        found = await self._cache.list_tags(route.asked.location)
        # The list is not stored: each request is forwarded.
        status = CacheStatus.STALE if found.warning else CacheStatus.BYPASS
        page = cut_page(self._select(exchange, route, found), route.query, self._max_entries)
        document = _TagDocument(route.asked.name, page.entries)
        _send_page(exchange, route, page, document, trace(status, warning=found.warning))

    def _select(self, exchange: Exchange, route: TagsRoute, found: TagPage) -> Iterable[str]:
        if self._access is None:
            return found.tags
        scope = self._access.find_permissions(exchange).find_scope(route.asked.location)
        return (tag for tag in found.tags if scope.judge_tag(tag).is_allowed)


class Catalog:
    """Answers what `/v2/_catalog` asks. `max_entries` of a page; 0 = no bound.

    Where there is `access`, it names what the client may pull.
    """

    def __init__(self, cache: Cache, max_entries: int, access: Access | None = None) -> None:
        self._cache = cache
        self._max_entries = max_entries
        self._access = access

    async def respond(self, exchange: Exchange, route: CatalogRoute) -> None:
        """List what is known here; nobody is asked."""
        known = self._select(exchange, await self._cache.list_repositories())
        names = [name for location in known if (name := _find_name(route, location))]
        page = cut_page(names, route.query, self._max_entries)
        _send_page(exchange, route, page, _CatalogDocument(page.entries), HIT)

    def _select(self, exchange: Exchange, known: list[Location]) -> list[Location]:
        if self._access is None:
            return known
        make_scope = self._access.find_permissions(exchange).make_scope
        return [location for location in known if make_scope(location).untagged.is_allowed]


def _find_name(route: CatalogRoute, location: Location) -> str | None:
    """Name a repository as this client must ask for it.

    None where it cannot: with `ns` there are no prefixes.
    """
    if location.upstream == route.upstream:
        return location.repository
    return None if route.query.namespace else str(location)


def _send_page(
    exchange: Exchange,
    route: TagsRoute | CatalogRoute,
    page: Page,
    document: msgspec.Struct,
    provenance: Provenance,
) -> None:
    exchange.cache_status = provenance.word
    link = link_to_next(route.path, page, route.query)
    fields = [("Link", link)] if link else []
    last_lines = provenance.lines + namespace_line(route.query.namespace)
    send_document(exchange, msgspec.json.encode(document), last_lines, fields)
