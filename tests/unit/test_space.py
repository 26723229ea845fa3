"""The byte budget, case by case."""

from collections.abc import Callable

import pytest

from engine.errors import OutOfSpace
from engine.space import Space, Watermarks


def holding(blob_bytes: int, capacity_bytes: int = 100) -> Space:
    space = Space(capacity_bytes)
    space.count_blobs(blob_bytes)
    return space


def test_a_reservation_takes_space_until_it_is_released() -> None:
    space = holding(30)
    reservation = space.reserve(50)
    assert (space.reserved_bytes, space.used_bytes, space.free_bytes) == (50, 80, 20)
    space.release(reservation)
    assert (space.reserved_bytes, space.used_bytes, space.free_bytes) == (0, 30, 70)


def test_what_was_stored_is_counted_by_its_row_and_the_promise_ends() -> None:
    space = Space(100)
    reservation = space.reserve(50)
    space.count_blobs(40)
    assert (space.stored_bytes, space.used_bytes) == (40, 90)  # counted twice, on the safe side
    space.release(reservation)
    assert (space.stored_bytes, space.reserved_bytes, space.free_bytes) == (40, 0, 60)


def test_counts_blobs_quarantine_and_partials() -> None:
    space = holding(30)
    space.count_quarantine(20)
    space.add(10)
    assert (space.blob_bytes, space.stored_bytes) == (30, 60)
    space.count_blobs(25)
    space.count_quarantine(0)
    space.remove(10)
    assert (space.blob_bytes, space.stored_bytes) == (25, 25)


def test_sizes_are_rounded_up_to_the_file_systems_blocks() -> None:
    space = Space(100, block_bytes=10)
    space.add(11)
    assert space.stored_bytes == 20
    space.remove(11)
    assert space.stored_bytes == 0
    reservation = space.reserve(1)
    assert space.reserved_bytes == 10
    space.grow(reservation, 10)
    assert space.reserved_bytes == 20
    with pytest.raises(OutOfSpace):
        space.reserve(81)
    assert holding(0).reserve(0) is not None


def test_says_when_there_may_be_more_to_promise() -> None:
    space, freed = holding(50), []
    space.watch(lambda: freed.append(space.free_bytes))
    reservation = space.reserve(50)
    space.count_blobs(40)
    space.release(reservation)
    space.resize(200)
    space.add(5)
    space.remove(5)
    space.count_blobs(60)
    assert freed == [10, 60, 160, 160]


def test_says_when_bytes_that_were_added_take_it_above_the_high_watermark() -> None:
    space, pressed = holding(80), []
    space.watch_high(lambda: pressed.append(space.used_bytes))
    space.release(space.reserve(15))
    space.count_blobs(96)
    space.count_blobs(95)
    space.add(1)
    space.remove(1)
    with space.want(6):
        space.reserve(0)
    assert pressed == [96, 96, 95]


def test_quarantine_presses_and_frees_as_it_grows_and_shrinks() -> None:
    space, told = holding(80), []
    space.watch_high(lambda: told.append("pressed"))
    space.watch(lambda: told.append("freed"))
    space.count_quarantine(16)
    space.count_quarantine(16)
    space.count_quarantine(0)
    assert told == ["pressed", "freed"]


def test_eviction_makes_room_for_those_who_wait() -> None:
    space = holding(90)
    with space.want(20):
        assert (space.is_above_high, space.above_low_bytes) == (True, 20)
    assert (space.is_above_high, space.above_low_bytes) == (False, 0)


@pytest.mark.parametrize(("size_bytes", "can_ever_fit"), [(101, False), (100, True), (71, True)])
def test_refuses_what_does_not_fit_and_says_whether_it_ever_will(
    size_bytes: int, can_ever_fit: bool
) -> None:
    space = holding(30)
    with pytest.raises(OutOfSpace) as caught:
        space.reserve(size_bytes)
    assert caught.value.can_ever_fit is can_ever_fit
    assert (caught.value.needed_bytes, caught.value.limit_bytes) == (size_bytes, 100)
    assert space.used_bytes == 30


def test_what_fits_exactly_is_promised() -> None:
    space = holding(30)
    space.reserve(70)
    assert space.free_bytes == 0


def test_nothing_fits_into_nothing_and_an_empty_blob_does() -> None:
    space = Space(0)
    space.release(space.reserve(0))
    with pytest.raises(OutOfSpace):
        space.reserve(1)


def test_a_reservation_grows_while_there_is_space() -> None:
    space = Space(100)
    reservation = space.reserve(10)
    space.grow(reservation, 90)
    with pytest.raises(OutOfSpace) as caught:
        space.grow(reservation, 1)
    assert caught.value.can_ever_fit is False
    assert space.reserved_bytes == 100


def test_release_may_follow_an_end() -> None:
    space = Space(100)
    reservation = space.reserve(10)
    space.release(reservation)
    space.release(reservation)
    assert space.reserved_bytes == 0


def test_a_reservation_that_has_ended_cannot_be_grown() -> None:
    space = Space(100)
    reservation = space.reserve(10)
    space.release(reservation)
    with pytest.raises(ValueError, match="ended"):
        space.grow(reservation, 10)
    assert space.used_bytes == 0


def test_more_than_was_stored_cannot_be_removed() -> None:
    space = Space(100)
    space.add(10)
    with pytest.raises(ValueError, match="stored"):
        space.remove(11)
    space.remove(10)
    assert space.used_bytes == 0


@pytest.mark.parametrize(
    "act",
    [
        lambda space: space.reserve(-1),
        lambda space: space.grow(space.reserve(1), -1),
        lambda space: space.count_blobs(-1),
        lambda space: space.count_quarantine(-1),
        lambda space: space.add(-1),
        lambda space: space.remove(-1),
        lambda space: space.resize(-1),
    ],
    ids=["reserve", "grow", "blobs", "quarantine", "add", "remove", "resize"],
)
def test_there_are_no_negative_bytes(act: Callable[[Space], object]) -> None:
    with pytest.raises(ValueError, match="less than nothing"):
        act(Space(100))


def test_facts_may_exceed_the_capacity_and_then_nothing_is_promised() -> None:
    space = Space(100)
    space.add(150)
    assert (space.free_bytes, space.used_bytes) == (0, 150)
    with pytest.raises(OutOfSpace):
        space.reserve(1)
    space.resize(200)
    assert space.free_bytes == 50


def test_eviction_starts_above_the_high_watermark_and_frees_down_to_the_low_one() -> None:
    space = Space(100, watermarks=Watermarks(high=0.9, low=0.8))
    space.add(90)
    assert (space.is_above_high, space.above_low_bytes) == (False, 10)
    reservation = space.reserve(1)
    assert (space.is_above_high, space.above_low_bytes) == (True, 11)
    space.release(reservation)
    space.remove(20)
    assert (space.is_above_high, space.above_low_bytes) == (False, 0)


@pytest.mark.parametrize(("high", "low"), [(0.8, 0.9), (1.1, 0.9), (0.9, 0.0), (0.9, -1.0)])
def test_refuses_watermarks_that_make_no_sense(high: float, low: float) -> None:
    with pytest.raises(ValueError, match="watermarks"):
        Watermarks(high=high, low=low)


def test_says_what_it_holds() -> None:
    space = holding(10)
    space.reserve(5)
    assert repr(space) == "<Space 10 stored + 5 reserved of 100 bytes>"
