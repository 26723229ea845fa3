"""The API in front of a fake cache, and how to ask it without a connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.names import Location, Repository
from engine.settings import EngineSettings
from server.api import Api
from server.settings import HTTPSettings, ServerSettings
from tests.fakes.cache import FakeCache, FilledBlob
from tests.fakes.exchange import Answer, FakeExchange
from tests.fakes.upstreams import GHCR, HUB, LOCAL

APP = Location("docker.io", Repository("acme/app"))
NOW = 1_700_000_000.0


class Desk:
    """An API and its cache, at the moment `now`, which is `NOW` until a test moves it."""

    def __init__(
        self, directory: Path, *, prefix: str = "/", tags_max: int = 0, catalog_max: int = 1000
    ) -> None:
        self.cache = FakeCache(directory)
        settings = ServerSettings(
            EngineSettings(directory, (HUB, GHCR, LOCAL)),
            HTTPSettings(prefix=prefix),
            tags_max=tags_max,
            catalog_max=catalog_max,
        )
        self.now = NOW
        self.api = Api(self.cache, settings, clock=lambda: self.now)

    async def respond(self, exchange: FakeExchange) -> None:
        """Answer as the transport would have it answered."""
        if not self.api.respond_now(exchange):
            await self.api.respond(exchange)

    def exchange(self, target: str, method: str = "GET", **headers: str) -> FakeExchange:
        """Make a request; `if_range="x"` sends `If-Range: x`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return FakeExchange(target.encode("latin-1"), method.encode(), named)

    async def ask(self, target: str, method: str = "GET", **headers: str) -> Answer:
        """Ask and wait for the answer."""
        exchange = self.exchange(target, method, **headers)
        await self.respond(exchange)
        return exchange.answer

    def ask_now(self, target: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for what must be answered without waiting."""
        exchange = self.exchange(target, method, **headers)
        assert self.api.respond_now(exchange), "not answered at once"
        return exchange.answer

    @contextmanager
    def filling(self, data: bytes, *, is_size_known: bool = True) -> Iterator[FilledBlob]:
        """Have a fill of `data` under way; checks in the end that no reader was left open."""
        filled = FilledBlob(data, is_size_known=is_size_known)
        self.cache.fills[filled.fill.digest] = filled
        yield filled
        filled.close()
