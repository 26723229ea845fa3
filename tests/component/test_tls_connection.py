"""Connections over TLS: all that plain ones promise, and what the handshake adds."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from server.endpoint import Endpoint
from server.limits import Limits
from server.protocol import Connection
from server.settings import ClientAuth
from server.tcp_memory import MIN_QUEUE_BYTES
from server.tls_connection import Handshakes, SecureConnection
from server.tls_context import load_identity
from tests.fakes.authority import DAY, Authority, Pair
from tests.fakes.transport import Client, ScriptedMemory, Site, open_site, pattern

pytestmark = pytest.mark.anyio

GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 20_000_000
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclass
class Trust:
    """A server's certificate, who signed it, and what came of the handshakes."""

    authority: Authority
    server: Pair
    handshakes: Handshakes

    @asynccontextmanager
    async def open(
        self,
        path: Path,
        limits: Limits | None = None,
        clientauth: ClientAuth = ClientAuth.NONE,
        **settings: object,
    ) -> AsyncIterator[Site]:
        authorities = () if clientauth is ClientAuth.NONE else (str(self.authority.path),)
        context = load_identity(
            self.server.settings(clientcas=authorities, clientauth=clientauth, **settings)
        ).context

        def connect(endpoint: Endpoint) -> Connection:
            return SecureConnection(endpoint, context, self.handshakes)

        async with open_site(path, limits, connect=connect, tls=self.authority.client()) as site:
            yield site


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    authority = Authority(tmp_path)
    return Trust(authority, authority.issue("mirror.test"), Handshakes())


async def connect_plain(site: Site) -> Client:
    """Connect without TLS."""
    site.tls = None
    return await site.connect()


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_kind_of_answer_arrives_whole(
    trust: Trust, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    async with trust.open(tmp_path) as site:
        site.tls = trust.authority.client(version=version)
        client = await site.connect()
        for kind in ("hit", "file", "task", "chunks", "spans", "chunkspans"):
            for length in (0, 1, 16384, 1_000_003):
                response = await client.get(f"/{kind}/{length}")
                assert (response.status, response.body) == (200, pattern(length))
        response = await client.get("/hit/5", method="HEAD")
        assert (response.fields["content-length"], response.body) == ("5", b"")
        assert client.writer.get_extra_info("ssl_object").version() == version.name[:3] + {
            ssl.TLSVersion.TLSv1_2: "v1.2", ssl.TLSVersion.TLSv1_3: "v1.3"}[version]  # fmt: skip


async def test_what_is_counted_as_sent_is_what_was_there_before_encryption(
    trust: Trust, tmp_path: Path
) -> None:
    async with trust.open(tmp_path) as site:
        client = await site.connect()
        client.send(GET.format("/file/1000000").encode())
        head = await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readexactly(1_000_000)
        await site.records.wait_for(1)
        assert site.records.all[0].sent_bytes == len(head) + 1_000_000


async def test_clients_of_http_2_are_offered_http_1(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        assert site.tls is not None
        site.tls.set_alpn_protocols(["h2", "http/1.1"])
        client = await site.connect()
        chosen = client.writer.get_extra_info("ssl_object").selected_alpn_protocol()
        assert chosen == "http/1.1"


async def test_pipelined_requests_are_answered_in_order(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        client = await site.connect()
        targets = ["/hit/10", "/task/300000", "/file/200000", "/hit/0", "/chunks/70000"] * 5
        client.send("".join(map(GET.format, targets)).encode())
        for target in targets:
            assert (await client.read()).body == pattern(int(target.rpartition("/")[2]))


async def test_a_slow_reader_gets_every_byte_and_costs_little(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        for kind in ("file", "spans"):
            client = await site.connect(receive_buffer_bytes=65536)
            client.send(GET.format(f"/{kind}/{LARGE}").encode())
            await client.reader.readuntil(b"\r\n\r\n")
            received = bytearray()
            while len(received) < LARGE:
                received += await client.reader.read(1_000_000)
                await asyncio.sleep(0)
            assert received == pattern(LARGE)


async def test_a_large_download_leaves_others_their_turn(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        large = await site.connect(receive_buffer_bytes=65536)
        large.send(GET.format(f"/file/{LARGE}").encode())
        await large.reader.readexactly(100)
        small = await site.connect()
        assert (await small.get("/hit/3")).body == pattern(3)


async def test_a_client_that_leaves_early_is_noticed(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        before = len(os.listdir("/proc/self/fd"))
        client = await site.connect(receive_buffer_bytes=4096)
        client.send(GET.format(f"/file/{LARGE}").encode())
        await client.reader.readexactly(1000)
        client.reset()
        await site.endpoint.wait_empty()
        assert site.records.all[0].cause == "the client has gone"
        assert site.records.all[0].sent_bytes < LARGE
        site.clients.clear()
        for _ in range(5):  # both sides' transports close their sockets a few turns later
            await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("target", ["/half/50000", "/cut/5000", "/short/500000"])
async def test_a_body_that_is_not_whole_ends_in_a_reset(
    trust: Trust, tmp_path: Path, target: str
) -> None:
    async with trust.open(tmp_path) as site:
        site.handler.release.set()
        client = await site.connect()
        client.send(GET.format(target).encode())
        with pytest.raises(ConnectionResetError):
            await client.read_end()
        await site.endpoint.wait_empty()


async def test_the_end_is_said_in_tls(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        client = await site.connect()
        response = await client.get("/hit/3", "Connection: close")
        assert response.body == pattern(3)
        # A stream that ended without TLS's own end would be an error to a strict client.
        assert await client.read_end() == b""
        await site.endpoint.wait_empty()


async def test_an_answer_survives_a_client_that_goes_on_sending(
    trust: Trust, tmp_path: Path
) -> None:
    async with trust.open(tmp_path) as site:
        client = await site.connect()
        client.send(b"PUT /hit/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
        client.send(b"x" * 500_000)
        assert (await client.read()).body == pattern(3)
        assert await client.read_end() == b""


async def test_a_drain_lets_downloads_end(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        idle, busy = await site.connect(), await site.connect(receive_buffer_bytes=65536)
        await idle.get("/hit/1")
        busy.send(GET.format(f"/file/{LARGE}").encode())
        await busy.reader.readuntil(b"\r\n\r\n")
        drain = asyncio.create_task(site.endpoint.drain(60))
        assert await idle.read_end() == b""
        assert await busy.reader.readexactly(LARGE) == pattern(LARGE)
        assert await busy.read_end() == b""
        await drain


# Handshakes


def hello(context: ssl.SSLContext) -> bytes:
    """A client's first message."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_a_client_hello_may_arrive_in_any_two_parts(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        context = trust.authority.client()
        message = hello(context)
        for at in range(1, len(message)):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            await _shake_hands(site, client, incoming, outgoing, at)
        assert trust.handshakes.done_count == len(message) - 1


async def _shake_hands(
    site: Site, client: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, at: int
) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", site.port)) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = outgoing.read()
        for part in (message[:at], message[at:]):
            await loop.sock_sendall(sock, part)
            await asyncio.sleep(0)
        while True:
            incoming.write(await loop.sock_recv(sock, 65536))
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        client.write(GET.format("/hit/3").encode())
        await loop.sock_sendall(sock, outgoing.read())
        received = b""
        while not received.endswith(pattern(3)):
            incoming.write(await loop.sock_recv(sock, 65536))
            try:
                received += client.read(65536)
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize(
    "garbage",
    [b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"x" * 500, b"SSH-2.0-OpenSSH_9.2\r\n",
     b"\x16\x03\x01\x00\x05hello", os.urandom(300)],
)  # fmt: skip
async def test_garbage_is_refused_and_named(
    trust: Trust, tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with trust.open(tmp_path) as site:
        client = await connect_plain(site)
        client.send(garbage)
        client.writer.write_eof()
        await client.read_end()
        await site.endpoint.wait_empty()
        assert site.records.all == []
    assert trust.handshakes.failed_count == 1
    assert "TLS handshake failed remote=127.0.0.1 cause=" in caplog.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST"])
async def test_plain_http_is_told_so(
    trust: Trust, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with trust.open(tmp_path) as site:
        client = await connect_plain(site)
        client.send(f"{method} /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await client.read_end()
        assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
        assert answer.endswith(b"Client sent an HTTP request to an HTTPS server.\n")
    assert "the client speaks plain HTTP: configure https in it" in caplog.text


async def test_like_failures_share_a_line(
    trust: Trust, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with trust.open(tmp_path) as site:
        for _ in range(5):
            client = await connect_plain(site)
            client.send(b"SSH-2.0-OpenSSH_9.2\r\n")
            await client.read_end()
    assert trust.handshakes.failed_count == 5
    assert caplog.text.count("TLS handshake failed") == 1


async def test_a_probe_of_the_port_is_no_failure(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        client = await connect_plain(site)
        client.writer.write_eof()
        assert await client.read_end() == b""
        await site.endpoint.wait_empty()
    assert trust.handshakes.failed_count == 0


@pytest.mark.parametrize("sent_bytes", [0, 1, 100])
async def test_a_handshake_that_does_not_go_on_is_ended(
    trust: Trust, tmp_path: Path, sent_bytes: int
) -> None:
    async with trust.open(tmp_path, Limits(handshake_s=0.2)) as site:
        client = await connect_plain(site)
        client.send(hello(trust.authority.client())[:sent_bytes])
        assert await client.read_end() == b""
        await site.endpoint.wait_empty()


async def test_a_drain_does_not_wait_for_handshakes(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        client = await connect_plain(site)
        client.send(hello(trust.authority.client())[:50])
        await (await connect_tls(site, trust)).get("/hit/1")
        await site.endpoint.drain(60)
        assert await client.read_end() == b""


async def connect_tls(site: Site, trust: Trust, pair: Pair | None = None) -> Client:
    site.tls = trust.authority.client(pair)
    return await site.connect()


async def test_too_old_a_version_is_refused(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path, minimumtls="tls1.3") as site:
        site.tls = trust.authority.client(version=ssl.TLSVersion.TLSv1_2)
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            await site.connect()


async def test_the_configured_suites_alone_are_offered(trust: Trust, tmp_path: Path) -> None:
    suites = ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",)
    async with trust.open(tmp_path, ciphersuites=suites) as site:
        site.tls = trust.authority.client(version=ssl.TLSVersion.TLSv1_2)
        client = await site.connect()
        cipher = client.writer.get_extra_info("ssl_object").cipher()[0]
        assert cipher == "ECDHE-ECDSA-CHACHA20-POLY1305"
        site.tls.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            await site.connect()


# Clients' certificates


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_known_client_has_a_name(
    trust: Trust, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = trust.authority
    async with trust.open(tmp_path, clientauth=ClientAuth.REQUIRE_AND_VERIFY) as site:
        for name, hosts in (("runner-1", ("runner.example",)), (None, ("runner.example",))):
            pair = authority.issue(name, hosts=hosts)
            site.tls = authority.client(pair, version)
            await (await site.connect()).get("/hit/1")
    assert site.handler.names == ["runner-1", "runner.example"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", ["nobody", "stranger", "expired"])
async def test_an_unknown_client_is_refused(
    trust: Trust, tmp_path: Path, who: str, version: ssl.TLSVersion,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    authority = trust.authority
    pair = None
    if who == "stranger":
        pair = Authority(tmp_path, "another one").issue("runner-1")
    elif who == "expired":
        pair = authority.issue("runner-1", lasts=-1 * DAY)
    async with trust.open(tmp_path, clientauth=ClientAuth.REQUIRE_AND_VERIFY) as site:
        site.tls = authority.client(pair, version)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await (await site.connect()).get("/hit/1")
        await site.endpoint.wait_empty()
        assert site.handler.names == []
    causes = {
        "nobody": "the client shows no certificate, and must",
        "stranger": "the client's certificate is refused: unable to get local issuer certificate",
        "expired": "the client's certificate is refused: certificate has expired",
    }
    assert causes[who] in caplog.text


async def test_a_certificate_that_is_optional_is_verified_if_given(
    trust: Trust, tmp_path: Path
) -> None:
    authority = trust.authority
    async with trust.open(tmp_path, clientauth=ClientAuth.VERIFY_IF_GIVEN) as site:
        await (await connect_tls(site, trust)).get("/hit/1")
        await (await connect_tls(site, trust, authority.issue("runner-1"))).get("/hit/1")
        assert site.handler.names == [None, "runner-1"]
        site.tls = authority.client(Authority(tmp_path, "another one").issue("runner-2"))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await (await site.connect()).get("/hit/1")


async def test_nothing_is_sent_from_a_file_whose_handler_has_given_up(
    trust: Trust, tmp_path: Path
) -> None:
    async with trust.open(tmp_path) as site:
        client = await site.connect(receive_buffer_bytes=4096)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a Transport
        client.send(GET.format("/impatient/60000000").encode())
        await site.endpoint.wait_empty()


async def test_records_that_are_damaged_end_the_connection(trust: Trust, tmp_path: Path) -> None:
    async with trust.open(tmp_path) as site:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trust.authority.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        raw = await connect_plain(site)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.send(outgoing.read())
                incoming.write(await raw.reader.read(65536))
        client.write(GET.format("/hit/3").encode())
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        raw.send(bytes(record))
        with pytest.raises(ConnectionResetError):
            await raw.reader.readexactly(10_000)
        assert site.handler.targets == []


@pytest.mark.parametrize("kind", ["file", "spans", "task"])
async def test_little_waits_in_a_socket_where_the_kernel_has_little_for_it(
    trust: Trust, tmp_path: Path, kind: str
) -> None:
    sent: dict[int, int] = {}
    for queue_bytes in (0, MIN_QUEUE_BYTES):
        async with trust.open(tmp_path) as site:
            memory = site.endpoint.memory = ScriptedMemory(queue_bytes)
            client = await site.connect(receive_buffer_bytes=32 * 1024)
            transport = cast(asyncio.Transport, client.writer.transport)
            transport.pause_reading()
            client.send(GET.format(f"/{kind}/{LARGE}").encode())
            (peer,) = site.endpoint.connections
            assert isinstance(peer, Connection)
            calm_turns = 0
            while calm_turns < 20:  # the client's own buffers fill up, too
                is_same = peer.flow.is_blocked and peer.flow.sent_bytes == sent.get(queue_bytes)
                calm_turns = calm_turns + 1 if is_same else 0
                sent[queue_bytes] = peer.flow.sent_bytes
                await asyncio.sleep(0)
            transport.resume_reading()
            await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.readexactly(LARGE) == pattern(LARGE)
            await site.records.wait_for(1)
            assert LARGE <= memory.sent_bytes < LARGE + 1_000  # the head may leave with the body
    assert sent[MIN_QUEUE_BYTES] * 3 < sent[0]
