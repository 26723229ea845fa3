"""A fill that is not stored any more: who may need the file, and who sets the pace."""

import asyncio
import os
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.errors import FellBehind, SizeMismatch, UpstreamUnavailable
from engine.fill import HELD_BACK_BYTES, Fill, Outcome
from engine.pace import Abandoned
from engine.reader import FileSpan, Reader
from engine.window import BLOCK_BYTES, MAX_BLOCKS
from tests.fakes.upstream_content import digest_of, make_bytes

pytestmark = pytest.mark.anyio

DATA = make_bytes((MAX_BLOCKS + 2) * BLOCK_BYTES)
STORED_BYTES = 100_000


@dataclass
class Led:
    """A fill whose lead is the test."""

    path: Path
    fill: Fill = field(default_factory=lambda: Fill(digest_of(DATA), len(DATA)))
    closed_count: int = 0

    def begin(self) -> None:
        """Store the first bytes."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, DATA[:STORED_BYTES], 0)
        self.fill.attach(fd, self._note_closed)
        self.fill.open(len(DATA))
        self.fill.advance(STORED_BYTES)

    def pass_on(self, count_bytes: int) -> None:
        """Let bytes arrive that are not stored."""
        start = self.fill.written_bytes
        self.fill.pass_on(memoryview(DATA)[start : start + count_bytes])

    async def fill_up(self) -> None:
        """Let bytes arrive until the window is full."""
        while self.fill.window is None or self.fill.window.room_bytes:
            self.pass_on(await self.fill.wait_room())

    def _note_closed(self) -> None:
        self.closed_count += 1


@pytest.fixture
def led(tmp_path: Path) -> Led:
    led = Led(tmp_path / "partial")
    led.begin()
    return led


async def read(reader: Reader, start: int, end: int) -> bytes:
    """Read a part from wherever it is."""
    body = b""
    async with aclosing(reader.pieces(start, end)) as pieces:
        async for piece in pieces:
            if isinstance(piece, FileSpan):
                body += os.pread(piece.fd, len(piece), piece.start)
            else:
                body += piece
    return body


async def test_the_file_is_closed_when_the_last_has_drained_it(led: Led) -> None:
    slow, fast = Reader(led.fill), Reader(led.fill)
    led.fill.stop_storing()
    led.pass_on(2 * HELD_BACK_BYTES)
    assert await read(fast, 0, STORED_BYTES + 10) == DATA[: STORED_BYTES + 10]
    assert led.closed_count == 0
    assert await read(slow, 0, STORED_BYTES) == DATA[:STORED_BYTES]
    assert led.closed_count == 0, "it has not come back yet, and may be sending"
    assert await read(slow, STORED_BYTES, STORED_BYTES + 1) == DATA[STORED_BYTES:][:1]
    assert led.closed_count == 1
    slow.close()
    fast.close()
    led.fill.leave()
    assert led.closed_count == 1


async def test_the_file_is_closed_at_once_where_nobody_needs_it(led: Led) -> None:
    reader = Reader(led.fill)
    await reader.wait_past(STORED_BYTES - 1)
    waiting = asyncio.create_task(reader.wait_past(STORED_BYTES))
    await asyncio.sleep(0)
    led.fill.stop_storing()
    assert led.closed_count == 1
    led.pass_on(2 * HELD_BACK_BYTES)
    await waiting
    reader.close()


async def test_who_leaves_without_having_drained_the_file_lets_go_of_it(led: Led) -> None:
    reader = Reader(led.fill)
    led.fill.stop_storing()
    assert led.closed_count == 0
    reader.close()
    reader.close()
    assert led.closed_count == 1


async def test_a_reader_may_join_while_the_first_byte_is_here(led: Led) -> None:
    first = Reader(led.fill)
    led.fill.stop_storing()
    led.pass_on(BLOCK_BYTES)
    was_joinable = led.fill.is_joinable
    second = Reader(led.fill)
    assert await read(second, 0, BLOCK_BYTES) == DATA[:BLOCK_BYTES]
    assert await read(first, 0, BLOCK_BYTES) == DATA[:BLOCK_BYTES]
    assert (was_joinable, led.fill.is_joinable) == (True, False), "the file is gone"
    first.close()
    second.close()


async def test_the_lead_waits_for_the_fastest_reader_only(led: Led) -> None:
    slow, fast = Reader(led.fill), Reader(led.fill)
    led.fill.stop_storing()
    await led.fill_up()
    waiting = asyncio.create_task(led.fill.wait_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await read(slow, 0, STORED_BYTES)
    await asyncio.sleep(0)
    assert not waiting.done()
    await read(fast, 0, STORED_BYTES + BLOCK_BYTES)
    fast._fill.move(fast._seat, STORED_BYTES + BLOCK_BYTES)
    assert await waiting == BLOCK_BYTES
    slow.close()
    fast.close()


@pytest.mark.parametrize("is_aside", [True, False], ids=["aside", "ahead"])
async def test_nobody_waits_for_who_reads_elsewhere_or_further_on(
    led: Led, *, is_aside: bool
) -> None:
    reader = Reader(led.fill)
    led.fill.stop_storing()
    if is_aside:
        reader.step_aside()
    else:
        led.fill.move(reader._seat, len(DATA) - 1)
    await led.fill_up()
    async with asyncio.timeout(5):
        assert await led.fill.wait_room() > 0
    reader.close()


async def test_the_lead_is_told_when_the_last_reader_leaves(led: Led) -> None:
    reader = Reader(led.fill)
    led.fill.stop_storing()
    await led.fill_up()
    waiting = asyncio.create_task(led.fill.wait_room())
    await asyncio.sleep(0)
    reader.close()
    with pytest.raises(Abandoned):
        await waiting


async def test_who_cannot_go_round_and_falls_behind_is_cut(led: Led) -> None:
    slow, fast = Reader(led.fill), Reader(led.fill)
    led.fill.stop_storing()
    await led.fill_up()
    led.fill.move(fast._seat, STORED_BYTES + 2 * BLOCK_BYTES)
    led.pass_on(await led.fill.wait_room())
    with pytest.raises(FellBehind):
        await read(slow, 0, len(DATA))
    slow.close()
    fast.close()


async def test_who_fell_behind_a_fill_that_failed_is_told_why(led: Led) -> None:
    slow, fast = Reader(led.fill), Reader(led.fill)
    led.fill.stop_storing()
    await led.fill_up()
    led.fill.move(fast._seat, STORED_BYTES + 2 * BLOCK_BYTES)
    led.pass_on(await led.fill.wait_room())
    led.fill.end(Outcome.RETRYABLE, UpstreamUnavailable("reset"))
    with pytest.raises(UpstreamUnavailable, match="reset"):
        await read(slow, STORED_BYTES, len(DATA))
    slow.close()
    fast.close()


async def test_an_end_before_the_one_asked_for_is_an_error(led: Led) -> None:
    reader = Reader(led.fill)
    led.fill.end(Outcome.DONE)
    with pytest.raises(SizeMismatch):
        await read(reader, 0, len(DATA))
    reader.close()
    led.fill.leave()


async def test_waiting_for_the_end_sets_no_pace_and_tells_the_size(led: Led) -> None:
    reader = Reader(led.fill)
    waiting = asyncio.create_task(reader.wait_end())
    await asyncio.sleep(0)
    led.fill.end(Outcome.DONE)
    assert await waiting == STORED_BYTES
    reader.close()
    led.fill.leave()


async def test_waiting_for_the_end_tells_a_failure(led: Led) -> None:
    reader = Reader(led.fill)
    led.fill.end(Outcome.RETRYABLE, UpstreamUnavailable("reset"))
    with pytest.raises(UpstreamUnavailable):
        await reader.wait_end()
    reader.close()
    led.fill.leave()


async def test_beginning_anew_without_storing_lets_go_of_the_file(led: Led) -> None:
    reader = Reader(led.fill)
    led.fill.stop_storing()
    led.fill.restart(len(DATA))
    assert led.closed_count == 1
    led.fill.open(len(DATA))
    led.pass_on(2 * HELD_BACK_BYTES)
    assert await read(reader, 0, 1000) == DATA[:1000]
    reader.close()
