"""Who is waited for when what is not stored has filled its window."""

import asyncio

import pytest

from engine.pace import Pace, Seat
from engine.window import BLOCK_BYTES, Window

pytestmark = pytest.mark.anyio

BLOCK = memoryview(bytes(BLOCK_BYTES))


class Race:
    """A full window of three blocks, and two readers at its start."""

    def __init__(self) -> None:
        self.window = Window(0, max_blocks=3)
        self.slow, self.fast = Seat(), Seat()
        self.seats = {self.slow, self.fast}
        self.pace = Pace(self.window, self.seats)
        for _ in range(3):
            self.window.append(BLOCK)
        self.pace.released_bytes = self.window.end

    def move(self, seat: Seat, offset: int) -> None:
        """Have a reader get on."""
        seat.offset = offset
        self.window.note_read(offset)
        self.pace.note_change()

    async def begin_wait(self) -> "asyncio.Task[int]":
        """Wait for room, as far as that goes without anything happening."""
        task = asyncio.create_task(self.pace.wait_room())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task


async def test_while_the_fastest_has_something_to_read_the_others_are_waited_for() -> None:
    race = Race()
    race.move(race.fast, 2 * BLOCK_BYTES)
    waiting = await race.begin_wait()
    assert not waiting.done()
    race.move(race.slow, 10)
    await asyncio.sleep(0)
    assert not waiting.done()
    race.move(race.slow, BLOCK_BYTES)
    assert await waiting == BLOCK_BYTES


async def test_once_the_fastest_waits_too_grace_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.grace.MAX_S", 0.01)
    race = Race()
    race.move(race.fast, 3 * BLOCK_BYTES)
    async with asyncio.timeout(30):
        assert await race.pace.wait_room() == BLOCK_BYTES
    assert race.slow.offset < race.window.start + BLOCK_BYTES


async def test_grace_lasts_for_who_gets_on_in_time() -> None:
    race = Race()
    race.move(race.fast, 3 * BLOCK_BYTES)
    waiting = await race.begin_wait()
    assert not waiting.done()
    race.move(race.slow, BLOCK_BYTES)
    assert await waiting == BLOCK_BYTES


@pytest.mark.parametrize("is_aside", [True, False], ids=["aside", "left"])
async def test_who_is_aside_or_gone_is_not_waited_for(*, is_aside: bool) -> None:
    race = Race()
    race.move(race.fast, 2 * BLOCK_BYTES)
    waiting = await race.begin_wait()
    if is_aside:
        race.slow.is_aside = True
    else:
        race.seats.discard(race.slow)
    race.pace.note_change()
    assert await waiting == BLOCK_BYTES


async def test_one_block_is_given_up_at_a_time() -> None:
    race = Race()
    race.move(race.slow, 3 * BLOCK_BYTES)
    race.move(race.fast, 3 * BLOCK_BYTES)
    assert await race.pace.wait_room() == BLOCK_BYTES


async def test_a_wait_may_be_cancelled() -> None:
    race = Race()
    waiting = await race.begin_wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    race.move(race.fast, BLOCK_BYTES)
    race.move(race.slow, BLOCK_BYTES)
    assert await race.pace.wait_room() == BLOCK_BYTES
