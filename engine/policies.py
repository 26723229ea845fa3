"""Which content goes first when space is needed: four policies over the same two queues.

Invariant: a policy sees a candidate, never the cache; whatever it decides can be carried out on the
index one row at a time, and stands while others use the cache. A candidate that is asked about
again and again goes in the end, if nobody uses it meanwhile.
Pure. tests/bench/simulate_eviction.py measures these very classes; engine/README.md has the table.

Content enters the queue NEW; MAIN holds what has proved its worth. Places in a queue are times.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from engine.names import Digest


class Queue(Enum):
    """Where a blob waits."""

    NEW = "new"
    MAIN = "main"


class Order(Enum):
    """What blobs can be read by: their last use, or their place in a queue."""

    BY_USE = "use"
    BY_NEW = "new"
    BY_MAIN = "main"


# The first of an order comes behind this one; digests make every place unique.
Place = tuple[float, str]
FIRST: Place = (float("-inf"), "")


# Made on the loop, a page at a time; to make a dataclass takes 4 times as long.
class Candidate(NamedTuple):
    """A stored blob, as the index has it. Times are unix seconds."""

    digest: Digest
    disk_bytes: int  # its size, rounded up to the file system's blocks
    used_at: float
    queue: Queue = Queue.NEW
    queued_at: float = 0.0
    reuse_count: int = 0  # batches of uses since it came into the queue, at most 3

    def place(self, order: Order) -> Place:
        """Where it stands in an order."""
        return (self.used_at if order is Order.BY_USE else self.queued_at, self.digest)


@dataclass(frozen=True, slots=True)
class Move:
    """A candidate that stays, and what is noted of it."""

    digest: Digest
    queue: Queue
    queued_at: float
    reuse_count: int


@dataclass(frozen=True, slots=True)
class Balance:
    """What a policy must know of the whole. `finished`: orders that have nothing more to give."""

    capacity_bytes: int
    new_bytes: int  # in the queue NEW
    finished: frozenset[Order] = frozenset()


class Policy(Protocol):
    """Decides. `keeps_place`: a round goes on where the last one stopped, not at the beginning.

    `remembers`: what goes from NEW is noted, and enters MAIN should it be fetched again.
    """

    keeps_place: bool
    remembers: bool

    def choose_order(self, balance: Balance) -> Order | None:
        """Choose what to read next; None where nothing is left."""

    def spare(self, candidate: Candidate, now: float) -> Move | None:
        """Let a candidate stay and say what to note of it; None lets it go."""


class LeastRecentlyUsed:
    """What was not used for longest."""

    keeps_place = False
    remembers = False

    def choose_order(self, balance: Balance) -> Order | None:
        """By last use."""
        return None if Order.BY_USE in balance.finished else Order.BY_USE

    def spare(self, candidate: Candidate, now: float) -> Move | None:
        """Never."""
        return None


class UsedOnceFirst:
    """What was not used since it was stored, oldest first; then what was not used for longest."""

    keeps_place = False
    remembers = False

    def choose_order(self, balance: Balance) -> Order | None:
        """NEW to its end, then all by last use."""
        for order in (Order.BY_NEW, Order.BY_USE):
            if order not in balance.finished:
                return order
        return None

    def spare(self, candidate: Candidate, now: float) -> Move | None:
        """What was used again moves on to MAIN."""
        if candidate.queue is Queue.NEW and candidate.reuse_count:
            return Move(candidate.digest, Queue.MAIN, now, 0)
        return None


class Sieve:
    """SIEVE (Zhang et al., NSDI 2024): a hand goes over one queue, oldest to newest.

    What was used since the hand came by stays in its place, once.
    """

    keeps_place = True
    remembers = False

    def choose_order(self, balance: Balance) -> Order | None:
        """NEW is the queue. What another policy left in MAIN comes back to it first."""
        for order in (Order.BY_MAIN, Order.BY_NEW):
            if order not in balance.finished:
                return order
        return None

    def spare(self, candidate: Candidate, now: float) -> Move | None:
        """Take a use into account by forgetting it."""
        if candidate.queue is Queue.MAIN or candidate.reuse_count:
            return Move(candidate.digest, Queue.NEW, candidate.queued_at, 0)
        return None


class S3Fifo:
    """S3-FIFO (Yang et al., SOSP 2023): a small queue sifts what is used once from what is not.

    MAIN is a queue, too, in which each batch of uses, up to 3, buys another round.
    One deviation: uses while content is young do not lift it into MAIN. A CI image is pulled by
    all jobs of its pipeline within minutes and never again.
    """

    keeps_place = False
    remembers = True
    new_fraction = 0.10  # of the capacity, as published
    young_s = 600.0

    def choose_order(self, balance: Balance) -> Order | None:
        """NEW while it has more than its share, else MAIN."""
        is_new_large = balance.new_bytes > balance.capacity_bytes * self.new_fraction
        orders = (Order.BY_NEW, Order.BY_MAIN) if is_new_large else (Order.BY_MAIN, Order.BY_NEW)
        for order in orders:
            if order not in balance.finished:
                return order
        return None

    def spare(self, candidate: Candidate, now: float) -> Move | None:
        """From NEW into MAIN what was used again; in MAIN to the end, for a use less."""
        if not candidate.reuse_count:
            return None
        if candidate.queue is Queue.MAIN:
            return Move(candidate.digest, Queue.MAIN, now, candidate.reuse_count - 1)
        if candidate.used_at <= candidate.queued_at + self.young_s:
            return None
        return Move(candidate.digest, Queue.MAIN, now, 0)


POLICIES: dict[str, type[Policy]] = {
    "lru": LeastRecentlyUsed,
    "used-once-first": UsedOnceFirst,
    "sieve": Sieve,
    "s3-fifo": S3Fifo,
}
