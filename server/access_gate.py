"""The gate before the API where `access` rules are configured: who may not pull is told so here.

Invariant: what a client may not pull reaches neither the cache nor an upstream, whatever is stored
and whatever other repositories link; lists show a client nothing but what it may pull. The
request's own repository counts, so a blob that an allowed one links, too, is denied under
the name of one that is not.

It stands behind the gate that asks for credentials, whose word on the user it takes.
"""

import logging
import time
from collections import Counter
from typing import TypeAlias

from engine.errors import InvalidName
from engine.fault_log import FaultLog
from engine.names import Tag
from server.access_rules import Client, Permissions, Rules, Verdict
from server.errors import describe
from server.exchange import Exchange, Handler
from server.refusals import AccessDenied, Refusal
from server.reply import send_problem
from server.routes import (
    BaseRoute,
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    ReferrersRoute,
    RootRoute,
    Router,
    TagsRoute,
)
from server.settings import ServerSettings

PullRoute: TypeAlias = BlobRoute | ManifestRoute | ReferrersRoute | TagsRoute

logger = logging.getLogger(__name__)


class Access:
    """The rules, asked for the client of an exchange. `denied_counts` are by a rule's place."""

    def __init__(self, rules: Rules) -> None:
        self.denied_counts: Counter[str] = Counter()
        self._rules = rules

    async def adopt(self, settings: ServerSettings) -> None:
        """Go by other rules from now on."""
        if settings.access is not None:
            self._rules = Rules(settings.access)

    def find_permissions(self, exchange: Exchange) -> Permissions:
        """Find what the client may pull."""
        certificate = exchange.certificate_name or ""
        return self._rules.find_permissions(Client(exchange.remote, exchange.user, certificate))


class AccessGate:
    """Lets through to `handler` what the rules allow."""

    def __init__(self, handler: Handler, access: Access, router: Router) -> None:
        self._handler = handler
        self._access = access
        self._router = router
        self._faults = FaultLog()

    def respond_now(self, exchange: Exchange) -> bool:
        """Refuse what is denied; pass on everything else."""
        return self._refuse_if_denied(exchange) or self._handler.respond_now(exchange)

    async def respond(self, exchange: Exchange) -> None:
        """As `respond_now`: an exchange that waited behind another one comes here at once."""
        if not self._refuse_if_denied(exchange):
            await self._handler.respond(exchange)

    def _refuse_if_denied(self, exchange: Exchange) -> bool:
        """Answer what the rules deny; say whether that was it."""
        host = exchange.header(b"host") if self._router.heeds_host else None
        try:
            route = self._router.match(exchange.target, host)
        except (Refusal, InvalidName):
            return False  # it names nothing that could be pulled; the API says what is wrong
        if isinstance(route, RootRoute | BaseRoute | CatalogRoute):
            return False
        verdict = self._judge(exchange, route)
        if not verdict.is_allowed:
            self._refuse(exchange, route, verdict)
        return not verdict.is_allowed

    def _judge(self, exchange: Exchange, route: PullRoute) -> Verdict:
        scope = self._access.find_permissions(exchange).find_scope(route.asked.location)
        if isinstance(route, ManifestRoute) and isinstance(route.reference, Tag):
            return scope.judge_tag(route.reference)
        return scope.untagged

    def _refuse(self, exchange: Exchange, route: PullRoute, verdict: Verdict) -> None:
        exchange.upstream = route.asked.location.upstream
        problem = describe(AccessDenied(verdict.place), exchange.header(b"user-agent"))
        send_problem(exchange, problem, route.asked.namespace)
        self._access.denied_counts[verdict.place] += 1
        # Not by the repository, whose name is the client's to choose; the access log has each.
        key = (verdict.place, exchange.remote, exchange.user)
        suppressed = self._faults.admit(key, time.monotonic())
        if suppressed is not None:
            logger.warning(
                "access denied rule=%s repository=%s remote=%s user=%s certificate=%r "
                "suppressed=%d",
                verdict.place,
                route.asked.location,
                exchange.remote,
                exchange.user or "-",
                exchange.certificate_name or "-",
                suppressed,
            )
