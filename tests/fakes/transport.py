"""A handler by paths, a server of it on loopback, a raw client, and a transport without a network.

What a path answers is in its name, so that a test says what it needs where it asks for it:
`/hit/N`, `/file/N` are answered at once with N bytes by `send`, `send_file`; `/task/N`,
`/chunks/N`, `/spans/N` by a task: with a length, without one, from a file descriptor; `/hang` waits
for `release`, `/half` stops in the middle of its body; `/late/N` sends once `release` is set;
`/impatient/N` closes its file while the client has not read all of it.
"""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.hot import OpenFile
from server.endpoint import Endpoint
from server.exchange import Exchange
from server.limits import Limits
from server.protocol import Connection
from server.tcp_memory import Plenty

PIECE_BYTES = 10_000


def pattern(length: int) -> bytes:
    """Bytes whose every part differs from its neighbours, so that misplaced ones show."""
    return (b"%07d\n" * 1000 % tuple(range(1000)) * (length // 8000 + 1))[:length]


def head_of(length: int | None, status: bytes = b"200 OK") -> bytes:
    line = b"" if length is None else b"Content-Length: %d\r\n" % length
    return b"HTTP/1.1 %b\r\n%b" % (status, line)


class ScriptedHandler:
    """Answers by the path's first component; see the module's docstring."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.targets: list[bytes] = []
        self.headers: list[bytes | None] = []
        self.names: list[str | None] = []
        self.release = asyncio.Event()
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    def respond_now(self, exchange: Exchange) -> bool:
        self.targets.append(exchange.target)
        self.headers.append(exchange.header(b"x-test"))
        self.names.append(exchange.certificate_name)
        name, length = _split(exchange.target)
        if name == b"hit":
            exchange.send(head_of(length), b"" if exchange.method == b"HEAD" else pattern(length))
        elif name == b"file":
            exchange.send_file(head_of(length), self._open(length), 0, length)
        elif name == b"short":  # the file holds less than the head says
            exchange.send_file(head_of(length), self._open(length // 2), 0, length)
        elif name == b"crash":
            raise LookupError("a bug in the hit path")
        elif name == b"liar":
            return True
        return name in (b"hit", b"file", b"short")

    async def respond(self, exchange: Exchange) -> None:
        name, length = _split(exchange.target)
        self.started.set()
        try:
            await self._answer(exchange, name, length)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _answer(self, exchange: Exchange, name: bytes, length: int) -> None:
        match name:
            case b"task" | b"chunks":
                await self._stream(exchange, length, None if name == b"chunks" else length)
            case b"spans" | b"chunkspans":
                await self._span(exchange, length, None if name == b"chunkspans" else length)
            case b"hang":
                await self.release.wait()
                exchange.send(head_of(0))
            case b"late":
                await self.release.wait()
                await self._stream(exchange, length, length)
            case b"half":
                await exchange.start(head_of(None), length)
                await exchange.write(pattern(length // 2))
                await self.release.wait()
                raise LookupError("a bug in the middle of a body")
            case b"lacking" | b"excess":
                await exchange.start(head_of(None), length)
                await exchange.write(pattern(length // 2 if name == b"lacking" else length + 1))
                exchange.finish()
            case b"impatient":
                await self._span_in_vain(exchange, length)
            case b"cut":
                await exchange.start(head_of(None), None)
                await exchange.write(pattern(length))
                exchange.abort()
            case b"bug":
                raise LookupError("a bug before the head")
            case _:
                return  # without an answer

    async def _stream(self, exchange: Exchange, total: int, length: int | None) -> None:
        await exchange.start(head_of(None), length)
        body = pattern(total)
        for start in range(0, total, PIECE_BYTES):
            await exchange.write(body[start : start + PIECE_BYTES])
        exchange.finish()

    async def _span(self, exchange: Exchange, total: int, length: int | None) -> None:
        file = self._open(total)
        try:
            await exchange.start(head_of(None), length)
            for start in range(0, total, PIECE_BYTES * 100):
                end = min(total, start + PIECE_BYTES * 100)
                await exchange.write_file(file.fd, start, end)
        finally:
            file.release()
        exchange.finish()

    async def _span_in_vain(self, exchange: Exchange, length: int) -> None:
        file = self._open(length)
        await exchange.start(head_of(None), length)
        try:
            async with asyncio.timeout(0.01):
                await exchange.write_file(file.fd, 0, length)
        except TimeoutError:
            file.release()
            await self.release.wait()

    def _open(self, length: int) -> OpenFile:
        path = self._path / str(length)
        if not path.exists():
            path.write_bytes(pattern(length))
        return OpenFile(os.open(path, os.O_RDONLY))


def _split(target: bytes) -> tuple[bytes, int]:
    name, _, length = target.partition(b"?")[0].lstrip(b"/").partition(b"/")
    return name, int(length or 0)


@dataclass(slots=True)
class Over:
    """An exchange as an observer saw its end."""

    target: bytes
    status: int
    sent_bytes: int
    cause: str


@dataclass(slots=True)
class Records:
    """An observer that keeps what it sees."""

    all: list[Over] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def exchange_over(self, exchange: Exchange, sent_bytes: int, duration_s: float) -> None:
        assert duration_s >= 0
        self.all.append(Over(exchange.target, exchange.status, sent_bytes, exchange.cause))
        self._changed.set()

    async def wait_for(self, count: int) -> None:
        """Wait until so many exchanges are over."""
        while len(self.all) < count:
            self._changed.clear()
            await self._changed.wait()


@dataclass(slots=True)
class Response:
    """A response as a client read it."""

    status: int
    fields: dict[str, str]
    body: bytes


class Client:
    """A raw client: it sends what it is told, and reads one response at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def get(self, target: str, *lines: str, method: str = "GET") -> Response:
        extra = "".join(f"{line}\r\n" for line in lines)
        self.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode())
        return await self.read(has_body=method != "HEAD")

    async def read(self, *, has_body: bool = True) -> Response:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.splitlines()[:-1]
        fields = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
        body = await self._read_body(fields) if has_body else b""
        return Response(int(first.split()[1]), fields, body)

    async def _read_body(self, fields: dict[str, str]) -> bytes:
        if "content-length" in fields:
            return await self.reader.readexactly(int(fields["content-length"]))
        if fields.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        assert await self.reader.readexactly(2) == b"\r\n"
        return body

    async def read_end(self) -> bytes:
        """Read to the end of the stream; raises ConnectionResetError for a reset."""
        return await self.reader.read()

    def reset(self) -> None:
        """Close so that the server sees it at once, unlike the end of a stream (half a close)."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def aclose(self) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            return


class ScriptedMemory(Plenty):
    """The kernel's memory for TCP, as the test has it."""

    def __init__(self, queue_bytes: int = 0) -> None:
        self.queue_bytes = queue_bytes

    def bound_queue(self) -> int:
        return self.queue_bytes


@dataclass(slots=True)
class Site:
    """A scripted endpoint on loopback."""

    endpoint: Endpoint
    handler: ScriptedHandler
    records: Records
    port: int
    server: asyncio.Server
    tls: ssl.SSLContext | None = None  # what its clients begin with
    clients: list[Client] = field(default_factory=list)

    async def connect(self, *, receive_buffer_bytes: int | None = None) -> Client:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await self.endpoint.loop.sock_connect(sock, ("127.0.0.1", self.port))
        name = None if self.tls is None else "127.0.0.1"
        reader, writer = await asyncio.open_connection(
            sock=sock, limit=2**16, ssl=self.tls, server_hostname=name
        )
        client = Client(reader, writer)
        self.clients.append(client)
        return client


@asynccontextmanager
async def open_site(
    path: Path,
    limits: Limits | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    connect: Callable[[Endpoint], Connection] = Connection,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Site]:
    """Serve a `ScriptedHandler` whose files are under `path`.

    `connect` makes connections, to which clients speak as `tls` has it.
    """
    handler, records = ScriptedHandler(path), Records()
    endpoint = Endpoint(handler, headers=headers, limits=limits, observers=(records,))
    server = await endpoint.loop.create_server(lambda: connect(endpoint), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    site = Site(endpoint, handler, records, port, server, tls)
    try:
        yield site
    finally:
        server.close()
        for client in site.clients:
            await client.aclose()
        await endpoint.drain(0)
        await server.wait_closed()


class MemoryTransport(asyncio.Transport):
    """A transport whose reading side is called by the test; output is read from `peer`."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._sock, self.peer = socket.socketpair()
        self._sock.setblocking(False)
        self.peer.setblocking(False)
        self.reading_calls: list[str] = []
        self._is_lost = False
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"socket": self._sock, "peername": ("192.0.2.1", 4321)}.get(name, default)

    def pause_reading(self) -> None:
        self.reading_calls.append("pause")

    def resume_reading(self) -> None:
        self.reading_calls.append("resume")

    def is_closing(self) -> bool:
        return self._is_lost

    def close(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.close()

    def _lose(self) -> None:
        self._protocol.connection_lost(None)
        self._sock.close()

    def finish(self) -> None:
        """Lose the connection and close both sides."""
        if not self._is_lost:
            self._is_lost = True
            self._lose()
        self.peer.close()

    def read_output(self) -> bytes:
        """Read what has been sent to the client so far."""
        output = b""
        try:
            while piece := self.peer.recv(2**20):
                output += piece
        except BlockingIOError:
            return output
        return output
