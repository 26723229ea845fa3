"""Fetching a token from the realm that upstream's challenge names.

Source: distribution docs/content/spec/auth/token.md. Rights that are missing from the token are
no error here: upstream says so when the token is used.
"""

import asyncio
import time

from yarl import URL

from engine.errors import UpstreamDenied, UpstreamUnavailable
from engine.upstream.challenge import Grant, check_realm
from engine.upstream.clock import loop_now
from engine.upstream.courier import Courier, Reply, Request, read_body
from engine.upstream.credentials import Credential, Credentials
from engine.upstream.guard import RateGuard
from engine.upstream.kinds import Counts, Kind
from engine.upstream.reply import error_of, reason_of
from engine.upstream.tokens import Token, read_token

_MAX_TOKEN_BYTES = 1024 * 1024


class TokenService:
    """Fetches tokens for one upstream, as its credential."""

    def __init__(
        self,
        upstream: URL,
        courier: Courier,
        credentials: Credentials,
        guard: RateGuard,
        counts: Counts,
    ) -> None:
        self._upstream = upstream
        self._courier = courier
        self._credentials = credentials
        self._guard = guard
        self._counts = counts

    async def fetch(self, grant: Grant, attempt_s: float) -> Token:
        """Fetch a token within `attempt_s`.

        Raises `UpstreamProtocolError` for a realm that may not be asked or makes no sense,
        `UpstreamDenied` where it refuses the credential, `UpstreamRateLimited`,
        `UpstreamUnavailable`.
        """
        realm = check_realm(grant.realm, self._upstream)
        self._guard.check(Kind.TOKEN, loop_now())
        self._counts.token_fetches += 1
        try:
            async with asyncio.timeout(attempt_s):
                return await self._fetch(realm, grant)
        except TimeoutError as exc:
            message = f"{realm.host}: no token within {attempt_s:g} s"
            raise UpstreamUnavailable(message) from exc

    async def _fetch(self, realm: URL, grant: Grant) -> Token:
        credential = await self._credentials.get(realm)
        url = realm.extend_query([("scope", scope) for scope in grant.scopes])
        if grant.service:
            url = url.extend_query(service=grant.service)
        authorization = None if credential is None else credential.basic
        sent_at = loop_now()
        reply = await self._courier.send(Request(Kind.TOKEN, "GET", url, authorization))
        body = await read_body(reply.response, _MAX_TOKEN_BYTES)
        if reply.response.status != 200:
            raise self._error(reply, body, credential)
        self._guard.answered(Kind.TOKEN, sent_at)
        return read_token(body, reply.place, now=loop_now(), now_unix=time.time())

    def _error(self, reply: Reply, body: bytes, credential: Credential | None) -> Exception:
        status = reply.response.status
        if status == 429:
            return self._guard.limited(Kind.TOKEN, reply.response.headers, body, loop_now())
        if status not in (401, 403):
            where = f"{reply.place} (token service)"
            return error_of(status, where, body, method="GET", not_found=None)
        self._credentials.refused(loop_now())
        who = "anonymous requests" if credential is None else f"user {credential.username!r}"
        message = f"{reply.place} (token service) refused {who} with {status}"
        reason = reason_of(body)
        return UpstreamDenied(f"{message}: {reason}" if reason else message, upstream_status=status)
