"""One request and its response on a connection of ours: `server.exchange.Exchange`.

Invariant: exactly one head leaves; the body that follows has the length that the head says, or the
connection is cut so that no client can take it for whole.
"""

import asyncio
from time import monotonic, time
from typing import Protocol

from engine.hot import Content, OpenFile
from server.errors import describe_own
from server.exchange import ClientGone
from server.flow import Flow
from server.framing import (
    CHUNKED,
    CLOSE,
    KEEP_ALIVE,
    LAST_CHUNK,
    PERSISTENT,
    HeadEnds,
    chunk_start,
    content_length,
)
from server.logs import leave_query_out
from server.parcel import Parcel
from server.reply import send_problem
from server.request import HTTP_10, HTTP_11, Request
from server.request_id import identify
from server.sendfile import Span
from server.series import Place


class Line(Protocol):
    """What an exchange needs of the connection it is on."""

    @property
    def flow(self) -> Flow:
        """Its output."""

    @property
    def remote(self) -> str:
        """The client's address."""

    @property
    def certificate_name(self) -> str | None:
        """Whose client certificate was verified; see `Exchange`."""

    @property
    def head_ends(self) -> HeadEnds:
        """What every head ends with."""

    def abort(self) -> None:
        """Reset the connection."""


class ConnectionExchange:
    """An exchange; see `server.exchange.Exchange` for what its users may do."""

    __slots__ = (
        "_fields", "_is_chunked", "_left_bytes", "_line", "_mark_bytes",
        "_started_at", "cache_status", "cause", "certificate_name", "digest", "first_byte_s",
        "http_version", "is_answered", "is_started", "keeps_alive", "method", "parcel", "place",
        "remote", "request_id", "stands_on", "status", "target", "upstream", "user",
    )  # fmt: skip

    def __init__(self, line: Line, request: Request) -> None:
        self.method, self.target, self.http_version, self._fields, _, self.keeps_alive = request
        self.remote = line.remote
        self.certificate_name = line.certificate_name
        self.status = 0
        self.cache_status = ""
        self.upstream = ""
        self.digest = ""
        self.cause = ""
        self.stands_on: Content | None = None
        self.parcel: Parcel | None = None  # the answer, where it stands on something
        self.request_id = ""
        self.first_byte_s: float | None = None
        self.user = ""
        self.place: Place | None = None
        self.is_started = False  # a head has left
        self.is_answered = False  # all of the response is with the flow, or none will be any more
        self._line = line
        self._mark_bytes = line.flow.sent_bytes
        self._started_at = monotonic()
        self._left_bytes: int | None = 0  # of a streamed body; None where its length is not known
        self._is_chunked = False

    def __str__(self) -> str:
        return (
            f"method={self.method!r} path={leave_query_out(self.target)!r}"
            f" request_id={identify(self)}"
        )

    def header(self, name: bytes) -> bytes | None:
        """Give a request header by its lower-case name; repeated lines are joined by `, `."""
        return self._fields.get(name)

    @property
    def sent_bytes(self) -> int:
        """What the socket has taken of the response, head and framing included."""
        return self._line.flow.sent_bytes - self._mark_bytes

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request's head was complete."""
        return monotonic() - self._started_at

    def send(self, head: bytes, body: bytes = b"") -> None:
        """Answer in one write. `Content-Length` is in the head. Never blocks."""
        wire = b"".join((head, self._end_head(head), body))
        self._line.flow.write(wire)
        self.is_answered = True
        if self.stands_on is not None:
            self.parcel = Parcel(wire)

    def send_file(self, head: bytes, file: OpenFile, start: int, end: int) -> None:
        """Answer with bytes `start` up to without `end` of `file`; never blocks."""
        flow = self._line.flow
        # Head and body in one packet, without having the body here.
        wire = head + self._end_head(head)
        flow.write(wire, more=end > start)
        if end > start:
            flow.write_file(Span(file.fd, start, end, file))
            if self.stands_on is not None:
                self.parcel = Parcel(wire, file, start, end)
        else:
            file.release()
        self.is_answered = True

    async def start(self, head: bytes, length: int | None) -> None:
        """Send the head of a streamed response. Raises `ClientGone`."""
        flow = self._line.flow
        self._left_bytes = length
        self.first_byte_s = self.elapsed_s
        if length is not None:
            framing = content_length(length)
        elif self.http_version == HTTP_11:
            framing = CHUNKED
            self._is_chunked = True
        else:
            framing = b""
            self.keeps_alive = False
        flow.write(b"".join((head, framing, self._end_head(head))))
        await flow.wait_drained()

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; returns when the socket has taken it. Raises `ClientGone`."""
        flow = self._line.flow
        if data:
            self._spend(len(data))
            if self._is_chunked:
                data = b"%b%b\r\n" % (chunk_start(len(data)), data)
            flow.mind_memory(len(data))
            flow.write(data)
        await flow.wait_drained()

    async def write_file(self, fd: int, start: int, end: int) -> None:
        """Send a piece of the body by `sendfile`. The caller keeps `fd`. Raises `ClientGone`."""
        flow = self._line.flow
        if end > start:
            self._spend(end - start)
            if self._is_chunked:
                flow.write(chunk_start(end - start), more=True)
            flow.write_file(Span(fd, start, end))
            if self._is_chunked:
                flow.write(b"\r\n")
        try:
            await flow.wait_drained()
        except asyncio.CancelledError:
            # The caller will close `fd`; nothing of it may wait in the flow any longer.
            self.abort()
            raise

    def finish(self) -> None:
        """The body is complete."""
        if self._left_bytes:
            self.abort()
            raise RuntimeError(f"{self._left_bytes} bytes of the body are missing")
        if self._is_chunked:
            self._line.flow.write(LAST_CHUNK)
        self.is_answered = True

    def abort(self) -> None:
        """Cut the connection so that no client can take what was sent for the whole body."""
        self.cause = self.cause or "aborted"
        self.keeps_alive = False
        self.is_answered = True  # there is nothing more to come
        self._line.abort()

    def fail(self) -> None:
        """Answer for a handler that has failed: 500, or a cut where a head has left."""
        self.cause = self.cause or "internal error"
        if self.is_started and not self.is_answered:
            self.abort()
        elif not self.is_answered:
            self.refuse(500, "internal error")

    def refuse(self, status: int, reason: str) -> None:
        """Answer with an error of the transport's own."""
        send_problem(self, describe_own(status, reason))

    def move(self, line: Line, mark_bytes: int, started_at: float) -> None:
        """Go over to a line, which had sent `mark_bytes` when the same answer began to leave."""
        self.remote = line.remote
        self._line = line
        self._mark_bytes = mark_bytes
        self._started_at = started_at

    def _end_head(self, head: bytes) -> bytes:
        if self.is_started:
            raise RuntimeError("answered twice")
        self.is_started = True
        if not self.status:
            self.status = int(head[9:12])
        if not self.keeps_alive:
            connection = CLOSE
        elif self.http_version == HTTP_10:
            connection = KEEP_ALIVE
        else:
            connection = PERSISTENT
        return self._line.head_ends.at(time(), connection)

    def _spend(self, count_bytes: int) -> None:
        if self._line.flow.is_broken:
            raise ClientGone
        if self._left_bytes is not None:
            self._left_bytes -= count_bytes
            if self._left_bytes < 0:
                self.abort()
                raise RuntimeError(f"the body is {-self._left_bytes} bytes too long")
