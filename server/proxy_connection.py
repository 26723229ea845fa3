"""A connection that begins with a header of the PROXY protocol, until that is whole.

Invariant: nothing of the client's is read before a trusted proxy has said who it is; what then
follows belongs to the connection proper, which knows nothing of this one. Until then it counts
as a connection, and the header is given the time that a request's head is.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from engine.fault_log import FaultLog
from server.endpoint import Endpoint
from server.limits import Phase, Watch
from server.logs import describe_peer
from server.networks import Networks
from server.protocol import Connection
from server.proxy_header import MalformedHeader, parse_proxy_header

logger = logging.getLogger(__name__)


class ProxyFaults:
    """Logs what was wrong with connections; one for all of them."""

    def __init__(self) -> None:
        self._faults = FaultLog()

    def note(self, remote: str, cause: str, now: float) -> None:
        """Log why a connection was closed, unless a like one was logged just now."""
        suppressed = self._faults.admit(remote, now)
        if suppressed is not None:
            logger.warning(
                "connection closed for its PROXY protocol header remote=%s cause=%s suppressed=%d",
                remote,
                cause,
                suppressed,
            )


class ProxiedConnection(asyncio.Protocol):
    """Takes the header in, then lets `connect` make the connection proper in its place."""

    def __init__(
        self,
        endpoint: Endpoint,
        connect: Callable[[Endpoint], Connection],
        trusted: Networks,
        faults: ProxyFaults,
    ) -> None:
        self.watch = Watch(endpoint.loop.time())
        self._endpoint = endpoint
        self._connect = connect
        self._trusted = trusted
        self._faults = faults
        self._buffer = b""

    # Protocol interface

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for admission; close on whoever is not to be believed."""
        self._transport = cast(asyncio.Transport, transport)
        self._remote = describe_peer(transport.get_extra_info("peername"))
        if not self._endpoint.admit(self):
            self._transport.abort()
        elif self._remote not in self._trusted:
            self._close("not one of http.trustedproxies")

    def data_received(self, data: bytes) -> None:
        """Take bytes in until the header is whole."""
        self._buffer += data
        try:
            header = parse_proxy_header(self._buffer)
        except MalformedHeader as exc:
            self._close(str(exc))
            return
        if header is not None:
            self._hand_over(header.client or self._remote, self._buffer[header.end :])

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the endpoint."""
        self._endpoint.discard(self)

    # For the endpoint

    def look(self) -> tuple[Phase, int]:
        """Say that a head is arriving, which must not take long."""
        return Phase.HEAD, 0

    def wind_up(self) -> None:
        """Close: no request has begun."""
        self._transport.close()

    def cut(self, cause: str) -> None:
        """Close, and say why."""
        self._close(cause)

    def _close(self, cause: str) -> None:
        self._faults.note(self._remote, cause, self._endpoint.loop.time())
        self._transport.abort()

    def _hand_over(self, client: str, rest: bytes) -> None:
        connection = self._connect(self._endpoint)
        self._endpoint.discard(self)
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        connection.remote = client
        if rest:
            connection.data_received(rest)
