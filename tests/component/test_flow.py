"""Ordered output: what the socket does not take waits, and nothing of it is lost or kept."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.hot import OpenFile
from server.exchange import ClientGone
from server.flow import Flow, SocketFlow
from server.sendfile import Span
from server.tcp_memory import MIN_QUEUE_BYTES
from tests.fakes.transport import ScriptedMemory, pattern

pytestmark = pytest.mark.anyio

LARGE = 3_000_000
TCP_NOTSENT_LOWAT = 25


@dataclass
class Pair:
    """A flow, and the client's end of it."""

    flow: Flow
    client: socket.socket
    ready: asyncio.Event
    sock: socket.socket
    memory: ScriptedMemory
    fd: int

    @property
    def bound_bytes(self) -> int:
        """What the flow's socket was told to queue at most."""
        return self.sock.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT)

    async def read(self, length: int) -> bytes:
        received = bytearray()
        loop = asyncio.get_running_loop()
        while len(received) < length:
            piece = await loop.sock_recv(self.client, 100_000)
            assert piece
            received += piece
        return bytes(received)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    ours.setblocking(False)
    client.setblocking(False)
    ready = asyncio.Event()
    memory = ScriptedMemory()
    flow = SocketFlow(ours, asyncio.get_running_loop(), memory, ready.set)
    yield Pair(flow, client, ready, ours, memory, ours.fileno())
    flow.close()
    client.close()


def open_pattern(path: Path, length: int) -> OpenFile:
    file = path / "file"
    file.write_bytes(pattern(length))
    return OpenFile(os.open(file, os.O_RDONLY))


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


async def test_bytes_and_spans_leave_in_order(pair: Pair, tmp_path: Path) -> None:
    file = open_pattern(tmp_path, LARGE)
    flow = pair.flow
    flow.write(b"head", more=True)
    flow.write_file(Span(file.fd, 0, LARGE, file.acquire()))
    flow.write(pattern(LARGE))
    flow.write_file(Span(file.fd, 100, 200, file))
    flow.write(b"tail")
    was_blocked = flow.is_blocked
    expected = b"head" + pattern(LARGE) * 2 + pattern(200)[100:] + b"tail"
    assert await pair.read(len(expected)) == expected
    await flow.wait_drained()
    assert (was_blocked, flow.is_blocked) == (True, False)
    assert flow.sent_bytes == len(expected)
    assert not is_open(file.fd)


async def test_ready_is_called_once_waiting_output_has_left(pair: Pair) -> None:
    pair.flow.write(b"small")
    assert not pair.ready.is_set()
    pair.flow.write(pattern(LARGE * 3))
    assert not pair.ready.is_set()
    await pair.read(LARGE * 3 + 5)
    await pair.ready.wait()
    assert not pair.flow.is_blocked


async def test_a_slow_client_gets_on_before_the_socket_takes_more(pair: Pair) -> None:
    pair.flow.write(pattern(LARGE * 3))
    sent_bytes, delivered_bytes = pair.flow.sent_bytes, pair.flow.count_delivered()
    assert 0 <= delivered_bytes < sent_bytes < LARGE * 3
    read_bytes = 0
    while pair.flow.count_delivered() == delivered_bytes:
        read_bytes += len(await pair.read(1))
    assert read_bytes < LARGE
    pair.flow.close()
    assert pair.flow.count_delivered() == pair.flow.sent_bytes


async def test_wait_returns_only_when_all_is_taken(pair: Pair) -> None:
    pair.flow.write(pattern(LARGE * 3))
    waiting = asyncio.ensure_future(pair.flow.wait_drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    await pair.read(LARGE * 3)
    await waiting


@pytest.mark.parametrize("is_reset", [False, True])
async def test_close_releases_files_and_wakes_who_waits(
    pair: Pair, tmp_path: Path, is_reset: bool
) -> None:
    file = open_pattern(tmp_path, LARGE)
    pair.flow.write(pattern(LARGE * 3))
    pair.flow.write_file(Span(file.fd, 0, LARGE, file))
    waiting = asyncio.ensure_future(pair.flow.wait_drained())
    await asyncio.sleep(0)
    pair.flow.close(reset=is_reset)
    with pytest.raises(ClientGone):
        await waiting
    assert not is_open(file.fd)
    assert not is_open(pair.fd)
    pair.flow.close()


async def test_what_is_written_after_the_end_is_dropped_and_released(
    pair: Pair, tmp_path: Path
) -> None:
    file = open_pattern(tmp_path, 10)
    pair.flow.close()
    pair.flow.write(b"x")
    pair.flow.write_file(Span(file.fd, 0, 10, file))
    assert not is_open(file.fd)
    assert pair.flow.sent_bytes == 0
    with pytest.raises(ClientGone):
        await pair.flow.wait_drained()


async def test_reset_is_seen_by_the_client(pair: Pair) -> None:
    pair.flow.write(b"x")
    pair.flow.close(reset=True)
    with pytest.raises(ConnectionResetError):
        await pair.read(2)


async def test_gone_client_breaks_the_flow(pair: Pair, tmp_path: Path) -> None:
    file = open_pattern(tmp_path, LARGE)
    pair.flow.write(pattern(LARGE * 3))
    pair.flow.write_file(Span(file.fd, 0, LARGE, file))
    pair.client.close()  # with bytes unread: a reset
    with pytest.raises(ClientGone):
        await pair.flow.wait_drained()
    await pair.ready.wait()
    assert pair.flow.is_broken
    assert not is_open(file.fd)


async def test_shut_down_ends_output_but_not_input(pair: Pair) -> None:
    pair.flow.write(b"last")
    pair.flow.shut_down()
    loop = asyncio.get_running_loop()
    assert await pair.read(4) == b"last"
    assert await loop.sock_recv(pair.client, 1) == b""
    pair.client.send(b"more")
    pair.flow.write(b"x")
    assert pair.flow.is_broken


async def test_waiting_output_survives_a_cancelled_wait(pair: Pair) -> None:
    pair.flow.write(pattern(LARGE * 3))
    waiting = asyncio.ensure_future(pair.flow.wait_drained())
    await asyncio.sleep(0)
    waiting.cancel()
    assert await pair.read(LARGE * 3) == pattern(LARGE * 3)
    await pair.ready.wait()


async def test_no_watch_outlives_its_descriptor(pair: Pair) -> None:
    """It would fire for whoever gets the number next."""
    writable, other = socket.socketpair()
    with writable, other:
        pair.flow.write(pattern(LARGE * 3))
        pair.flow.close()
        os.dup2(writable.fileno(), pair.fd)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            assert not pair.ready.is_set()
        finally:
            os.close(pair.fd)


async def test_a_socket_queues_what_the_kernels_memory_is_good_for(
    pair: Pair, tmp_path: Path
) -> None:
    file = open_pattern(tmp_path, LARGE)
    pair.memory.queue_bytes = MIN_QUEUE_BYTES
    pair.flow.write_file(Span(file.fd, 0, LARGE, file.acquire()))
    assert pair.bound_bytes == MIN_QUEUE_BYTES
    assert pair.flow.sent_bytes == pair.memory.sent_bytes < LARGE // 4
    pair.memory.queue_bytes = 2 * MIN_QUEUE_BYTES  # and so it is while a body is on its way
    received = await pair.read(LARGE // 2)
    assert pair.bound_bytes == 2 * MIN_QUEUE_BYTES
    pair.memory.queue_bytes = 0
    received += await pair.read(LARGE - len(received))
    assert received == pattern(LARGE)
    pair.flow.write_file(Span(file.fd, 0, LARGE, file))
    assert pair.bound_bytes == 0
    assert pair.flow.sent_bytes == pair.memory.sent_bytes > LARGE + LARGE // 4
    assert await pair.read(LARGE) == pattern(LARGE)


async def test_memory_is_not_asked_for_a_small_body(pair: Pair, tmp_path: Path) -> None:
    file = open_pattern(tmp_path, MIN_QUEUE_BYTES)
    pair.memory.queue_bytes = MIN_QUEUE_BYTES
    pair.flow.write_file(Span(file.fd, 0, MIN_QUEUE_BYTES, file))
    assert pair.bound_bytes == 0
    assert await pair.read(MIN_QUEUE_BYTES) == pattern(MIN_QUEUE_BYTES)


async def test_a_unix_socket_has_no_such_bound(tmp_path: Path) -> None:
    file = open_pattern(tmp_path, LARGE)
    ours, client = socket.socketpair()
    for sock in (ours, client):
        sock.setblocking(False)
    memory, ready = ScriptedMemory(MIN_QUEUE_BYTES), asyncio.Event()
    with client:
        flow = SocketFlow(ours, asyncio.get_running_loop(), memory, ready.set)
        flow.write_file(Span(file.fd, 0, LARGE, file))
        pair = Pair(flow, client, ready, ours, memory, ours.fileno())
        assert await pair.read(LARGE) == pattern(LARGE)
        flow.close()
