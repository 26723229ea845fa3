"""The ordered output of one connection.

Invariant: bytes leave in the order they were given, each once; what does not fit into the socket
waits in a queue; when the flow is closed or the client has gone, every file that waited is
released and whoever waited is woken.

Output does not go through the event loop's transport, which knows no `sendfile` under uvloop and
would copy what it queues. It goes to a duplicate of the socket's descriptor, because uvloop does
not let a transport's own be watched. Two facts follow: the watch is removed *before* the duplicate
is closed (epoll would keep reporting it), and a duplicate left open holds back the stream's end.
"""

import asyncio
import fcntl
import logging
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from server.exchange import ClientGone
from server.sendfile import FileUnreadable, Span, push
from server.tcp_memory import MIN_QUEUE_BYTES, Memory

logger = logging.getLogger(__name__)

_MORE = socket.MSG_MORE
_INT = struct.Struct("i")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s
_TCP_NOTSENT_LOWAT = 25  # tcp(7); the socket module has no name for it


def duplicate(socket_fd: int) -> socket.socket:
    """Duplicate a connected socket, for output.

    To send, shut down and close is the same in every family, so none is asked for: uvloop's answer
    is an enum's member that is made anew, a twentieth of what a connection with one request costs.
    """
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, os.dup(socket_fd))


def tell_nobody() -> None:
    """Stand in for whoever was told before the flow was closed."""


class Flow(Protocol):
    """What an exchange asks of its connection's output; a copying one can stand in for TLS."""

    sent_bytes: int  # taken by the socket since the connection was made

    @property
    def is_blocked(self) -> bool:
        """Whether output waits for the client to read."""

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be sent any more; what is written then is dropped."""

    def count_delivered(self) -> int:
        """Count the bytes that the client's side has taken; asks the kernel."""

    def write(self, data: bytes, *, more: bool = False) -> None:
        """Send `data` after all that was given before; `more` follows at once."""

    def write_file(self, span: Span) -> None:
        """Send a span after all that was given before; takes over its hold of the file."""

    def mind_memory(self, given_bytes: int = 0) -> None:
        """Have the socket queue as much from now on as the kernel's memory is good for.

        `given_bytes`: that many of a large body will be given to `write`.
        """

    async def wait_drained(self) -> None:
        """Wait until the socket has taken everything. Raises `ClientGone`.

        One caller at a time. Safe to cancel, but what is queued stays queued.
        """

    def shut_down(self) -> None:
        """End the stream towards the client; receiving goes on."""

    def close(self, *, reset: bool = False) -> None:
        """Drop what waits and let go of the socket; `reset` makes its end visibly abnormal.

        Idempotent. The connection ends once the transport is closed as well.
        """


class SocketFlow:
    """A flow straight into a plain TCP or unix socket, which it owns."""

    __slots__ = ("_bound_bytes", "_is_closed", "_loop", "_memory", "_queue", "_ready", "_sock",
                 "_waiter", "is_broken", "sent_bytes")  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        memory: Memory,
        ready: Callable[[], None],
    ) -> None:
        """`ready` is called when output that had waited has left, or cannot leave any more."""
        self._sock = sock
        self._loop = loop
        self._memory = memory
        self._ready = ready
        self._bound_bytes = 0  # on what the socket queues; 0 = none
        self._queue: deque[memoryview | Span] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self.is_broken = False
        self.sent_bytes = 0

    @property
    def is_blocked(self) -> bool:
        """Whether output waits for the client to read."""
        return bool(self._queue)

    def count_delivered(self) -> int:
        """Count the bytes that the client's side has taken; asks the kernel.

        `sent_bytes` is no measure of a client's progress: once the socket is full it does not move
        until half of what it queues has left, which may be two megabytes.
        """
        if self._is_closed:
            return self.sent_bytes
        (queued,) = _INT.unpack(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(_INT.size)))
        return self.sent_bytes - int(queued)

    def write(self, data: bytes, *, more: bool = False) -> None:
        """Send `data` after all that was given before; `more` follows at once."""
        if self._queue:
            self._queue.append(memoryview(data))
        elif not self.is_broken:
            # As `_send`, which would be a call more for each hit.
            try:
                sent = self._sock.send(data, _MORE if more else 0)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._break()
                return
            self.sent_bytes += sent
            if sent < len(data):
                self._block(memoryview(data)[sent:])

    def write_file(self, span: Span) -> None:
        """Send a span after all that was given before; takes over its hold of the file."""
        if self.is_broken:
            span.release()
            return
        if self._queue:
            self._queue.append(span)
            return
        if span.end - span.offset > MIN_QUEUE_BYTES:
            self.mind_memory()
        if not self._push_span(span):
            self._block(span)

    def mind_memory(self, given_bytes: int = 0) -> None:
        """Have the socket queue as much from now on as the kernel's memory is good for."""
        self._memory.sent_bytes += given_bytes
        bound_bytes = self._memory.bound_queue()
        if bound_bytes != self._bound_bytes:
            self._bound_bytes = bound_bytes
            # A unix socket has no such bound, and a small buffer; one that is closed sends nothing.
            with suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, bound_bytes)

    async def wait_drained(self) -> None:
        """Wait until the socket has taken everything. Raises `ClientGone`."""
        if self._queue:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self.is_broken:
            raise ClientGone

    def shut_down(self) -> None:
        """End the stream towards the client; receiving goes on."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._break()  # not connected any more

    def close(self, *, reset: bool = False) -> None:
        """Drop what waits and let go of the socket; `reset` makes its end visibly abnormal."""
        if self._is_closed:
            return
        self._is_closed = True
        self._break()
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()
        # With the way back cut, a connection is freed when it ends; hundreds a second would have
        # the collector look for their circles all the time.
        self._ready = tell_nobody

    def _send(self, data: memoryview) -> int:
        """Send what the socket takes now; a broken flow takes all, into nowhere."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._break()  # the client has gone, which is normal
            return len(data)
        self.sent_bytes += sent
        return sent

    def _push_bytes(self, data: memoryview) -> bool:
        """As `_push_span`, of the first bytes in the queue."""
        sent = self._send(data)
        if sent == len(data):
            return True
        self._queue[0] = data[sent:]
        return False

    def _push_span(self, span: Span) -> bool:
        """Send what the socket takes of `span`; return whether nothing of it is left to send."""
        try:
            sent = push(self._sock.fileno(), span)
            self.sent_bytes += sent
            self._memory.sent_bytes += sent
        except FileUnreadable:
            logger.exception("sendfile failed")
            self._break()
        except OSError:
            self._break()  # the client has gone, which is normal
        if span.offset < span.end and not self.is_broken:
            return False
        span.release()
        return True

    def _block(self, rest: memoryview | Span) -> None:
        self._queue.append(rest)
        self._loop.add_writer(self._sock.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        queue = self._queue
        self.mind_memory()
        while queue:
            first = queue[0]
            if not (self._push_span(first) if isinstance(first, Span) else self._push_bytes(first)):
                return
            if queue:  # a break has emptied it
                queue.popleft()
        if not self.is_broken:
            self._loop.remove_writer(self._sock.fileno())
            self._wake()
        self._ready()

    def _break(self) -> None:
        """Give up output: release what waits, wake who waits."""
        if self.is_broken:
            return
        self.is_broken = True
        if self._queue:
            self._loop.remove_writer(self._sock.fileno())
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, Span):
                item.release()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
