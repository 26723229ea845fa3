"""The byte budget: what is stored, what is promised, what still fits.

Invariant: a promise never takes stored + reserved above the capacity, and neither is ever negative.
Only facts may exceed it: bytes found on disk (`add`), or a capacity that shrank (`resize`).
Pure: it neither measures disks nor evicts. Everything runs on the event loop, so no locks.
"""

from dataclasses import dataclass

from engine.errors import OutOfSpace


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """A promise of bytes to one fill; its size is `Space`'s to know. Ends by commit or release."""


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Fractions of the capacity: eviction starts at `high` and stops at `low`."""

    high: float = 0.95
    low: float = 0.90

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise ValueError(f"watermarks must be 0 < low <= high <= 1, not {self}")


class Space:
    """The accounts of one data directory, in bytes."""

    def __init__(
        self, capacity_bytes: int, stored_bytes: int = 0, watermarks: Watermarks | None = None
    ) -> None:
        self._watermarks = watermarks or Watermarks()
        self._capacity_bytes = 0
        self._stored_bytes = 0
        self._reserved: dict[Reservation, int] = {}
        self._reserved_bytes = 0
        self.resize(capacity_bytes)
        self.add(stored_bytes)

    def __repr__(self) -> str:
        return (
            f"<Space {self._stored_bytes} stored + {self._reserved_bytes} reserved"
            f" of {self._capacity_bytes} bytes>"
        )

    @property
    def capacity_bytes(self) -> int:
        """The most that promises may take."""
        return self._capacity_bytes

    @property
    def stored_bytes(self) -> int:
        """What is on disk."""
        return self._stored_bytes

    @property
    def reserved_bytes(self) -> int:
        """What is promised to fills under way."""
        return self._reserved_bytes

    @property
    def used_bytes(self) -> int:
        """Stored and reserved."""
        return self._stored_bytes + self._reserved_bytes

    @property
    def free_bytes(self) -> int:
        """What can be promised now."""
        return max(0, self._capacity_bytes - self.used_bytes)

    @property
    def is_above_high(self) -> bool:
        """Whether eviction should start."""
        return self.used_bytes > int(self._capacity_bytes * self._watermarks.high)

    @property
    def above_low_bytes(self) -> int:
        """How much eviction should free, once it has started."""
        return max(0, self.used_bytes - int(self._capacity_bytes * self._watermarks.low))

    def resize(self, capacity_bytes: int) -> None:
        """Change the capacity; what is stored or promised already stays so."""
        self._capacity_bytes = _checked(capacity_bytes)

    def add(self, size_bytes: int) -> None:
        """Count bytes that are on disk without a promise: at start, or in quarantine."""
        self._stored_bytes += _checked(size_bytes)

    def remove(self, size_bytes: int) -> None:
        """Count bytes that have left the disk. Raises ValueError if so many were never stored."""
        if _checked(size_bytes) > self._stored_bytes:
            raise ValueError(f"{size_bytes} bytes are more than {self!r} has stored")
        self._stored_bytes -= size_bytes

    def reserve(self, size_bytes: int) -> Reservation:
        """Promise `size_bytes`, to be ended by `commit` or `release`. Raises `OutOfSpace`."""
        reservation = Reservation()
        self._promise(_checked(size_bytes), size_bytes)
        self._reserved[reservation] = size_bytes
        return reservation

    def grow(self, reservation: Reservation, extra_bytes: int) -> None:
        """Promise more to a fill whose size is not known beforehand.

        Raises `OutOfSpace`, and the reservation stays what it was.
        """
        total_bytes = self._reserved_by(reservation) + _checked(extra_bytes)
        self._promise(extra_bytes, total_bytes)
        self._reserved[reservation] = total_bytes

    def commit(self, reservation: Reservation, actual_bytes: int) -> None:
        """End a promise: `actual_bytes` of it are stored now, the rest is free again.

        Raises ValueError for more than was reserved, or a reservation that has ended.
        """
        if _checked(actual_bytes) > self._reserved_by(reservation):
            raise ValueError(f"{actual_bytes} bytes are more than was reserved")
        self.release(reservation)
        self._stored_bytes += actual_bytes

    def release(self, reservation: Reservation) -> None:
        """End a promise unused. Harmless for one that has ended, so it may stand in a `finally`."""
        self._reserved_bytes -= self._reserved.pop(reservation, 0)

    def _promise(self, extra_bytes: int, total_bytes: int) -> None:
        if extra_bytes > self.free_bytes:
            fits = total_bytes <= self._capacity_bytes
            raise OutOfSpace(total_bytes, self._capacity_bytes, can_ever_fit=fits)
        self._reserved_bytes += extra_bytes

    def _reserved_by(self, reservation: Reservation) -> int:
        if reservation not in self._reserved:
            raise ValueError("the reservation has ended, or is of another Space")
        return self._reserved[reservation]


def _checked(size_bytes: int) -> int:
    if size_bytes < 0:
        raise ValueError(f"{size_bytes} bytes is less than nothing")
    return size_bytes
