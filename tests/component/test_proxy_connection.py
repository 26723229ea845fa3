"""Connections by the PROXY protocol: who is believed, in what pieces, and who is cut off."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.endpoint import Endpoint, Peer
from server.exchange import Exchange
from server.limits import Limits
from server.networks import Networks
from server.protocol import Connection
from server.proxy_connection import ProxiedConnection, ProxyFaults
from server.response import build_head, content_length
from tests.fakes.proxy_protocol import LOCAL, UNSPECIFIED, binary_header, binary_header_from
from tests.fakes.transport import Client, MemoryTransport

pytestmark = pytest.mark.anyio

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEADER = binary_header_from("192.0.2.77")
MEMORY_PEER = "192.0.2.1"  # as MemoryTransport has it


class Mirror:
    """A handler that tells each client the address it is known by."""

    def respond_now(self, exchange: Exchange) -> bool:
        body = exchange.remote.encode()
        exchange.send(build_head(200, [content_length(len(body))]), body)
        return True

    async def respond(self, exchange: Exchange) -> None:
        raise AssertionError("nothing is left to it")


class Watched(Endpoint):
    """An endpoint that says when it has admitted a connection."""

    def __init__(self, limits: Limits | None) -> None:
        super().__init__(Mirror(), limits=limits)
        self.admitted = asyncio.Event()

    def admit(self, peer: Peer) -> bool:
        is_admitted = super().admit(peer)
        if is_admitted:
            self.admitted.set()
        return is_admitted


@dataclass
class Port:
    """A listener that wants the header."""

    endpoint: Watched
    port: int

    async def open(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))


@asynccontextmanager
async def open_port(
    *trusted: str, limits: Limits | None = None, path: Path | None = None
) -> AsyncIterator[Port]:
    endpoint = Watched(limits)
    networks, faults = Networks(trusted or ["127.0.0.0/8"]), ProxyFaults()

    def connect() -> ProxiedConnection:
        return ProxiedConnection(endpoint, Connection, networks, faults)

    if path is None:
        server = await endpoint.loop.create_server(connect, "127.0.0.1", 0)
    else:
        server = await endpoint.loop.create_unix_server(connect, str(path))
    try:
        port = 0 if path else server.sockets[0].getsockname()[1]
        yield Port(endpoint, port)
    finally:
        server.close()
        await endpoint.drain(0)
        await server.wait_closed()


@asynccontextmanager
async def opened(port: Port) -> AsyncIterator[Client]:
    client = await port.open()
    try:
        yield client
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (HEADER, b"192.0.2.77"),
        (binary_header_from("2001:db8::1"), b"2001:db8::1"),
        (binary_header_from("::ffff:192.0.2.1"), b"192.0.2.1"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"192.0.2.1"),
        (b"PROXY UNKNOWN\r\n", b"127.0.0.1"),
        (binary_header(LOCAL, UNSPECIFIED), b"127.0.0.1"),
    ],
)
async def test_the_client_is_whom_the_header_names(header: bytes, address: bytes) -> None:
    async with open_port() as port, opened(port) as client:
        client.send(header + REQUEST + REQUEST)
        for _ in range(2):
            assert (await client.read()).body == address


class Wire(MemoryTransport):
    """A transport whose reading side is called by the test, on whichever protocol it has."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def receive(self, data: bytes) -> None:
        self._protocol.data_received(data)


@pytest.mark.parametrize("size_bytes", [1, 2, 13, 16, 29])
async def test_a_header_is_read_in_pieces(size_bytes: int) -> None:
    """Together with the request that follows; tests/property has every cut of the header."""
    endpoint = Endpoint(Mirror())
    trusted, faults = Networks([MEMORY_PEER]), ProxyFaults()
    wire = Wire(ProxiedConnection(endpoint, Connection, trusted, faults))
    whole = HEADER + REQUEST
    for start in range(0, len(whole), size_bytes):
        wire.receive(whole[start : start + size_bytes])
    assert wire.read_output().endswith(b"192.0.2.77")
    wire.finish()
    await endpoint.drain(0)


@pytest.mark.parametrize("data", [REQUEST, b"\x16\x03\x01\x02\x00", b"PROXY TCP4 x y 1 2\r\n"])
async def test_what_is_no_header_ends_the_connection(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with open_port() as port, opened(port) as client:
        client.send(data)
        assert await read_to_end(client) == b""
    (record,) = caplog.records
    assert "PROXY protocol header remote=127.0.0.1 cause=" in record.getMessage()


async def test_nobody_but_a_trusted_proxy_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with open_port("10.0.0.0/8") as port, opened(port) as client:
        client.send(HEADER + REQUEST)
        assert await read_to_end(client) == b""
    assert "not one of http.trustedproxies" in caplog.text


async def test_the_header_must_come_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    limits = Limits(head_s=0.05)
    async with open_port(limits=limits) as port, opened(port) as client:
        client.send(HEADER[:10])
        assert await read_to_end(client) == b""
    assert "no progress in 0.05 s (HEAD)" in caplog.text


async def test_connections_without_a_header_count_and_are_drained() -> None:
    async with open_port() as port, opened(port) as client:
        client.send(HEADER[:10])
        await port.endpoint.admitted.wait()
        await port.endpoint.drain(30)
        assert await read_to_end(client) == b""
        assert not port.endpoint.connections


async def test_a_connection_beyond_the_bound_is_refused() -> None:
    async with open_port(limits=Limits(max_connections=1)) as port, opened(port) as first:
        first.send(HEADER[:10])
        await port.endpoint.admitted.wait()
        async with opened(port) as second:
            assert await read_to_end(second) == b""
        first.send(HEADER[10:] + REQUEST)
        assert (await first.read()).body == b"192.0.2.77"
        assert len(port.endpoint.connections) == 1


async def test_a_proxy_at_the_unix_socket_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    async with open_port("unix", path=path):
        client = Client(*await asyncio.open_unix_connection(str(path)))
        client.send(HEADER + REQUEST)
        assert (await client.read()).body == b"192.0.2.77"
        await client.aclose()


async def read_to_end(client: Client) -> bytes:
    try:
        return await client.read_end()
    except ConnectionResetError:
        return b""
