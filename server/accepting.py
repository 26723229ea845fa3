"""From a listening socket to a connection of an endpoint.

Invariant: sockets are all open before any of them accepts, and are closed when the stack unwinds.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from server.endpoint import Endpoint
from server.listening import BACKLOG, OpenListener, open_listeners
from server.networks import Networks
from server.protocol import Connection
from server.proxy_connection import ProxiedConnection, ProxyFaults
from server.settings import HTTPSettings, Listener

logger = logging.getLogger(__name__)

Begin = Callable[[Endpoint], asyncio.BaseProtocol]
Connect = Callable[[Endpoint], Connection]


async def accept_all(
    stack: AsyncExitStack,
    endpoint: Endpoint,
    listeners: tuple[Listener, ...],
    event: str,
    begin: Begin = Connection,
) -> list[Listener]:
    """Accept connections for `endpoint` until the stack unwinds; return where.

    `event` is what the log says of each; `begin` makes what a new connection begins as. Raises
    `ListenError`.
    """
    all_opened = open_listeners(listeners)
    for opened in all_opened:
        stack.callback(opened.close)
    for opened in all_opened:
        server = await _accept(opened, endpoint, begin)
        stack.callback(server.close)
        logger.info("%s addr=%s", event, opened.address)
    return [opened.address for opened in all_opened]


def after_proxy_header(http: HTTPSettings, connect: Connect) -> Begin:
    """Have each connection begin as `http` says, before it is what `connect` makes."""
    if not http.has_proxy_header:
        return connect
    trusted, faults = Networks(http.trustedproxies), ProxyFaults()
    return lambda endpoint: ProxiedConnection(endpoint, connect, trusted, faults)


async def _accept(opened: OpenListener, endpoint: Endpoint, begin: Begin) -> asyncio.Server:
    def make() -> asyncio.BaseProtocol:
        return begin(endpoint)

    loop, sock = endpoint.loop, opened.sock
    if opened.address.path:
        return await loop.create_unix_server(make, sock=sock, backlog=BACKLOG)
    return await loop.create_server(make, sock=sock, backlog=BACKLOG)
