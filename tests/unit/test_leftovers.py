"""Partials without a lead, and their bytes in the accounts."""

from engine.leftovers import Leftover, Leftovers
from engine.names import Digest
from engine.space import Space

FIRST, SECOND = (Digest(f"sha256:{digit * 64}") for digit in "12")


def test_a_leftover_is_counted_until_somebody_takes_it() -> None:
    space = Space(1000)
    leftovers = Leftovers(space)
    leftovers.add(Leftover(FIRST, 100, 5.0))
    assert (space.stored_bytes, len(leftovers)) == (100, 1)
    assert leftovers.take(FIRST) == Leftover(FIRST, 100, 5.0)
    assert (space.stored_bytes, len(leftovers)) == (0, 0)


def test_only_one_gets_it() -> None:
    leftovers = Leftovers(Space(1000))
    leftovers.add(Leftover(FIRST, 100, 5.0))
    assert leftovers.take(FIRST) is not None
    assert leftovers.take(FIRST) is None


def test_one_that_is_left_again_is_counted_once() -> None:
    space = Space(1000)
    leftovers = Leftovers(space)
    leftovers.add(Leftover(FIRST, 100, 5.0))
    leftovers.add(Leftover(FIRST, 300, 6.0))
    assert (space.stored_bytes, len(leftovers)) == (300, 1)


def test_the_oldest_come_first() -> None:
    leftovers = Leftovers(Space(1000))
    leftovers.add(Leftover(FIRST, 100, 7.0))
    leftovers.add(Leftover(SECOND, 100, 5.0))
    assert [leftover.digest for leftover in leftovers.oldest_first()] == [SECOND, FIRST]
