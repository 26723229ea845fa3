"""What answers clients, put together: the cache, the API over it, and the gates before it.

Invariant: a gate is there only where it is configured; otherwise the API itself is returned, so
that a hit pays for nothing that nobody asked for.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from engine.cache import Cache
from server.access import open_gate
from server.access_gate import Access, AccessGate
from server.access_rules import Rules
from server.api import Api
from server.exchange import Handler
from server.forwarded import ForwardedGate
from server.instruments import Instruments
from server.networks import Networks
from server.reloader import Reloader
from server.routes import Router


@asynccontextmanager
async def open_api(instruments: Instruments, reloader: Reloader) -> AsyncIterator[Handler]:
    """Open the cache and the API over it. Raises what `Cache.open` and `open_gate` raise."""
    settings = instruments.settings
    cache = instruments.cache = await Cache.open(settings.engine)
    try:
        access = None if settings.access is None else Access(Rules(settings.access))
        async with AsyncExitStack() as stack:
            api = Api(cache, settings, access=access)
            handler = await _open_gates(stack, api, access, reloader)
            # Last, as it waits for a round of eviction; who may pull what must not.
            reloader.add(lambda settings: cache.adopt(settings.engine))
            yield handler
    finally:
        instruments.cache = None
        await cache.aclose()


async def _open_gates(
    stack: AsyncExitStack, api: Handler, access: Access | None, reloader: Reloader
) -> Handler:
    """Put before the API what is configured, the last gate first: whence, who, and what."""
    settings, handler = reloader.settings, api
    if access is not None:
        router = Router(settings.engine.upstreams, settings.http.prefix)
        handler = AccessGate(handler, access, router)
        reloader.add(access.adopt)
    if settings.auth is not None:
        handler = gate = await stack.enter_async_context(open_gate(handler, settings.auth))
        reloader.add(gate.adopt)
    if settings.http.trustedproxies:
        handler = ForwardedGate(handler, Networks(settings.http.trustedproxies))
    return handler
