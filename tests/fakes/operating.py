"""An operator of a cache that no server serves from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.cache import Cache
from engine.settings import EngineSettings, UpstreamSettings
from server.counters import Counters
from server.instruments import Instruments
from server.operating import Operator, open_operator
from server.settings import ServerSettings
from tests.fakes.counted import UPSTREAMS, make_counters


@asynccontextmanager
async def operating(
    cache: Cache | None,
    data: Path,
    *,
    counters: Counters | None = None,
    upstreams: tuple[UpstreamSettings, ...] = UPSTREAMS,
) -> AsyncIterator[tuple[Operator, Instruments]]:
    """Make an operator and what it reads."""
    settings = ServerSettings(EngineSettings(data, upstreams))
    instruments = Instruments(settings, counters or make_counters(b"/v2/"))
    instruments.cache = cache
    async with open_operator(instruments) as operator:
        yield operator, instruments
