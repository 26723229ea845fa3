"""One client connection over TLS: a connection whose bytes pass through a channel.

Invariant: nothing of HTTP happens before the handshake is over; a connection is admitted, and its
patience kept, from its first byte on. A handshake that fails is logged with its cause, like ones
together, and the alert reaches the client before the end.
"""

import logging
import socket
import ssl

from engine.fault_log import FaultLog
from server.endpoint import Endpoint
from server.flow import Flow
from server.limits import Phase
from server.protocol import Connection
from server.tls_channel import Channel, TLSFault
from server.tls_flow import TLSFlow

logger = logging.getLogger(__name__)

# What Go's server says, whose clients recognise it.
_PLAIN_REFUSAL = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)


class Handshakes:
    """Counts handshakes and logs those that failed; one for all connections of a listener."""

    def __init__(self) -> None:
        self.done_count = 0
        self.failed_count = 0
        self._faults = FaultLog()

    def note_failed(self, remote: str, cause: str, now: float) -> None:
        """Log a failure, unless a like one was logged just now. `now`: the loop's time."""
        self.failed_count += 1
        suppressed = self._faults.admit(cause, now)
        if suppressed is not None:
            logger.info(
                "TLS handshake failed remote=%s cause=%s suppressed=%d", remote, cause, suppressed
            )


class SecureConnection(Connection):
    """A connection from its making to its loss, handshake included."""

    __slots__ = ("_channel", "_handshakes", "_tls_flow")

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, handshakes: Handshakes) -> None:
        super().__init__(endpoint)
        self._channel = Channel(context)
        self._handshakes = handshakes

    def open_flow(self, sock: socket.socket) -> Flow:
        """Make the output, which encrypts."""
        memory = self._endpoint.memory
        self._tls_flow = TLSFlow(sock, self._loop, memory, self._channel, self._flow_ready)
        return self._tls_flow

    def data_received(self, data: bytes) -> None:
        """Decrypt; what comes out is a plain connection's data."""
        if self._is_last:
            super().data_received(data)  # it is only counted
            return
        was_established = self._channel.is_established
        try:
            plaintext = self._channel.receive(data)
        except TLSFault as exc:
            self._fail(exc)
            return
        if not was_established:
            self._tls_flow.write_handshake()
            self._note_progress()
        if plaintext:
            super().data_received(plaintext)
        if self._channel.is_at_end:
            super().eof_received()

    def eof_received(self) -> bool:
        """The client sends no more, be it that it said so in TLS's way or not."""
        self._note_unfinished("the client left during it")
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything."""
        self._note_unfinished("the client reset the connection during it")
        super().connection_lost(exc)

    def look(self) -> tuple[Phase, int]:
        """Say what the connection is at, and a mark that moves when it gets on."""
        if not self._channel.is_established and not self._is_last:
            return Phase.HANDSHAKE, 0
        return super().look()

    def cut(self, cause: str) -> None:
        """End the connection now: abruptly where a response is under way."""
        self._note_unfinished(cause)
        super().cut(cause)

    def wind_up(self) -> None:
        """Close when idle or in the handshake, else after the response under way."""
        self._note_unfinished("the server stops")
        super().wind_up()

    def _note_progress(self) -> None:
        if self._channel.is_established:
            self._handshakes.done_count += 1
            self.certificate_name = self._channel.certificate_name

    def _note_unfinished(self, cause: str) -> None:
        """Note that the connection ends, if that is in the middle of the handshake.

        One that ends before it has begun is a probe of the port, as load balancers send them.
        """
        channel = self._channel
        if channel.is_begun and not channel.is_established and not self._is_last:
            self._is_last = True
            self._handshakes.note_failed(self.remote, cause, self._loop.time())

    def _fail(self, fault: TLSFault) -> None:
        if self._channel.is_established:
            logger.debug("TLS broken remote=%s cause=%s", self.remote, fault)
            self.abort()
            return
        self._note_unfinished(str(fault))
        if fault.is_plain_http:
            self._tls_flow.write_plain(_PLAIN_REFUSAL)
        else:
            self._tls_flow.write_handshake()  # the alert
        self._must_linger = True
        self._end()
