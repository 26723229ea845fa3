"""Bearer tokens: how long they are good for (pure), and a cache of them.

Source: distribution docs/content/spec/auth/token.md.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from engine.errors import UpstreamProtocolError
from engine.json_text import MalformedJSON, decode_json
from engine.single_flight import SingleFlight
from engine.upstream.challenge import Grant
from engine.upstream.limits import Limits

_MIN_LIFETIME_S = 60.0  # the default, and a service must not give less
_EARLY_FRACTION = 0.1  # a token is renewed when so much of its life is left
_MAX_EARLY_S = 30.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token; `renew_at` is of the event loop's clock."""

    text: str = field(repr=False)
    renew_at: float


class _RawToken(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None
    issued_at: str | None = None


def read_token(body: bytes, where: str, *, now: float, now_unix: float) -> Token:
    """Read a token service's reply; raises `UpstreamProtocolError`."""
    try:
        raw = decode_json(body, _RawToken, strict=False)
    except MalformedJSON:
        # Not chained: the decoder's message may quote the token.
        raise UpstreamProtocolError(f"{where}: the token service's reply is no token") from None
    text = raw.token or raw.access_token
    if not text or not text.isascii() or not text.isprintable():
        raise UpstreamProtocolError(f"{where}: the token service's reply holds no token")
    lifetime_s = max(raw.expires_in or _MIN_LIFETIME_S, _MIN_LIFETIME_S)
    left_s = lifetime_s - _age_s(raw.issued_at, lifetime_s, now_unix)
    return Token(text, now + left_s - min(lifetime_s * _EARLY_FRACTION, _MAX_EARLY_S))


def _age_s(issued_at: str | None, lifetime_s: float, now_unix: float) -> float:
    """How old the token is already; an implausible age is a wrong clock, and counts as none."""
    if not issued_at:
        return 0.0
    try:
        issued = datetime.fromisoformat(issued_at)
    except ValueError:
        return 0.0
    if issued.tzinfo is None:
        issued = issued.replace(tzinfo=UTC)
    age_s = now_unix - issued.timestamp()
    return age_s if 0.0 <= age_s < lifetime_s else 0.0


class TokenCache:
    """Tokens by what they grant, each fetched once for all who wait for it."""

    def __init__(
        self, fetch: Callable[[Grant], Coroutine[None, None, Token]], limits: Limits
    ) -> None:
        self._fetch = fetch
        self._max_tokens = limits.max_remembered
        self._tokens: dict[Grant, Token] = {}
        self._flight: SingleFlight[Grant, Token] = SingleFlight()

    def clear(self) -> None:
        """Forget all tokens; one that is being fetched is kept for its time."""
        self._tokens.clear()

    async def get(self, grant: Grant, now: float) -> Token:
        """Give a token that is good for a while yet. Raises what the fetch raises."""
        token = self._tokens.get(grant)
        if token is not None and now < token.renew_at:
            return token
        token, _ = await self._flight.run(grant, lambda: self._renew(grant, now))
        return token

    async def _renew(self, grant: Grant, now: float) -> Token:
        token = await self._fetch(grant)
        if len(self._tokens) >= self._max_tokens:
            self._tokens = {g: t for g, t in self._tokens.items() if now < t.renew_at}
        if len(self._tokens) >= self._max_tokens:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[grant] = token
        return token

    def drop(self, grant: Grant, text: str) -> None:
        """Forget a token that upstream refused, unless it was renewed meanwhile."""
        token = self._tokens.get(grant)
        if token is not None and token.text == text:
            del self._tokens[grant]

    async def aclose(self) -> None:
        """Stop fetching."""
        await self._flight.aclose()
