"""From a listening socket to a connection of an endpoint.

Invariant: sockets are all open before any of them accepts, and are closed when the stack unwinds.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from server.endpoint import Endpoint
from server.listening import BACKLOG, OpenListener, open_listeners
from server.protocol import Connection
from server.settings import Listener

logger = logging.getLogger(__name__)

Connect = Callable[[Endpoint], asyncio.BaseProtocol]


async def accept_all(
    stack: AsyncExitStack,
    endpoint: Endpoint,
    listeners: tuple[Listener, ...],
    event: str,
    connect: Connect = Connection,
) -> list[Listener]:
    """Accept connections for `endpoint` until the stack unwinds; return where.

    `event` is what the log says of each. Raises `ListenError`.
    """
    all_opened = open_listeners(listeners)
    for opened in all_opened:
        stack.callback(opened.close)
    for opened in all_opened:
        server = await _accept(opened, endpoint, connect)
        stack.callback(server.close)
        logger.info("%s addr=%s", event, opened.address)
    return [opened.address for opened in all_opened]


async def _accept(opened: OpenListener, endpoint: Endpoint, connect: Connect) -> asyncio.Server:
    def make() -> asyncio.BaseProtocol:
        return connect(endpoint)

    loop, sock = endpoint.loop, opened.sock
    if opened.address.path:
        return await loop.create_unix_server(make, sock=sock, backlog=BACKLOG)
    return await loop.create_server(make, sock=sock, backlog=BACKLOG)
