"""What those who share one piece of work are promised."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from engine.errors import NotAsked
from engine.single_flight import SingleFlight

pytestmark = pytest.mark.anyio


class Work:
    """Work that starts and ends when the test says so."""

    def __init__(self) -> None:
        self.started_count = 0
        self.end_count = 0
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.started_count += 1
        self.started.set()
        try:
            await self.may_end.wait()
        finally:
            self.end_count += 1
        if self.error is not None:
            raise self.error
        return self.started_count


Flights = SingleFlight[str, int]


@pytest.fixture
async def flights() -> AsyncIterator[Flights]:
    made: Flights = SingleFlight()
    yield made
    await made.aclose()
    assert len(made) == 0


@pytest.fixture
async def work() -> Work:
    return Work()


async def join(
    flights: Flights, work: Work, count: int, key: str = "key"
) -> list[asyncio.Task[tuple[int, bool]]]:
    """Start `count` waiters and let each come to where it waits."""
    tasks = [asyncio.create_task(flights.run(key, work)) for _ in range(count)]
    await work.started.wait()
    return tasks


async def test_runs_once_for_all_who_ask_at_the_same_moment(flights: Flights, work: Work) -> None:
    tasks = await join(flights, work, 200)
    work.may_end.set()
    results = await asyncio.gather(*tasks)
    assert work.started_count == 1
    assert results == [(1, True)] + [(1, False)] * 199


async def test_runs_again_for_who_asks_later(flights: Flights, work: Work) -> None:
    work.may_end.set()
    assert await flights.run("key", work) == (1, True)
    assert await flights.run("key", work) == (2, True)


async def test_who_asks_when_told_the_result_starts_anew(flights: Flights, work: Work) -> None:
    async def ask_twice() -> tuple[int, int]:
        first, _ = await flights.run("key", work)
        second, _ = await flights.run("key", work)
        return first, second

    task = asyncio.create_task(ask_twice())
    await work.started.wait()
    work.may_end.set()
    assert await task == (1, 2)


async def test_who_asks_in_the_turn_in_which_the_work_ends_starts_anew(
    flights: Flights, work: Work
) -> None:
    async def ask_late() -> tuple[int, bool]:
        await work.may_end.wait()
        return await flights.run("key", work)

    (task,) = await join(flights, work, 1)
    late = asyncio.create_task(ask_late())
    await asyncio.sleep(0)
    # Wakes the work first, which ends at once, and then the late one, before any callback.
    work.may_end.set()
    assert await late == (2, True)
    assert await task == (1, True)


async def test_keys_do_not_wait_for_each_other(flights: Flights, work: Work) -> None:
    (held,) = await join(flights, work, 1, "held")
    other = Work()
    other.may_end.set()
    assert await flights.run("other", other) == (1, True)
    assert not held.done()
    work.may_end.set()
    await held


@pytest.mark.parametrize("victim", [0, 1], ids=["the one who started it", "one who joined"])
async def test_a_cancelled_waiter_harms_nobody(flights: Flights, work: Work, victim: int) -> None:
    tasks = await join(flights, work, 3)
    cancelled = tasks.pop(victim)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    work.may_end.set()
    assert {value for value, _ in await asyncio.gather(*tasks)} == {1}
    assert work.started_count == 1


async def test_goes_on_when_all_have_left_and_can_be_joined_again(
    flights: Flights, work: Work
) -> None:
    for task in await join(flights, work, 3):
        task.cancel()
    rejoined = asyncio.create_task(flights.run("key", work))
    await asyncio.sleep(0)
    work.may_end.set()
    assert await rejoined == (1, False)


async def test_each_waiter_gets_the_error(flights: Flights, work: Work) -> None:
    tasks = await join(flights, work, 3)
    work.error = LookupError("upstream says no")
    work.may_end.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results == [work.error] * 3


async def test_who_asks_after_an_error_does_not_get_it(flights: Flights, work: Work) -> None:
    work.error = LookupError("upstream says no")
    work.may_end.set()
    with pytest.raises(LookupError):
        await flights.run("key", work)
    work.error = None
    assert await flights.run("key", work) == (2, True)


async def test_an_error_nobody_waits_for_is_no_complaint_of_asyncio(
    flights: Flights, work: Work
) -> None:
    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    tasks = await join(flights, work, 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    work.error = LookupError("upstream says no")
    work.may_end.set()
    flight = flights._tasks["key"]
    await asyncio.wait({flight})
    # asyncio complains when the task is collected; the waiters' tracebacks hold it too.
    del flight, tasks, task
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert work.end_count == 1
    assert complaints == []


async def test_closing_cancels_the_work_and_waits_for_its_end(flights: Flights, work: Work) -> None:
    tasks = await join(flights, work, 2)
    await flights.aclose()
    assert work.end_count == 1
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [NotAsked] * 2


async def test_closing_at_once_ends_work_that_has_not_begun(flights: Flights, work: Work) -> None:
    task = asyncio.create_task(flights.run("key", work))
    await asyncio.sleep(0)
    await flights.aclose()
    with pytest.raises(NotAsked):
        await task
    assert work.started_count == 0


async def test_starts_nothing_once_closed(flights: Flights, work: Work) -> None:
    await flights.aclose()
    await flights.aclose()
    with pytest.raises(NotAsked):
        await flights.run("key", work)
    assert work.started_count == 0
