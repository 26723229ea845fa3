"""One request and its response on a connection: the seam between transport and API.

The transport (protocol, flow, sendfile) makes exchanges; the API (routes, manifests, blobs, tags,
referrers) answers each exactly once, by `send`, by `send_file`, or by `start` … `finish`.

A head is the status line and header lines, each ending in CRLF, without the empty line: the
exchange adds `Date`, the configured extra headers, `Connection` and, with `start`, framing:
`Content-Length` is in the heads of `send` and `send_file`, and never in those of `start`.
"""

from typing import Protocol

from engine.hot import OpenFile
from server.series import Place

# The cause of what ended without anybody's fault.
CLIENT_GONE = "the client has gone"


class ClientGone(Exception):
    """The client closed or reset the connection, or stopped reading: a normal thing."""


class Exchange(Protocol):
    """What the API may ask of the transport."""

    method: bytes  # b"GET", b"HEAD", …
    target: bytes  # the request target in origin form; an absolute one's authority is the Host
    http_version: str  # "1.1" or "1.0"
    remote: str  # the client's address, for logs

    # Set by the API for the access log.
    status: int
    cache_status: str
    upstream: str
    digest: str
    cause: str  # why it is not a success; empty otherwise

    request_id: str  # see server/request_id.py; empty for what has not failed

    # From the request to the head of a streamed response; None for all others.
    first_byte_s: float | None
    place: Place | None  # belongs to the counters: where it is counted

    def header(self, name: bytes) -> bytes | None:
        """Give a request header by its lower-case name; repeated lines are joined by `, `."""

    def send(self, head: bytes, body: bytes = b"") -> None:
        """Answer in one write. `Content-Length` is in the head. Never blocks."""

    def send_file(self, head: bytes, file: OpenFile, start: int, end: int) -> None:
        """Answer with bytes `start` up to without `end` of `file`; never blocks.

        Takes over one hold of `file` and releases it when all is sent or the client is gone.
        """

    async def start(self, head: bytes, length: int | None) -> None:
        """Send the head of a streamed response.

        `length` is what the `Content-Length` added here says; None = unknown: framed by chunks for
        HTTP/1.1, by the connection's close for 1.0. Raises `ClientGone`.
        """

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; returns when the socket has taken it. Raises `ClientGone`."""

    async def write_file(self, fd: int, start: int, end: int) -> None:
        """Send a piece of the body by `sendfile`. The caller keeps `fd`. Raises `ClientGone`."""

    def finish(self) -> None:
        """The body is complete."""

    def abort(self) -> None:
        """Cut the connection so that no client can take what was sent for the whole body."""


class Handler(Protocol):
    """The API as the transport sees it."""

    def respond_now(self, exchange: Exchange) -> bool:
        """Answer by `send` or `send_file` without waiting and return True, else do nothing.

        Called while the connection has nothing else under way; it must not block.
        """

    async def respond(self, exchange: Exchange) -> None:
        """Answer what `respond_now` left; runs in a task of its own.

        Cancelled once the client has gone. What it raises is logged and becomes a 500, or cuts the
        connection where a head has left; `ClientGone` may pass through it.
        """
