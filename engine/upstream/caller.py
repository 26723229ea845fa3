"""One attempt: a request with the token dance and its redirects, its status made an error.

Invariant: what is returned is a 200 or 206; all else is raised, as what it means. A 401 or 403
of a redirect's target is not upstream's word: upstream is asked for a fresh URL.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import aiohttp
from yarl import URL

from engine.errors import NotFound, UpstreamDenied
from engine.names import Repository
from engine.upstream.auth import Authenticator
from engine.upstream.clock import loop_now
from engine.upstream.courier import Courier, Reply, Request, read_body
from engine.upstream.guard import RateGuard
from engine.upstream.kinds import Kind, RateLimit
from engine.upstream.limits import Limits
from engine.upstream.reply import error_of, rate_limit

_SUCCESSES = frozenset({200, 206})


class TargetDenied(UpstreamDenied):
    """Upstream redirected to where we were refused, however often it was asked anew."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of upstream. `not_found`: what its 404 means. `what`: for messages."""

    kind: Kind
    method: str
    url: URL
    repository: Repository
    what: str
    not_found: type[NotFound]
    range: str | None = None


class Caller:
    """Makes attempts. `note_limits` is told the rate limits that upstream's answers bear."""

    def __init__(
        self,
        courier: Courier,
        auth: Authenticator,
        guard: RateGuard,
        limits: Limits,
        note_limits: Callable[[RateLimit], None],
    ) -> None:
        self._courier = courier
        self._auth = auth
        self._guard = guard
        self._limits = limits
        self._note_limits = note_limits

    async def call(self, ask: Ask) -> aiohttp.ClientResponse:
        """Give a successful response, its body unread; the caller closes it.

        Raises everything that `Upstream` names. The caller bounds the time.
        """
        tries = 0
        while True:
            tries += 1
            sent_at = loop_now()
            reply = await self._dance(ask)
            if not (reply.is_foreign and reply.response.status in (401, 403)):
                return await self._judge(ask, reply, sent_at)
            await read_body(reply.response, self._limits.max_error_bytes)
            if tries > self._limits.max_fresh_urls:
                raise self._target_denied(ask, reply, tries)

    def _target_denied(self, ask: Ask, reply: Reply, tries: int) -> TargetDenied:
        status = reply.response.status
        return TargetDenied(
            f"{ask.what}: {reply.place}, where upstream redirects to, refused "
            f"{tries} URLs in a row ({status})",
            upstream_status=status,
        )

    async def _dance(self, ask: Ask) -> Reply:
        """Send with what the repository demanded before; answer a new challenge once."""
        authorization = await self._auth.authorization(ask.repository)
        request = Request(ask.kind, ask.method, ask.url, authorization, ask.range)
        reply = await self._courier.send(request)
        if reply.response.status != 401 or reply.is_foreign:
            return reply
        challenges = ", ".join(reply.response.headers.getall("WWW-Authenticate", []))
        body = await read_body(reply.response, self._limits.max_error_bytes)
        answer = await self._auth.answer(ask.repository, challenges, authorization)
        if answer is None:
            raise error_of(401, self._where(ask, reply), body, method="GET", not_found=None)
        return await self._courier.send(replace(request, authorization=answer))

    async def _judge(self, ask: Ask, reply: Reply, sent_at: float) -> aiohttp.ClientResponse:
        response = reply.response
        if not reply.is_foreign and (limits := rate_limit(response.headers)) is not None:
            self._note_limits(limits)
        if response.status != 429 and response.status < 500:
            self._guard.answered(ask.kind, sent_at)
        if response.status in _SUCCESSES:
            return response
        body = await read_body(response, self._limits.max_error_bytes)
        if response.status == 429:
            now = loop_now()
            raise self._guard.limited(ask.kind, response.headers, body, now)
        where = self._where(ask, reply)
        raise error_of(response.status, where, body, method=ask.method, not_found=ask.not_found)

    def _where(self, ask: Ask, reply: Reply) -> str:
        return f"{ask.what}: {reply.place}"
