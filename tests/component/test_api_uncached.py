"""What is not stored reaches clients as what is, but for what `Cache-Status` says of it."""

import asyncio
import os
from pathlib import Path

import pytest

from engine.errors import UpstreamUnavailable
from engine.window import BLOCK_BYTES
from server.exchange import ClientGone
from server.side import NEAR_BYTES
from tests.fakes.cache import FilledBlob
from tests.fakes.exchange import FakeExchange
from tests.fakes.registry_api import Desk

pytestmark = pytest.mark.anyio

KIB = 1024
DATA = os.urandom(4 * BLOCK_BYTES)
STORED_BYTES = 100 * KIB


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def begin(
    desk: Desk, filled: FilledBlob, **headers: str
) -> "tuple[FakeExchange, asyncio.Task[None]]":
    """Respond in a task, as the transport does."""
    exchange = desk.exchange(f"/v2/acme/app/blobs/{filled.fill.digest}", **headers)
    assert not desk.api.respond_now(exchange)
    return exchange, asyncio.create_task(desk.api.respond(exchange))


async def test_a_blob_that_is_not_stored_says_so_and_arrives_whole(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        filled.fill.stop_storing()
        exchange, task = begin(desk, filled)
        filled.write_to(2 * BLOCK_BYTES)
        await exchange.received(BLOCK_BYTES)
        filled.finish()
        await task
    answer = exchange.answer
    assert (answer.status, answer.body, answer.is_whole) == (200, DATA, True)
    assert answer.headers["cache-status"] == "moorage; fwd=bypass; fwd-status=200"
    assert exchange.cache_status == "bypass"


async def test_what_stops_being_stored_goes_on_for_those_who_have_begun(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchanges, tasks = zip(*(begin(desk, filled) for _ in range(5)), strict=True)
        filled.write_to(STORED_BYTES)
        await asyncio.gather(*(exchange.received(1) for exchange in exchanges))
        filled.fill.stop_storing()
        filled.finish()
        await asyncio.gather(*tasks)
    for exchange in exchanges:
        assert exchange.answer.body == DATA
        assert exchange.answer.headers["cache-status"].endswith("stored")


async def test_a_part_of_what_is_not_stored_crosses_from_file_to_memory(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        start, end = STORED_BYTES - 10 * KIB, STORED_BYTES + 20 * KIB
        exchange, task = begin(desk, filled, range=f"bytes={start}-{end - 1}")
        filled.write_to(STORED_BYTES)
        await exchange.received(0)
        filled.fill.stop_storing()
        filled.write_to(2 * BLOCK_BYTES)
        await task
        filled.finish()
    assert (exchange.answer.status, exchange.answer.body) == (206, DATA[start:end])


async def test_a_break_of_what_is_not_stored_cuts_the_connection(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        filled.fill.stop_storing()
        exchange, task = begin(desk, filled)
        filled.write_to(2 * BLOCK_BYTES)
        await exchange.received(BLOCK_BYTES)
        filled.fail(UpstreamUnavailable("reset"))
        await task
    assert exchange.is_aborted
    assert not exchange.is_finished


async def test_a_client_that_leaves_what_is_not_stored_frees_its_reader(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        filled.fill.stop_storing()
        exchange, task = begin(desk, filled)
        exchange.gone_after_bytes = 1
        filled.write_to(2 * BLOCK_BYTES)
        with pytest.raises(ClientGone):
            await task
        assert filled.reader_count == 0
        filled.finish()


async def test_who_is_served_aside_holds_nobody_up(desk: Desk) -> None:
    vast = bytes(NEAR_BYTES + 20 * BLOCK_BYTES)
    with desk.filling(vast) as filled:
        filled.fill.stop_storing()
        start = len(vast) - BLOCK_BYTES
        exchange, task = begin(desk, filled, range=f"bytes={start}-")
        filled.write_to(BLOCK_BYTES)
        await exchange.received(KIB)
        while filled.fill.written_bytes < len(vast):
            room_bytes = await filled.fill.wait_room()
            filled.write_to(min(filled.fill.written_bytes + room_bytes, len(vast)))
        filled.finish()
        await task
    assert exchange.answer.body == vast[start:]
