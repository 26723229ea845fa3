"""What answers clients, put together: the cache, the API over it, and the gates before it.

Invariant: a gate is there only where it is configured; otherwise the API itself is what is returned,
so that a hit pays for nothing that nobody asked for.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.cache import Cache
from server.access import open_gate
from server.api import Api
from server.exchange import Handler
from server.instruments import Instruments
from server.reloader import Reloader


@asynccontextmanager
async def open_api(instruments: Instruments, reloader: Reloader) -> AsyncIterator[Handler]:
    """Open the cache and the API over it. Raises what `Cache.open` and `open_gate` raise."""
    settings = instruments.settings
    cache = instruments.cache = await Cache.open(settings.engine)
    try:
        reloader.add(lambda settings: cache.adopt(settings.engine))
        api = Api(cache, settings)
        if settings.auth is None:
            yield api
        else:
            async with open_gate(api, settings.auth) as gate:
                reloader.add(gate.adopt)
                yield gate
    finally:
        instruments.cache = None
        await cache.aclose()
