"""The byte budget keeps its promises under any sequence of acts."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from engine.errors import OutOfSpace
from engine.space import Reservation, Space

SIZES = st.integers(0, 120)


class SpaceMachine(RuleBasedStateMachine):
    """Keeps its own books of what was stored and promised, one entry each."""

    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.space = Space(0)
        self.capacity = 0
        self.stored: list[int] = []
        self.blobs = 0
        self.open: dict[Reservation, int] = {}
        self.over_by_facts = 0  # how far facts alone have taken it above the capacity

    @initialize(capacity=SIZES)
    def start(self, capacity: int) -> None:
        self.resize(capacity)

    def used(self) -> int:
        return self.blobs + sum(self.stored) + sum(self.open.values())

    def fits(self, size: int) -> bool:
        return size == 0 or self.used() + size <= self.capacity

    @rule(capacity=SIZES)
    def resize(self, capacity: int) -> None:
        self.space.resize(capacity)
        self.capacity = capacity
        self.note_facts()

    @rule(size=SIZES)
    def add(self, size: int) -> None:
        self.space.add(size)
        self.stored.append(size)
        self.note_facts()

    def note_facts(self) -> None:
        self.over_by_facts = max(0, self.used() - self.capacity)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.stored:
            index = data.draw(st.integers(0, len(self.stored) - 1))
            self.space.remove(self.stored.pop(index))
            self.note_facts()

    @rule(target=reservations, size=SIZES)
    def reserve(self, size: int) -> Reservation | None:
        if not self.fits(size):
            with pytest.raises(OutOfSpace) as caught:
                self.space.reserve(size)
            assert caught.value.can_ever_fit == (size <= self.capacity)
            return None
        reservation = self.space.reserve(size)
        self.open[reservation] = size
        return reservation

    @rule(reservation=reservations, size=SIZES)
    def grow(self, reservation: Reservation | None, size: int) -> None:
        if reservation not in self.open:
            return
        if self.fits(size):
            self.space.grow(reservation, size)
            self.open[reservation] += size
        else:
            with pytest.raises(OutOfSpace):
                self.space.grow(reservation, size)

    @rule(reservation=reservations, data=st.data())
    def store(self, reservation: Reservation | None, data: st.DataObject) -> None:
        if reservation in self.open:
            self.blobs += data.draw(st.integers(0, self.open.pop(reservation)))
            self.space.count_blobs(self.blobs)
            self.space.release(reservation)
            self.note_facts()

    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        self.blobs -= data.draw(st.integers(0, self.blobs))
        self.space.count_blobs(self.blobs)
        self.note_facts()

    @rule(reservation=reservations)
    def release_even_if_it_has_ended(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self.space.release(reservation)
            self.open.pop(reservation, None)
            self.note_facts()

    @invariant()
    def books_agree(self) -> None:
        assert self.space.stored_bytes == self.blobs + sum(self.stored) >= 0
        assert self.space.reserved_bytes == sum(self.open.values()) >= 0
        assert self.space.used_bytes == self.used()
        assert self.space.capacity_bytes == self.capacity

    @invariant()
    def promises_never_exceed_the_capacity(self) -> None:
        assert self.space.used_bytes <= self.capacity + self.over_by_facts
        assert self.space.free_bytes == max(0, self.capacity - self.used())

    @invariant()
    def freeing_what_is_above_low_ends_eviction(self) -> None:
        excess = self.space.above_low_bytes
        assert 0 <= excess <= self.space.used_bytes
        if self.space.is_above_high:
            assert excess > 0
        assert self.space.used_bytes - excess <= self.capacity


TestSpace = SpaceMachine.TestCase
