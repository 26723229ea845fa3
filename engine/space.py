"""The byte budget: what is stored, what is promised, what still fits.

Invariant: a promise never takes stored + reserved above the capacity, and neither is ever negative.
Only facts may exceed it: bytes found on disk, or a capacity that shrank (`resize`).
Blobs are counted by the index itself: after each of its transactions it says what all of its rows'
files take (`count_blobs`), so whoever adds or drops a row has nothing to count here; what a lost
index lacks is added (engine/blob_count.py). While nobody knows that, nothing is promised. Until it
is listed, watermarks do not apply: nothing goes but for what would not fit otherwise, since what is
listed so far need not be what is needed least.
Quarantine is counted by looking at it now and then. Partials without a lead are added and removed
one by one.
Every size is rounded up to the file system's blocks.
Pure: it neither measures disks nor evicts. Everything runs on the event loop, so no locks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from engine.blob_count import BlobCount
from engine.errors import OutOfSpace


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """A promise of bytes to one fill; its size is `Space`'s to know. Ends by release.

    For content that was stored: once its row is written. Until then its bytes are not counted; for
    a moment in between they are counted twice, which errs on the safe side.
    """


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
        self,
        capacity_bytes: int,
        watermarks: Watermarks | None = None,
        *,
        block_bytes: int = 1,
    ) -> None:
        self.blobs = BlobCount()
        self.block_bytes = block_bytes
        self._watermarks = watermarks or Watermarks()
        self._capacity_bytes = 0
        self._quarantine_bytes = 0
        self._partial_bytes = 0
        self._reserved: dict[Reservation, int] = {}
        self._reserved_bytes = 0
        self._wanted_bytes = 0
        self._watchers: list[Callable[[], None]] = []
        self._pressed: list[Callable[[], None]] = []
        self.resize(capacity_bytes)

    def __repr__(self) -> str:
        return (
            f"<Space {self.stored_bytes} stored + {self._reserved_bytes} reserved"
            f" of {self._capacity_bytes} bytes>"
        )

    def set_watermarks(self, watermarks: Watermarks) -> None:
        """Start and stop eviction elsewhere from now on."""
        self._watermarks = watermarks

    @property
    def capacity_bytes(self) -> int:
        """The most that promises may take."""
        return self._capacity_bytes

    @property
    def stored_bytes(self) -> int:
        """What is on disk: blobs, partials without a lead, quarantine."""
        return self.blob_bytes + self._quarantine_bytes + self._partial_bytes

    @property
    def blob_bytes(self) -> int:
        """What blobs take of it."""
        return self.blobs.total_bytes

    @property
    def reserved_bytes(self) -> int:
        """What is promised to fills under way."""
        return self._reserved_bytes

    @property
    def used_bytes(self) -> int:
        """Stored and reserved."""
        return self.stored_bytes + self._reserved_bytes

    @property
    def free_bytes(self) -> int:
        """What can be promised now."""
        return max(0, self._capacity_bytes - self.used_bytes) if self.blobs.is_known else 0

    @property
    def is_above_high(self) -> bool:
        """Whether eviction should start: what is used, and wanted by who waits, is too much."""
        high_bytes = self._watermark_bytes(self._watermarks.high)
        return self.used_bytes + self._wanted_bytes > high_bytes

    @property
    def above_low_bytes(self) -> int:
        """How much eviction should free, once it has started."""
        low_bytes = self._watermark_bytes(self._watermarks.low)
        return max(0, self.used_bytes + self._wanted_bytes - low_bytes)

    def watch_high(self, pressed: Callable[[], None]) -> None:
        """Call `pressed` whenever bytes were added and eviction should start."""
        self._pressed.append(pressed)

    def watch(self, freed: Callable[[], None]) -> None:
        """Call `freed` whenever there may be more to promise than before."""
        self._watchers.append(freed)

    @contextmanager
    def want(self, size_bytes: int) -> Iterator[None]:
        """Have eviction make room for `size_bytes` that cannot be promised now, while it waits."""
        self._wanted_bytes += _checked(size_bytes)
        try:
            yield
        finally:
            self._wanted_bytes -= size_bytes

    def resize(self, capacity_bytes: int) -> None:
        """Change the capacity; what is stored or promised already stays so."""
        self._capacity_bytes = _checked(capacity_bytes)
        self._tell_freed()

    def count_blobs(self, listed_bytes: int, corrected_bytes: int = 0) -> None:
        """Count all blobs anew, as `BlobCount.list_bytes` does."""
        before_bytes = self.blob_bytes
        self.blobs.list_bytes(_checked(listed_bytes), corrected_bytes)
        if self.blob_bytes < before_bytes:
            self._tell_freed()
        elif self.blob_bytes > before_bytes:
            self._tell_added()

    def count_files(self, total_bytes: int) -> None:
        """Count the files of all blobs, listed or not."""
        self.blobs.count_files(_checked(total_bytes))
        self._tell_freed()
        self._tell_added()

    def settle_blobs(self) -> None:
        """Note that the index lists all blobs: watermarks apply again."""
        self.blobs.settle()
        self._tell_freed()
        self._tell_added()

    @property
    def quarantine_bytes(self) -> int:
        """What is in quarantine, as it was last counted."""
        return self._quarantine_bytes

    def count_quarantine(self, total_bytes: int) -> None:
        """Count quarantine anew."""
        before_bytes, self._quarantine_bytes = self._quarantine_bytes, _checked(total_bytes)
        if total_bytes < before_bytes:
            self._tell_freed()
        elif total_bytes > before_bytes:
            self._tell_added()

    def add(self, size_bytes: int) -> None:
        """Count a partial that is on disk and has no lead."""
        self._partial_bytes += self._rounded(size_bytes)
        self._tell_added()

    def remove(self, size_bytes: int) -> None:
        """Count that it has left, or has one. Raises ValueError if so much was never added."""
        if self._rounded(size_bytes) > self._partial_bytes:
            raise ValueError(f"{size_bytes} bytes are more than {self!r} has stored")
        self._partial_bytes -= self._rounded(size_bytes)
        self._tell_freed()

    def reserve(self, size_bytes: int) -> Reservation:
        """Promise `size_bytes`, to be ended by `release`. Raises `OutOfSpace`."""
        reservation = Reservation()
        rounded_bytes = self._rounded(size_bytes)
        self._promise(rounded_bytes, rounded_bytes)
        self._reserved[reservation] = rounded_bytes
        return reservation

    def grow(self, reservation: Reservation, extra_bytes: int) -> None:
        """Promise more to a fill whose size is not known beforehand.

        Raises `OutOfSpace`, and the reservation stays what it was.
        """
        rounded_bytes = self._rounded(extra_bytes)
        total_bytes = self._reserved_by(reservation) + rounded_bytes
        self._promise(rounded_bytes, total_bytes)
        self._reserved[reservation] = total_bytes

    def release(self, reservation: Reservation) -> None:
        """End a promise. Harmless for one that has ended, so it may stand in a `finally`."""
        self._reserved_bytes -= self._reserved.pop(reservation, 0)
        self._tell_freed()

    def _tell_added(self) -> None:
        if self.is_above_high:
            for pressed in self._pressed:
                pressed()

    def _tell_freed(self) -> None:
        for freed in self._watchers:
            freed()

    def _promise(self, extra_bytes: int, total_bytes: int) -> None:
        if extra_bytes > self.free_bytes:
            fits = total_bytes <= self._capacity_bytes
            raise OutOfSpace(total_bytes, self._capacity_bytes, can_ever_fit=fits)
        self._reserved_bytes += extra_bytes
        self._tell_added()

    def _reserved_by(self, reservation: Reservation) -> int:
        if reservation not in self._reserved:
            raise ValueError("the reservation has ended, or is of another Space")
        return self._reserved[reservation]

    def _rounded(self, size_bytes: int) -> int:
        return -(-_checked(size_bytes) // self.block_bytes) * self.block_bytes

    def _watermark_bytes(self, fraction: float) -> int:
        return (
            int(self._capacity_bytes * fraction) if self.blobs.is_settled else self._capacity_bytes
        )


def _checked(size_bytes: int) -> int:
    if size_bytes < 0:
        raise ValueError(f"{size_bytes} bytes is less than nothing")
    return size_bytes
