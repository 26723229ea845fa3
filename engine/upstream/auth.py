"""Who we are to upstream: answers to its challenges, remembered per repository.

Invariant: nothing is asked in advance (no ping). A repository's first request goes out bare, its
challenge is answered once, and later requests carry a token at once.
"""

from dataclasses import dataclass

from yarl import URL

from engine.names import Repository
from engine.settings import UpstreamSettings
from engine.upstream.challenge import Challenge, Grant, grant_of, parse_challenges
from engine.upstream.clock import loop_now
from engine.upstream.credentials import Credentials
from engine.upstream.limits import Limits
from engine.upstream.tokens import TokenCache


@dataclass(frozen=True, slots=True)
class Basic:
    """Upstream wants a name and a password with each request."""


class Authenticator:
    """Makes `Authorization` for one upstream."""

    def __init__(
        self, upstream: URL, credentials: Credentials, tokens: TokenCache, limits: Limits
    ) -> None:
        self._upstream = upstream
        self._credentials = credentials
        self._tokens = tokens
        self._max_repositories = limits.max_remembered
        self._demands: dict[Repository, Grant | Basic] = {}

    async def authorization(self, repository: Repository) -> str | None:
        """Give what the repository demanded last time; None where it never did."""
        demand = self._demands.get(repository)
        return None if demand is None else await self._satisfy(demand)

    async def answer(
        self, repository: Repository, challenges: str, refused: str | None
    ) -> str | None:
        """Answer a 401's challenges; `refused` is the `Authorization` that it was the answer to.

        None: we have no other answer, so the 401 stands. Raises what a token fetch raises.
        """
        demand = _choose(parse_challenges(challenges), repository)
        if demand is None:
            return None
        self._remember(repository, demand)
        self._forget(demand, refused)
        answer = await self._satisfy(demand)
        return None if answer == refused else answer

    def _remember(self, repository: Repository, demand: Grant | Basic) -> None:
        if repository not in self._demands and len(self._demands) >= self._max_repositories:
            del self._demands[next(iter(self._demands))]
        self._demands[repository] = demand

    def _forget(self, demand: Grant | Basic, refused: str | None) -> None:
        match demand:
            case Grant() if refused is not None:
                self._tokens.drop(demand, refused.removeprefix("Bearer "))
            case Basic() if refused is not None:
                self._credentials.refused(loop_now())
            case _:
                pass

    async def _satisfy(self, demand: Grant | Basic) -> str | None:
        match demand:
            case Grant():
                token = await self._tokens.get(demand, loop_now())
                return f"Bearer {token.text}"
            case Basic():
                credential = await self._credentials.get(self._upstream)
                return None if credential is None else credential.basic

    def adopt(self, settings: UpstreamSettings) -> None:
        """Be whom `settings` says from now on; where that is new, tokens are forgotten."""
        if self._credentials.adopt(settings):
            self._tokens.clear()

    async def aclose(self) -> None:
        """Stop token fetches and helpers."""
        await self._tokens.aclose()
        await self._credentials.aclose()


def _choose(challenges: list[Challenge], repository: Repository) -> Grant | Basic | None:
    """Prefer a token over the password in each request; skip what we do not speak."""
    for challenge in challenges:
        if challenge.scheme == "bearer":
            return grant_of(challenge, repository)
    return Basic() if any(c.scheme == "basic" for c in challenges) else None
