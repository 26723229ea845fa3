"""The lines that end every response head, and the framing of bodies. Pure.

Invariant: every response bears `Date` (RFC 9110 §6.6.1) and the configured extra headers, and says
`Connection` exactly where it differs from what its version implies (RFC 9112 §9.3).
"""

from email.utils import formatdate

# What the `Connection` line of a response may be.
PERSISTENT = b""
KEEP_ALIVE = b"Connection: keep-alive\r\n"  # to a client of HTTP/1.0 that asked for it
CLOSE = b"Connection: close\r\n"

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def content_length(length: int) -> bytes:
    """The header line that frames a body of `length` bytes."""
    return b"Content-Length: %d\r\n" % length


def chunk_start(length: int) -> bytes:
    """The line that opens a chunk of `length` bytes, which CRLF ends (RFC 9112 §7.1)."""
    return b"%x\r\n" % length


class HeadEnds:
    """Makes the end of heads, at most once a second for each kind of connection."""

    __slots__ = ("_ends", "_extra", "_second")

    def __init__(self, extra: tuple[tuple[str, str], ...] = ()) -> None:
        self._ends: dict[bytes, bytes] = {}
        self.adopt(extra)

    def adopt(self, extra: tuple[tuple[str, str], ...]) -> None:
        """Have other extra headers from now on."""
        self._extra = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in extra)
        self._second = -1

    def at(self, now: float, connection: bytes) -> bytes:
        """Give the end of a head that leaves at `now` (unix seconds), empty line included."""
        second = int(now)
        if second != self._second:
            self._second = second
            date = f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
            common = date + self._extra
            self._ends = {line: common + line + b"\r\n" for line in (PERSISTENT, KEEP_ALIVE, CLOSE)}
        return self._ends[connection]
