"""One client connection: requests in, in order; the only user of the request parser.

Invariant: one exchange at a time. While it is unfinished, what arrives waits as bytes, unparsed;
so responses leave in the order of their requests, and a client that does not read is not read.
The parser is given one whole, checked head at a time and never a body: a request that announces
one is answered and is the last of its connection.

The end of a connection has three forms: *close* (the client knows that nothing more comes),
*linger* (it may still be sending: shut down, discard what comes, then close, for a reset would
destroy the answer on its way), and *abort* (it must see that something went wrong).
"""

import asyncio
import logging
import socket
from copy import copy
from time import monotonic
from typing import cast

import httptools

from server.connection_exchange import ConnectionExchange
from server.endpoint import Endpoint
from server.exchange import CLIENT_GONE, ClientGone
from server.flow import Flow, SocketFlow, duplicate
from server.limits import Phase, Watch
from server.logs import describe_peer
from server.request import (
    HTTP_11,
    KNOWN_HEAD_BYTES,
    TRACE_START,
    BadRequest,
    Request,
    check_request,
    drop_trace,
    find_head_end,
)

logger = logging.getLogger(__name__)

# So many pipelined requests are answered in one turn of the loop; then others get theirs.
_REQUESTS_PER_TURN = 32
_TLS_HANDSHAKE = 0x16  # a record's first byte (RFC 8446 §5.1)
_NO_REQUEST = Request(b"-", b"-", HTTP_11, {}, has_body=True, keeps_alive=False)


class Connection(asyncio.Protocol):
    """A connection from its making to its loss."""

    __slots__ = (
        "_buffer", "_endpoint", "_exchange", "_fields", "_is_closed", "_is_eof", "_is_fresh",
        "_is_last", "_is_lingering", "_is_paused", "_is_scheduled", "_lingered_bytes", "_loop",
        "_must_linger", "_parser", "_request_count", "_task", "_transport", "_url",
        "certificate_name", "flow", "head_ends", "remote", "watch",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._loop = endpoint.loop
        self.head_ends = endpoint.head_ends
        self.watch = Watch(self._loop.time())
        self.certificate_name: str | None = None
        # The request under way
        self._is_fresh = True  # nothing has arrived yet
        self._buffer = b""
        self._parser: httptools.HttpRequestParser | None = None  # until a head has to be parsed
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._exchange: ConnectionExchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._request_count = 0
        self._is_scheduled = False  # `_go_on` will be called for requests that are here
        # How it ends
        self._is_eof = False  # the client sends no more
        self._is_last = False  # no further request is looked at
        self._must_linger = False  # the client may be sending what we do not read
        self._is_lingering = False
        self._lingered_bytes = 0
        self._is_paused = False
        self._is_closed = False

    # Protocol interface

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set up output and ask the endpoint for admission."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        self.flow = self.open_flow(duplicate(sock.fileno()))
        self.remote = describe_peer(transport.get_extra_info("peername"))
        if not self._endpoint.admit(self):
            self.abort()

    def open_flow(self, sock: socket.socket) -> Flow:
        """Make the output, which owns `sock` from now on."""
        return SocketFlow(sock, self._loop, self._endpoint.memory, self._flow_ready)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; answer what is complete."""
        is_free = self._exchange is None and not self._buffer and not self._is_last
        if is_free and len(data) <= KNOWN_HEAD_BYTES:
            head = drop_trace(data) if TRACE_START in data else data
            if self._repeat(head) or self._answer_known(head):
                return
        if self._is_last:
            self._discard(len(data))
            return
        if self._is_fresh:
            self._is_fresh = False
            if data[0] == _TLS_HANDSHAKE:
                self._close()  # the client will try plain HTTP once this is refused
                return
        self._buffer = self._buffer + data if self._buffer else data
        if self._exchange is None:
            self._advance()
        self._control_reading()

    def eof_received(self) -> bool:
        """The client sends no more; what it has asked is still answered."""
        self._is_eof = True
        if self._is_at_rest:
            self._close()
        return not self._is_at_rest

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything; whoever still works for the client is told to stop."""
        self._is_closed = self._is_last = True
        self.flow.close()
        exchange = self._exchange
        if exchange is not None:
            exchange.cause = exchange.cause or CLIENT_GONE
            self._note_over(exchange)
        if self._task is not None:
            self._task.cancel()
        self._endpoint.discard(self)

    # Parser callbacks

    def on_url(self, url: bytes) -> None:
        """Keep the target."""
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header line."""
        self._fields.append((name, value))

    # For the endpoint

    def look(self) -> tuple[Phase, int]:
        """Say what the connection is at, and a mark that moves when it gets on."""
        if self._is_lingering:
            return Phase.LINGERING, 0
        if self.flow.is_blocked:
            return Phase.SENDING, self.flow.count_delivered()
        if self._exchange is not None:
            return Phase.WORKING, 0
        return Phase.HEAD if self._buffer else Phase.IDLE, self._request_count

    def wind_up(self) -> None:
        """Close when idle, else after the response under way."""
        if self._exchange is not None:
            self._exchange.keeps_alive = False
            self._must_linger = True
        elif not self._buffer:
            self._close()

    def cut(self, cause: str) -> None:
        """End the connection now: abruptly where a response is under way."""
        if self._exchange is None:
            self._close()
        else:
            self._exchange.cause = self._exchange.cause or cause
            self.abort()

    # For exchanges

    def abort(self) -> None:
        """Reset the connection."""
        self._is_last = True
        self.flow.close(reset=True)
        if not self._is_closed:
            self._transport.abort()

    # One exchange after the other

    def _advance(self) -> None:
        """Answer what has arrived until something has to be waited for."""
        data, start = self._buffer, 0
        last_count = self._request_count + _REQUESTS_PER_TURN
        while start < len(data) and self._exchange is None and not self._is_last:
            while data.startswith(b"\r\n", start):  # RFC 9112 §2.2
                start += 2
            if self._request_count == last_count:
                self._is_scheduled = True
                self._loop.call_soon(self._go_on)
                break
            end = self._take(data, start)
            if end < 0:
                break
            start = end
        self._buffer = data[start:]

    def _repeat(self, head: bytes) -> bool:
        """Send what was sent for the same head a moment ago; False where that is not possible."""
        now = monotonic()
        endpoint, flow = self._endpoint, self.flow
        repeat = endpoint.repeats.find(head, now)
        if repeat is None or endpoint.is_draining:
            return False
        exchange, parcel, mark_bytes = repeat.exchange, repeat.parcel, flow.sent_bytes
        if not parcel.leave_by(flow):
            return False
        self._is_fresh = False
        self._request_count += 1
        sent_bytes = flow.sent_bytes - mark_bytes
        if sent_bytes < parcel.length_bytes:  # the rest waits, or the client has gone
            self._exchange = copy(exchange)
            self._exchange.move(self, mark_bytes, now)
            self._settle()
            return True
        exchange.remote = self.remote
        elapsed_s = monotonic() - now
        for observer in endpoint.observers:
            observer.exchange_over(exchange, sent_bytes, elapsed_s)
        if not exchange.keeps_alive:
            self._end()
        return True

    def _answer_known(self, head: bytes) -> bool:
        """Answer a request that was read before; False where it was not."""
        endpoint = self._endpoint
        request = endpoint.known_heads.find(head)
        if request is None:
            return False
        self._is_fresh = False
        exchange = self._begin(request)
        endpoint.repeats.add(head, exchange, monotonic())
        return True

    def _take(self, data: bytes, start: int) -> int:
        """Begin the exchange whose head begins at `start`; return the head's end, -1 for none."""
        limits = self._endpoint.limits
        try:
            end = find_head_end(data, start, limits)
            if end < 0:
                return -1
            request = self._read(data[start:end])
        except BadRequest as exc:
            self._refuse(exc)
            return len(data)
        self._begin(request).parcel = None  # nobody has asked for the same before
        return end

    def _read(self, head: bytes) -> Request:
        """Find the request that `head` makes, or parse and check it."""
        heads = self._endpoint.known_heads
        head = drop_trace(head)
        request = heads.find(head)
        if request is None:
            request = self._parse(head)
            heads.add(head, request)
        return request

    def _parse(self, head: bytes) -> Request:
        self._fields = []
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # we stay with HTTP/1.1, as RFC 9110 §7.8 allows; the parser goes on as well
        except httptools.HttpParserError as exc:
            raise BadRequest(400, f"malformed request: {exc}") from exc
        method = parser.get_method()
        return check_request(head, method, self._url, self._fields, self._endpoint.limits)

    def _begin(self, request: Request) -> ConnectionExchange:
        """Begin an exchange, and end it if it can be answered at once."""
        self._request_count += 1
        exchange = self._exchange = ConnectionExchange(self, request)
        if request.has_body or self._endpoint.is_draining:
            exchange.keeps_alive = False
            self._must_linger = True
        try:
            is_answered = self._endpoint.handler.respond_now(exchange)
            if is_answered and not exchange.is_answered:
                raise RuntimeError("the handler says that it has answered")
        except Exception:
            logger.exception("request failed %s", exchange)
            exchange.fail()
        if exchange.is_answered:
            self._settle()
        else:
            self._task = self._endpoint.spawn(self._run(exchange))
        return exchange

    async def _run(self, exchange: ConnectionExchange) -> None:
        """Await the handler's answer, whatever it comes to."""
        try:
            await self._endpoint.handler.respond(exchange)
            if not exchange.is_answered:
                raise RuntimeError("the handler returned without an answer")
        except ClientGone:
            self.abort()
        except Exception:
            logger.exception("request failed %s", exchange)
            exchange.fail()
        finally:
            self._task = None
            if not exchange.is_answered:
                self.abort()
            self._go_on()

    def _refuse(self, refused: BadRequest) -> None:
        exchange = self._exchange = ConnectionExchange(self, _NO_REQUEST)
        self._must_linger = True
        exchange.refuse(refused.status, refused.reason)
        self._settle()

    def _flow_ready(self) -> None:
        if self.flow.is_broken:
            self.abort()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Look for what there is to do now that something has ended."""
        self._is_scheduled = False
        self._settle()
        if self._exchange is not None or self._is_last:
            return
        self._advance()
        if self._is_eof and self._is_at_rest:
            self._close()
        self._control_reading()

    def _settle(self) -> None:
        """End the exchange if all of its response is with the kernel."""
        exchange = self._exchange
        flow = self.flow
        if exchange is None or not exchange.is_answered or self._task is not None:
            return
        if flow.is_broken:
            self.abort()
            return
        if flow.is_blocked:
            return
        self._note_over(exchange)
        if not exchange.keeps_alive:
            self._end()

    def _note_over(self, exchange: ConnectionExchange) -> None:
        self._exchange = None
        sent_bytes, elapsed_s = exchange.sent_bytes, exchange.elapsed_s
        for observer in self._endpoint.observers:
            observer.exchange_over(exchange, sent_bytes, elapsed_s)

    # Reading, and the end of it

    @property
    def _is_at_rest(self) -> bool:
        """Whether nothing is under way and nothing complete waits."""
        return self._exchange is None and not self._is_scheduled

    def _control_reading(self) -> None:
        """Stop reading while requests wait, and a whole head of them is here already."""
        if self._is_closed or self._is_last or self._is_eof:
            return
        must_pause = len(self._buffer) >= self._endpoint.limits.head_bytes
        if must_pause and not self._is_paused:
            self._transport.pause_reading()
        elif self._is_paused and not must_pause:
            self._transport.resume_reading()
        self._is_paused = must_pause

    def _end(self) -> None:
        """End the connection after a whole response."""
        self._is_last = True
        if not self._must_linger or self._is_eof:
            self._close()
            return
        self._is_lingering = True
        self._buffer = b""
        self.flow.shut_down()
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def _discard(self, count_bytes: int) -> None:
        self._lingered_bytes += count_bytes
        if self._lingered_bytes > self._endpoint.limits.linger_bytes:
            self.abort()

    def _close(self) -> None:
        self._is_last = True
        self.flow.close()
        self._transport.close()
