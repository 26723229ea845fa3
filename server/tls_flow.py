"""The ordered output of a TLS connection: a flow that copies.

Invariant: as of any flow, bytes leave in order and each once, and files are released whatever
happens. At most `PIECE_BYTES` of one connection are encrypted ahead of what its socket takes, so a
slow reader of a large blob costs that much memory and not the blob.

What is encrypted goes through a `SocketFlow`, which knows what a socket can take and when.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable

from server.exchange import ClientGone
from server.flow import SocketFlow, tell_nobody
from server.sendfile import FileUnreadable, Span, take
from server.tcp_memory import Memory
from server.tls_channel import Channel

logger = logging.getLogger(__name__)

# A body of 64 KiB leaves together with its head. From 32 to 256 KiB the CPU is the same to within a
# tenth, but a connection keeps OpenSSL's buffer of this size for as long as it lives.
PIECE_BYTES = 80 * 1024
# What one connection may encrypt in one turn of the loop, about a millisecond's work.
TURN_BYTES = 2 * 1024 * 1024


class TLSFlow:
    """A flow through a channel into a socket; it owns the socket. See `server.flow.Flow`."""

    __slots__ = (
        "_channel", "_is_closed", "_is_scheduled", "_loop", "_memory", "_queue", "_ready",
        "_socket", "_unsent_bytes", "_waiter", "is_broken", "sent_bytes",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        memory: Memory,
        channel: Channel,
        ready: Callable[[], None],
    ) -> None:
        """`ready` is called when output that had waited has left, or cannot leave any more."""
        self._socket = SocketFlow(sock, loop, memory, self._on_socket_ready)
        self._loop = loop
        self._memory = memory
        self._channel = channel
        self._ready = ready
        self._queue: deque[memoryview | Span] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_scheduled = False
        self._is_closed = False
        self._unsent_bytes = 0  # encrypted, and not all with the kernel yet
        self.is_broken = False
        self.sent_bytes = 0  # before encryption

    @property
    def is_blocked(self) -> bool:
        """Whether output waits for the client to read."""
        return bool(self._queue) or self._socket.is_blocked

    def count_delivered(self) -> int:
        """Count the bytes, encrypted, that the client's side has taken; asks the kernel."""
        return self._socket.count_delivered()

    def write(self, data: bytes, *, more: bool = False) -> None:
        """Send `data` after all that was given before; `more` follows at once."""
        if self.is_broken:
            return
        if more or len(data) > PIECE_BYTES or self.is_blocked:
            self._queue.append(memoryview(data))
            if not more:
                self._pump()
        else:
            self._send(data)

    def write_file(self, span: Span) -> None:
        """Send a span after all that was given before; takes over its hold of the file."""
        if self.is_broken:
            span.release()
            return
        self._queue.append(span)
        if span.end - span.offset > PIECE_BYTES:
            self._socket.mind_memory()
        self._pump()

    def mind_memory(self, given_bytes: int = 0) -> None:
        """Have the socket queue as much from now on as the kernel's memory is good for."""
        self._socket.mind_memory(given_bytes)

    def write_handshake(self) -> None:
        """Send what TLS itself has to say."""
        output = self._channel.take_output()
        if output:
            self._socket.write(output)

    def write_plain(self, data: bytes) -> None:
        """Send `data` as it is, to a client that does not speak TLS."""
        self._socket.write(data)

    async def wait_drained(self) -> None:
        """Wait until the socket has taken everything. Raises `ClientGone`."""
        if self.is_blocked:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self.is_broken:
            raise ClientGone

    def shut_down(self) -> None:
        """End the stream towards the client; receiving goes on."""
        self._say_end()
        self._socket.shut_down()

    def close(self, *, reset: bool = False) -> None:
        """Drop what waits and let go of the socket; `reset` makes its end visibly abnormal.

        Without `reset` the client is told that the stream ends here, unless some of it is missing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if not reset and not self.is_blocked:
            self._say_end()
        self._break()
        self._socket.close(reset=reset)
        self._ready = tell_nobody  # as a plain flow does

    def _say_end(self) -> None:
        if self._channel.is_established and not self.is_broken:
            self._socket.write(self._channel.end())

    def _send(self, piece: bytes | memoryview) -> None:
        self._socket.write(self._channel.encrypt(piece))
        if self._socket.is_broken:
            self._break()
        elif self._socket.is_blocked:
            self._unsent_bytes = len(piece)
        else:
            self.sent_bytes += len(piece)

    def _pump(self) -> None:
        """Encrypt and send, until the socket is full or others must have their turn."""
        if self._is_scheduled:
            return
        left_bytes = TURN_BYTES
        while self._queue and not self._socket.is_blocked:
            if left_bytes <= 0:
                self._is_scheduled = True
                self._loop.call_soon(self._on_turn)
                return
            try:
                piece = self._take()
            except FileUnreadable:
                logger.exception("sending a file failed")
                self._break()
                return
            left_bytes -= len(piece)
            self._send(piece)

    def _take(self) -> bytes | memoryview:
        """Take a piece from the front of what waits: a head and its body share records."""
        parts: list[bytes | memoryview] = []
        room_bytes = PIECE_BYTES
        while self._queue and room_bytes:
            part = self._take_first(room_bytes)
            parts.append(part)
            room_bytes -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_first(self, max_bytes: int) -> bytes | memoryview:
        item = self._queue[0]
        if isinstance(item, Span):
            part: bytes | memoryview = take(item, max_bytes)
            self._memory.sent_bytes += len(part)
            is_over = item.offset >= item.end
            if is_over:
                item.release()
        else:
            part, self._queue[0] = item[:max_bytes], item[max_bytes:]
            is_over = len(part) == len(item)
        if is_over:
            self._queue.popleft()
        return part

    def _on_socket_ready(self) -> None:
        if self._socket.is_broken:
            self._break()
        else:
            self.sent_bytes += self._unsent_bytes
        self._unsent_bytes = 0
        self._go_on()

    def _on_turn(self) -> None:
        self._is_scheduled = False
        if not self._is_closed:
            self._go_on()

    def _go_on(self) -> None:
        self._pump()
        if self.is_broken or not self.is_blocked:
            self._wake()
            self._ready()

    def _break(self) -> None:
        """Give up output: release what waits, wake who waits."""
        self.is_broken = True
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, Span):
                item.release()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
