"""The registry API: one exchange in, one answer out.

Invariant: each exchange is answered exactly once, by the noun its path names or with an error; the
client is never challenged, whatever it or the upstream says.
Must not know: sockets, SQL, upstream protocols.
"""

import logging
import time
from collections.abc import Callable

from engine.cache import Cache
from engine.errors import CacheError, InvalidName, StorageError
from engine.fault_log import FaultLog
from server.access_gate import Access
from server.blobs import Blobs
from server.errors import describe
from server.exchange import Exchange
from server.manifests import Manifests
from server.referrers import Referrers
from server.refusals import MethodUnsupported, RangeUnsatisfiable, Refusal
from server.reply import send_document, send_problem, send_whole
from server.request_id import identify
from server.response import build_fields, build_head, content_length, namespace_line
from server.routes import (
    BaseRoute,
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    ReferrersRoute,
    RootRoute,
    Route,
    Router,
    TagsRoute,
    namespace_of,
)
from server.settings import ServerSettings
from server.stored import StoredSender
from server.streamed import BodyCut
from server.tags import Catalog, Tags

_LOCAL = build_fields([("Cache-Status", "moorage; detail=not-forwarded")])
_VERSION = ("Docker-Distribution-API-Version", "registry/2.0")

logger = logging.getLogger(__name__)


class Api:
    """Answers exchanges from the cache. `clock` tells unix seconds.

    Lists show what `access` allows; all else is judged by a gate before this.
    """

    def __init__(
        self,
        cache: Cache,
        settings: ServerSettings,
        clock: Callable[[], float] = time.time,
        access: Access | None = None,
    ) -> None:
        self._router = Router(settings.engine.upstreams, settings.http.prefix)
        stored = StoredSender(cache, clock)
        self._blobs = Blobs(cache, stored)
        self._manifests = Manifests(cache, stored)
        self._tags = Tags(cache, settings.tags_max, access)
        self._catalog = Catalog(cache, settings.catalog_max, access)
        self._referrers = Referrers(cache)
        self._faults = FaultLog()

    def respond_now(self, exchange: Exchange) -> bool:
        """Answer what needs no I/O: hits, `/`, `/v2/` and refusals. False: nothing was done."""
        try:
            route = self._match(exchange)
        except (Refusal, InvalidName) as error:
            self._send_error(exchange, error, "")
            return True
        try:
            return self._answer_now(exchange, route)
        except RangeUnsatisfiable as error:
            self._send_error(exchange, error, namespace_of(route))
            return True
        except StorageError:
            # Known, but its file is not there: `respond` finds out, and fetches it anew.
            return False

    async def respond(self, exchange: Exchange) -> None:
        """Answer, waiting for disk and upstream. `ClientGone` passes through."""
        # An exchange that waited behind another one has not been tried yet.
        if self.respond_now(exchange):
            return
        route = self._match(exchange)
        try:
            await self._answer(exchange, route)
        except BodyCut as cut:
            exchange.cause = str(cut)
            exchange.abort()
            self._log_fault(exchange, cut)
        except (Refusal, CacheError) as error:
            self._send_error(exchange, error, namespace_of(route))

    def _match(self, exchange: Exchange) -> Route:
        if exchange.method not in (b"GET", b"HEAD"):
            raise MethodUnsupported(exchange.method)
        host = exchange.header(b"host") if self._router.heeds_host else None
        return self._router.match(exchange.target, host)

    def _answer_now(self, exchange: Exchange, route: Route) -> bool:
        match route:
            case BlobRoute():
                exchange.upstream = route.asked.location.upstream
                return self._blobs.respond_now(exchange, route)
            case ManifestRoute():
                exchange.upstream = route.asked.location.upstream
                return self._manifests.respond_now(exchange, route)
            case BaseRoute():
                lines = _LOCAL + namespace_line(route.namespace)
                send_document(exchange, b"{}", lines, [_VERSION])
                return True
            case RootRoute():
                send_whole(exchange, 200, build_head(200, [content_length(0)]) + _LOCAL)
                return True
            case _:
                return False

    async def _answer(self, exchange: Exchange, route: Route) -> None:
        match route:
            case BlobRoute():
                await self._blobs.respond(exchange, route)
            case ManifestRoute():
                await self._manifests.respond(exchange, route)
            case TagsRoute():
                exchange.upstream = route.asked.location.upstream
                await self._tags.respond(exchange, route)
            case ReferrersRoute():
                exchange.upstream = route.asked.location.upstream
                await self._referrers.respond(exchange, route)
            case CatalogRoute():
                await self._catalog.respond(exchange, route)
            case BaseRoute() | RootRoute():
                raise AssertionError("these are always answered at once")

    def _send_error(self, exchange: Exchange, error: Exception, namespace: str) -> None:
        problem = describe(error, exchange.header(b"user-agent"))
        send_problem(exchange, problem, namespace)
        if problem.status >= 500 or problem.status == 429:
            self._log_fault(exchange, error)

    def _log_fault(self, exchange: Exchange, error: Exception) -> None:
        request_id = identify(exchange)
        suppressed = self._faults.admit((exchange.upstream, type(error)), time.monotonic())
        if suppressed is not None:
            logger.warning(
                "request failed status=%d upstream=%s digest=%s request_id=%s cause=%s"
                " suppressed=%d",
                exchange.status,
                exchange.upstream,
                exchange.digest,
                request_id,
                error,
                suppressed,
            )
