"""Raw HTTP/1.1 for the scripted upstream: exact control over every byte and every close."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.upstream_faults import Fault

_PIECE_BYTES = 64 * 1024


@dataclass(slots=True)
class Seen:
    """A request that arrived, and what became of it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]  # by lower-case name; repeated ones are joined by ", "
    kind: str = "other"
    repository: str = ""
    reference: str = ""
    status: int = 0
    sent_bytes: int = 0  # of the body, handed to the socket

    def header(self, name: str) -> str | None:
        """Give a header whatever its case."""
        return self.headers.get(name.lower())


@dataclass(slots=True)
class Answer:
    """A response. `Content-Length` is added unless it is there or the body is chunked."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class ConnectionDone(Exception):
    """The connection ends here, on purpose."""


async def read_request(reader: asyncio.StreamReader) -> Seen | None:
    """Read a request's head and drop its body; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers: dict[str, str] = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        key = name.strip().lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Seen(method, unquote(url.path), parse_qs(url.query), headers)


Handler = Callable[[Seen], Awaitable[tuple[Answer, Fault]]]


class Listener:
    """A listening socket on a loopback port of its own. An async context manager."""

    def __init__(
        self,
        handle: Handler,
        changed: Callable[[], None],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._handle = handle
        self._changed = changed
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.host = host
        self.port = port
        self.connections_count = 0  # accepted so far
        self.open_count = 0  # open now

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, self.host, self.port, ssl=self._tls, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and cut every connection; the port stays known for a later start."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_count += 1
        self.open_count += 1
        try:
            with suppress(ConnectionDone, ConnectionError):
                while (seen := await read_request(reader)) is not None:
                    await self._exchange(seen, writer)
        finally:
            self.open_count -= 1
            writer.close()
            self._changed()
            with suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()

    async def _exchange(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        answer, fault = await self._handle(seen)
        if fault.hold is not None:
            await fault.hold.wait()
        if fault.drop:
            reset(writer)
        await self._send(seen, answer, fault, writer)
        if seen.header("connection") == "close":
            raise ConnectionDone

    async def _send(
        self, seen: Seen, answer: Answer, fault: Fault, writer: asyncio.StreamWriter
    ) -> None:
        headers, is_chunked = _headers(answer, fault)
        reason = HTTPStatus(answer.status).phrase
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        seen.status = answer.status
        writer.write(f"HTTP/1.1 {answer.status} {reason}\r\n{head}\r\n".encode("latin-1"))
        if seen.method == "HEAD" or answer.status in (204, 304):
            return await writer.drain()
        await self._send_body(seen, answer.body, fault, writer, is_chunked=is_chunked)
        is_framed = is_chunked or headers.get("Content-Length") == str(len(answer.body))
        if not is_framed:
            raise ConnectionDone  # its end is the only sign of the body's end

    async def _send_body(
        self,
        seen: Seen,
        body: bytes,
        fault: Fault,
        writer: asyncio.StreamWriter,
        *,
        is_chunked: bool,
    ) -> None:
        offset = 0
        while True:
            await self._break_at(offset, fault, writer)
            if offset >= len(body):
                break
            piece = body[offset : _next_stop(offset, len(body), fault)]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
            await writer.drain()
            offset += len(piece)
            seen.sent_bytes = offset
            self._changed()
            if fault.drip_bytes:
                await asyncio.sleep(fault.drip_s)
        if is_chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _break_at(self, offset: int, fault: Fault, writer: asyncio.StreamWriter) -> None:
        if offset == fault.stall_at:
            assert fault.gate is not None
            await fault.gate.wait()
        if offset == fault.truncate_at or writer.is_closing():  # the peer may have left meanwhile
            raise ConnectionDone
        if offset == fault.reset_at:
            reset(writer)


def _headers(answer: Answer, fault: Fault) -> tuple[dict[str, str], bool]:
    headers = {"Content-Length": str(len(answer.body)), **answer.headers}
    is_chunked = fault.chunked
    if is_chunked:
        del headers["Content-Length"]
        headers["Transfer-Encoding"] = "chunked"
    for name, value in fault.headers.items():
        if value is None:
            headers.pop(name, None)
        else:
            headers[name] = value
    return headers, is_chunked


def _next_stop(offset: int, size: int, fault: Fault) -> int:
    stops = [size, offset + (fault.drip_bytes or _PIECE_BYTES)]
    breaks = (fault.stall_at, fault.truncate_at, fault.reset_at)
    return min(stops + [at for at in breaks if at is not None and at > offset])


def reset(writer: asyncio.StreamWriter) -> None:
    """Cut the connection with a RST, so that the peer sees `ECONNRESET`."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionDone
