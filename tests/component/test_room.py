"""Promises of space: given, waited for, refused, and never left behind."""

import asyncio

import pytest

from engine.errors import OutOfSpace, StorageError, StoragePaused
from engine.room import Room
from engine.space import Space

pytestmark = pytest.mark.anyio


async def test_what_fits_is_promised_at_once() -> None:
    space = Space(100)
    promise = await Room(space).promise(60)
    assert space.reserved_bytes == 60
    await promise.grow(100)
    assert space.reserved_bytes == 100
    promise.release()
    promise.release()
    assert space.reserved_bytes == 0


async def test_what_never_fits_is_refused_without_waking_anybody() -> None:
    room = Room(Space(100))
    room.wake = lambda: pytest.fail("there is nothing to evict for")
    with pytest.raises(OutOfSpace):
        await room.promise(101)


async def test_what_does_not_fit_now_is_waited_for() -> None:
    space = Space(100)
    space.add(80)
    room = Room(space, patience_s=60.0)
    is_woken = asyncio.Event()
    room.wake = is_woken.set
    task = asyncio.create_task(room.promise(50))
    await is_woken.wait()
    assert space.above_low_bytes >= 80 + 50 - 100
    space.remove(10)
    await asyncio.sleep(0)
    assert not task.done()
    space.remove(20)
    promise = await task
    assert space.used_bytes == 100
    promise.release()
    assert space.above_low_bytes == 0, "nothing is wanted any more"


async def test_patience_has_an_end() -> None:
    space = Space(100)
    space.add(80)
    with pytest.raises(OutOfSpace) as caught:
        await Room(space, patience_s=0.0).promise(50)
    assert caught.value.can_ever_fit
    assert space.reserved_bytes == 0


async def test_who_is_cancelled_while_waiting_leaves_nothing_promised() -> None:
    space = Space(100)
    space.add(80)
    room = Room(space, patience_s=60.0)
    is_woken = asyncio.Event()
    room.wake = is_woken.set
    task = asyncio.create_task(room.promise(50))
    await is_woken.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (space.reserved_bytes, space.above_low_bytes) == (0, 0)


async def test_a_promise_that_cannot_grow_stays_what_it_was() -> None:
    space = Space(100)
    promise = await Room(space, patience_s=0.0).promise(60)
    space.add(30)
    with pytest.raises(OutOfSpace):
        await promise.grow(100)
    assert (promise.size_bytes, space.reserved_bytes) == (60, 60)
    promise.release()


async def test_nothing_is_promised_while_the_disk_fails() -> None:
    now = 0.0
    space = Space(100)
    room = Room(space, clock=lambda: now)
    woken: list[None] = []
    room.wake = lambda: woken.append(None)
    room.failed(StorageError("no space left"))
    assert woken, "eviction may help"
    with pytest.raises(StoragePaused):
        await room.promise(1)
    room.worked()
    (await room.promise(1)).release()
    assert space.reserved_bytes == 0
