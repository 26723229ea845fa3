"""One at a time changes a digest's file."""

import asyncio

import pytest

from engine.claims import Claims
from tests.fakes.candidates import digest_of

pytestmark = pytest.mark.anyio

ONE, OTHER = digest_of(1), digest_of(2)


async def test_a_digest_is_claimed_by_one_at_a_time_and_others_are_free() -> None:
    claims = Claims()
    assert claims.take_free(ONE)
    assert not claims.take_free(ONE)
    assert claims.take_free(OTHER)
    claims.release(ONE)
    assert claims.take_free(ONE)


async def test_who_waits_gets_it_in_the_end_each_alone() -> None:
    claims, inside, most = Claims(), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with claims.hold(ONE):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    assert claims.take_free(ONE)
    tasks = [asyncio.create_task(work()) for _ in range(5)]
    await asyncio.sleep(0)
    assert inside == 0
    claims.release(ONE)
    await asyncio.gather(*tasks)
    assert (most, claims.take_free(ONE)) == (1, True)


async def test_who_stops_waiting_leaves_nothing_claimed() -> None:
    claims = Claims()
    assert claims.take_free(ONE)

    async def work() -> None:
        async with claims.hold(ONE):
            raise AssertionError("it was claimed by another")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    claims.release(ONE)
    assert claims.take_free(ONE)
