"""Bytes to and from a mirror, for tests of what no HTTP library would send or tell."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

_TIMEOUT_S = 30.0
# A server that waits for the end of a request gives up after 10 s; one that needs none is sooner.
AT_ONCE_S = 8.0


@dataclass(frozen=True, slots=True)
class Response:
    """One response among several; header names are in lower case."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


class Wire:
    """A connection to a mirror."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    @property
    def port(self) -> int:
        """Our own end's."""
        return int(self._sock.getsockname()[1])

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._sock.sendall(data)

    def shut_down(self) -> None:
        """Send no more, and go on receiving."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave in a way that the mirror notices at once, whatever it is at."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def receive_end(self) -> bytes:
        """Give all that comes until the mirror closes; a reset is an end too."""
        data, self._buffer = self._buffer, bytearray()
        try:
            while piece := self._sock.recv(64 * 1024):
                data += piece
        except ConnectionResetError:
            pass
        return bytes(data)

    def receive(self, method: str = "GET") -> Response:
        """Receive one response to a request by `method`, and leave what follows it."""
        head = self.receive_head()
        if method == "HEAD" or head.status in (204, 304):
            return head
        return replace(head, body=self.receive_body(head))

    def receive_head(self) -> Response:
        """Receive the head of a response, and leave its body."""
        head = self._take_past(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        version, status, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Response(version, int(status), headers, b"")

    def receive_body(self, head: Response) -> bytes:
        """Receive the body that follows `head`."""
        if head.headers.get("transfer-encoding") != "chunked":
            length = head.headers.get("content-length")
            return self.receive_end() if length is None else self.receive_bytes(int(length))
        body = b""
        while size := int(self._take_past(b"\r\n"), 16):
            body += self.receive_bytes(size)
            assert self.receive_bytes(2) == b"\r\n"
        assert self._take_past(b"\r\n") == b"\r\n"
        return body

    def receive_bytes(self, count: int) -> bytes:
        """Receive so many bytes. Raises `EOFError` where the connection ends before."""
        while len(self._buffer) < count:
            self._fill()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _take_past(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._fill()
        end = self._buffer.index(mark) + len(mark)
        return self.receive_bytes(end)

    def _fill(self) -> None:
        piece = self._sock.recv(64 * 1024)
        if not piece:
            raise EOFError(bytes(self._buffer))
        self._buffer += piece


@contextmanager
def connect(address: str, timeout_s: float = _TIMEOUT_S) -> Iterator[Wire]:
    """Connect to `address` (host:port); the connection ends with the block.

    Whatever waits for longer than `timeout_s` raises `TimeoutError`.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout_s) as sock:
        yield Wire(sock)


def request(target: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Write a request without a body."""
    head = [f"{method} {target} HTTP/{version}", "Host: mirror.test", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
