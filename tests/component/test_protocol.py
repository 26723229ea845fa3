"""One connection: order, persistence, half-close, faults of handlers, early ends."""

import asyncio
import os
from pathlib import Path

import pytest

from server.exchange import Exchange
from server.limits import Limits
from server.protocol import Connection
from server.tcp_memory import MIN_QUEUE_BYTES
from tests.fakes.transport import MemoryTransport, ScriptedMemory, Site, open_site, pattern

pytestmark = pytest.mark.anyio

GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"


def count_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    targets = ["/hit/3", "/task/30000", "/file/70000", "/chunks/25000", "/hit/0", "/spans/9000000",
               "/file/0", "/chunkspans/2000000", "/hit/5"]  # fmt: skip
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send("".join(GET.format(target) for target in targets).encode())
        for target in targets:
            length = int(target.rpartition("/")[2])
            response = await client.read()
            assert response.status == 200
            assert response.body == pattern(length), target
        assert site.handler.targets == [target.encode() for target in targets]
        assert [over.target.decode() for over in site.records.all] == targets


async def test_a_request_is_not_begun_while_the_one_before_is_under_way(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(f"{GET.format('/hang')}{GET.format('/hit/1')}".encode())
        await site.handler.started.wait()
        assert site.handler.targets == [b"/hang"]
        site.handler.release.set()
        await client.read()
        assert (await client.read()).body == pattern(1)


async def test_very_many_pipelined_requests_are_all_answered(tmp_path: Path) -> None:
    count = 5000
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(GET.format("/hit/2").encode() * count)
        for _ in range(count):
            assert (await client.read()).body == pattern(2)


async def test_client_that_sends_ahead_is_not_read_past_the_head_limit(tmp_path: Path) -> None:
    async with open_site(tmp_path, Limits(head_bytes=1024)) as site:
        connection = Connection(site.endpoint)
        transport = MemoryTransport(connection)
        connection.data_received(GET.format("/hang").encode())
        ahead = GET.format("/hit/1").encode() * 100
        connection.data_received(ahead[:1000])
        assert transport.reading_calls == []
        connection.data_received(ahead[1000:])
        assert transport.reading_calls == ["pause"]
        await site.handler.started.wait()
        site.handler.release.set()
        await site.records.wait_for(101)
        assert transport.reading_calls == ["pause", "resume"]
        assert transport.read_output().count(b"HTTP/1.1 200 OK") == 101
        transport.finish()


async def test_half_closed_client_gets_its_response(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(f"{GET.format('/late/5000')}{GET.format('/hit/7')}".encode())
        client.writer.write_eof()
        await site.handler.started.wait()
        site.handler.release.set()
        assert (await client.read()).body == pattern(5000)
        assert (await client.read()).body == pattern(7)
        assert await client.read_end() == b""
        await site.endpoint.wait_empty()


async def test_many_pipelined_requests_of_a_half_closed_client_are_all_answered(
    tmp_path: Path,
) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(GET.format("/hit/2").encode() * 500)
        client.writer.write_eof()
        for _ in range(500):
            assert (await client.read()).body == pattern(2)
        assert await client.read_end() == b""


async def test_connection_stays_unless_the_client_wants_it_closed(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        assert "connection" not in (await client.get("/hit/1")).fields
        response = await client.get("/hit/1", "Connection: Close")
        assert response.fields["connection"] == "close"
        assert await client.read_end() == b""


async def test_http_1_0_closes_unless_asked_to_stay(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(b"GET /hit/4 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = await client.read()
        assert response.fields["connection"] == "keep-alive"
        assert response.body == pattern(4)
        client.send(b"GET /hit/4 HTTP/1.0\r\n\r\n")
        assert (await client.read()).fields["connection"] == "close"
        assert await client.read_end() == b""


async def test_http_1_0_gets_a_body_of_unknown_length_up_to_the_close(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(b"GET /chunks/25000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = await client.read()
        assert response.fields["connection"] == "close"
        assert "transfer-encoding" not in response.fields
        assert response.body == pattern(25000)


async def test_every_response_has_a_date_and_the_configured_headers(tmp_path: Path) -> None:
    async with open_site(tmp_path, headers=(("X-Content-Type-Options", "nosniff"),)) as site:
        client = await site.connect()
        for target in ("/hit/1", "/task/1", "/bug"):
            fields = (await client.get(target)).fields
            assert fields["date"].endswith(" GMT")
            assert fields["x-content-type-options"] == "nosniff"


async def test_absolute_target_is_taken_apart(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        assert (await client.get("http://mirror:5000/hit/3?ns=docker.io")).body == pattern(3)
        assert site.handler.targets == [b"/hit/3?ns=docker.io"]


async def test_upgrade_is_ignored(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA")
        assert (await client.get("/hit/3", *lines)).body == pattern(3)
        assert (await client.get("/hit/4")).body == pattern(4)


@pytest.mark.parametrize(
    "lines",
    [("Content-Length: 5",), ("Transfer-Encoding: chunked",),
     ("Content-Length: 5", "Expect: 100-continue")],
)  # fmt: skip
async def test_request_with_a_body_is_answered_and_is_the_last(
    tmp_path: Path, lines: tuple[str, ...]
) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        response = await client.get("/hit/3", *lines, method="POST")
        assert response.status == 200
        assert response.fields["connection"] == "close"
        client.send(GET.format("/hit/9").encode())  # in the body's place: it is no request
        assert await client.read_end() == b""
        assert site.handler.targets == [b"/hit/3"]


async def test_empty_body_is_no_body(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        response = await client.get("/hit/3", "Content-Length: 0", method="POST")
        assert "connection" not in response.fields
        assert (await client.get("/hit/4", "Expect: 100-continue")).body == pattern(4)


async def test_answer_survives_a_client_that_goes_on_sending(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(b"PUT /hit/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
        client.send(b"x" * 500_000)
        await client.writer.drain()
        assert (await client.read()).body == pattern(3)
        assert await client.read_end() == b""


async def test_client_that_never_stops_sending_is_reset(tmp_path: Path) -> None:
    async with open_site(tmp_path, Limits(linger_bytes=1000)) as site:
        client = await site.connect()
        client.send(b"PUT /hit/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
        await client.read()
        client.send(b"x" * 500_000)
        await site.endpoint.wait_empty()


async def test_tls_client_is_closed_at_once_without_an_answer(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
        assert await client.read_end() == b""
        assert site.records.all == []


@pytest.mark.parametrize("target", ["/bug", "/crash", "/liar", "/nothing"])
async def test_failed_handler_gives_500_and_the_connection_lives(
    tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        response = await client.get(f"{target}?token=hunter2")
        assert response.status == 500
        assert response.body == b'{"errors":[{"code":"UNKNOWN","message":"internal error"}]}'
        assert response.fields["cache-status"] == "moorage; detail=not-forwarded"
        assert (await client.get("/hit/2")).body == pattern(2)
    failures = [record for record in caplog.records if "request failed" in record.message]
    assert len(failures) == 1
    assert failures[0].exc_info is not None
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/half/50000", "a bug in the middle"),
        ("/lacking/5000", "2500 bytes of the body are missing"),
        ("/excess/5000", "the body is 1 bytes too long"),
        ("/cut/5000", ""),
    ],
)
async def test_body_that_is_not_whole_ends_in_a_reset(
    tmp_path: Path, target: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_site(tmp_path) as site:
        site.handler.release.set()
        client = await site.connect()
        client.send(GET.format(target).encode())
        with pytest.raises(ConnectionResetError):
            await client.read_end()
        await site.endpoint.wait_empty()
        assert site.records.all[0].cause != ""
    assert reason in caplog.text


async def test_nothing_is_sent_from_a_file_whose_handler_has_given_up(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect(receive_buffer_bytes=4096)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a Transport
        client.send(GET.format("/impatient/60000000").encode())
        await site.endpoint.wait_empty()  # a reset, although the handler waits for something else


class Tidy:
    """A handler whose tasks take their time to end."""

    is_tidy = False

    def respond_now(self, exchange: Exchange) -> bool:
        return False

    async def respond(self, exchange: Exchange) -> None:
        try:
            await exchange.start(b"HTTP/1.1 200 OK\r\n", 1)
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.is_tidy = True


async def test_drain_waits_for_the_handlers_last_act(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        handler = site.endpoint.handler = Tidy()
        client = await site.connect()
        client.send(GET.format("/").encode())
        await client.reader.readuntil(b"\r\n\r\n")
        await site.endpoint.drain(0)
        assert handler.is_tidy


async def test_truncated_file_ends_in_a_reset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(GET.format("/short/50000").encode())
        with pytest.raises(ConnectionResetError):
            await client.read_end()
        await site.endpoint.wait_empty()
    assert "sendfile failed" in caplog.text


@pytest.mark.parametrize("target", ["/hang", "/late/5", "/half/60000000"])
async def test_handler_is_cancelled_once_its_client_has_gone(tmp_path: Path, target: str) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(GET.format(target).encode())
        await site.handler.started.wait()
        client.reset()
        await site.endpoint.wait_empty()
        assert [over.cause for over in site.records.all] == ["the client has gone"]
        if target != "/half/60000000":
            await site.handler.cancelled.wait()


async def read_some(site: Site, target: str, count_bytes: int) -> None:
    client = await site.connect(receive_buffer_bytes=4096)
    client.send(GET.format(target).encode())
    await client.reader.readexactly(count_bytes)
    await client.aclose()


@pytest.mark.parametrize("target", ["/file/20000000", "/spans/20000000", "/task/20000000"])
@pytest.mark.parametrize("count_bytes", [1, 100, 5000, 1_000_000])
async def test_early_close_releases_everything(
    tmp_path: Path, target: str, count_bytes: int
) -> None:
    async with open_site(tmp_path) as site:
        await (await site.connect()).get("/hit/1")
        await site.clients.pop().aclose()
        await site.endpoint.wait_empty()
        before = count_open_files()
        await read_some(site, target, count_bytes)
        await site.endpoint.wait_empty()
        site.clients.clear()
        for _ in range(5):  # both sides' transports close their sockets a few turns later
            await asyncio.sleep(0)
        assert count_open_files() == before


async def test_only_what_the_socket_took_counts_as_sent(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        await read_some(site, "/file/60000000", 100)
        await site.endpoint.wait_empty()
        assert 100 <= site.records.all[0].sent_bytes < 60_000_000
        assert site.records.all[0].cause == "the client has gone"


async def test_a_slow_reader_gets_every_byte_of_a_large_file(tmp_path: Path) -> None:
    length = 58_720_256
    async with open_site(tmp_path) as site:
        for target in (f"/file/{length}", f"/spans/{length}"):
            client = await site.connect(receive_buffer_bytes=65536)
            client.send(GET.format(target).encode())
            await client.reader.readuntil(b"\r\n\r\n")
            received = bytearray()
            while len(received) < length:
                received += await client.reader.read(1_000_000)
                await asyncio.sleep(0)
            assert received == pattern(length)


async def test_two_connections_share_the_loop_while_one_reads_a_large_file(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        large = await site.connect(receive_buffer_bytes=65536)
        large.send(GET.format("/file/58720256").encode())
        await large.reader.readexactly(100)
        small = await site.connect()
        assert (await small.get("/hit/3")).body == pattern(3)


@pytest.mark.parametrize("kind", ["file", "spans", "task"])
async def test_every_large_body_minds_the_kernels_memory(tmp_path: Path, kind: str) -> None:
    async with open_site(tmp_path) as site:
        memory = site.endpoint.memory = ScriptedMemory(MIN_QUEUE_BYTES)
        client = await site.connect(receive_buffer_bytes=32 * 1024)
        client.send(GET.format(f"/{kind}/8000000").encode())
        await client.reader.readuntil(b"\r\n\r\n")
        (peer,) = site.endpoint.connections
        assert isinstance(peer, Connection)
        assert peer.flow.sent_bytes < 1_000_000
        assert await client.reader.readexactly(8_000_000) == pattern(8_000_000)
        await site.records.wait_for(1)
        assert memory.sent_bytes == 8_000_000
