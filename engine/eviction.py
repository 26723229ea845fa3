"""What goes, and why: a round of eviction as a pure plan, one page of candidates at a time.

Invariant: what is pinned never goes. What was used in the last `IN_USE_S`, or is named by a
manifest that was, goes only when nothing else is left, and never for its age. A round ends: each
candidate that it is shown goes, stays, or is moved, and moves are bounded.
Pure: `now` is an argument; `engine/evictor.py` carries the plan out, the simulation only counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from engine.leftovers import Leftover
from engine.names import Digest
from engine.policies import FIRST, Balance, Candidate, Move, Order, Place, Policy, Queue

# A pull asks for the layers within seconds of the manifest; a node may wait for others first.
IN_USE_S = 60.0
PARTIAL_TTL_S = 24 * 3600.0
# A round that must move more than this to find victims (some seconds' work) takes what comes.
MAX_MOVES = 100_000


class Reason(Enum):
    """Why something went."""

    PARTIAL = "partial"  # a fill that nobody continued
    EXPIRED = "expired"  # not used for the time that its upstreams' `ttl` says
    BUDGET = "budget"  # to keep within `maxsize`
    MINFREE = "minfree"  # to leave others on the file system their share
    PURGE = "purge"  # an operator said so


@dataclass(frozen=True, slots=True)
class Victim:
    """A blob that goes, unless it is used after `used_at`."""

    digest: Digest
    disk_bytes: int
    used_at: float
    reason: Reason
    is_remembered: bool = False


@dataclass(frozen=True, slots=True)
class Guard:
    """What must stay. `find_used_at` knows of uses that the index does not have yet."""

    pinned: frozenset[Digest] = frozenset()
    named: frozenset[Digest] = frozenset()  # by manifests in use
    in_use_since: float = float("inf")
    find_used_at: Callable[[Digest], float | None] = field(default=lambda digest: None)

    def is_in_use(self, candidate: Candidate) -> bool:
        """Whether a client may be in the middle of it."""
        used_at = self.find_used_at(candidate.digest) or candidate.used_at
        return used_at >= self.in_use_since or candidate.digest in self.named


@dataclass(frozen=True, slots=True)
class Ttls:
    """How long unused content stays, in seconds, by upstream; 0 = for ever."""

    by_upstream: Mapping[str, float]
    default_s: float  # of upstreams that are not configured any more

    @property
    def shortest_s(self) -> float:
        """Nothing expires sooner."""
        return min(_or_never(ttl_s) for ttl_s in (*self.by_upstream.values(), self.default_s))

    def expires_at(self, used_at: float, upstreams: Iterable[str]) -> float:
        """When content of `upstreams` expires; it lives by the longest ttl of them."""
        ttls_s = [self.by_upstream.get(upstream, self.default_s) for upstream in upstreams]
        return used_at + max(map(_or_never, ttls_s or [self.default_s]))


def _or_never(ttl_s: float) -> float:
    return ttl_s or float("inf")


def plan_partials(leftovers: Iterable[Leftover], needed_bytes: int, now: float) -> list[Leftover]:
    """Choose partials without a lead, oldest first: all old ones, others as space is needed."""
    chosen = []
    for leftover in leftovers:
        if now - leftover.left_at >= PARTIAL_TTL_S or needed_bytes > 0:
            chosen.append(leftover)
            needed_bytes -= leftover.allocated_bytes
    return chosen


def plan_expired(
    candidates: Iterable[tuple[Candidate, Sequence[str]]], ttls: Ttls, guard: Guard, now: float
) -> list[Victim]:
    """Choose those (each with the upstreams that link it) that nobody used for their ttl."""
    return [
        Victim(candidate.digest, candidate.disk_bytes, candidate.used_at, Reason.EXPIRED)
        for candidate, upstreams in candidates
        if ttls.expires_at(candidate.used_at, upstreams) <= now
        and candidate.digest not in guard.pinned
        and not guard.is_in_use(candidate)
    ]


@dataclass(frozen=True, slots=True)
class Page:
    """What the plan must be shown next: candidates by `order`, behind `after`."""

    order: Order
    after: Place


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from one page."""

    victims: tuple[Victim, ...]
    moves: tuple[Move, ...]


class Sweep:
    """One round by a policy. Ask for `next_page`, show its candidates to `judge`, until None.

    `needed_bytes` is what is still to be freed: whoever carries out the steps keeps it true.
    """

    def __init__(
        self, policy: Policy, balance: Balance, guard: Guard, needed_bytes: int, reason: Reason
    ) -> None:
        self.needed_bytes = needed_bytes
        self.places: dict[Order, Place] = {}
        self._policy = policy
        self.guard = guard  # may be replaced as time goes by
        self._reason = reason
        self._capacity_bytes = balance.capacity_bytes
        self._new_bytes = balance.new_bytes
        self._finished: frozenset[Order] = frozenset()
        # Another lap may give more: this one moved something, or did not begin at the beginning.
        self._unsettled: set[Order] = set()
        self._move_count = 0
        self._is_last_resort = False

    def resume(self, places: Mapping[Order, Place]) -> None:
        """Go on where an earlier round stopped, by its `places`."""
        self.places.update(places)
        self._unsettled.update(places)

    def next_page(self) -> Page | None:
        """Tell what to show next; None when enough is freed, or nothing is left that may go."""
        if self.needed_bytes <= 0:
            return None
        order = self._choose_order()
        return Page(order, self.places.get(order, FIRST)) if order else None

    def judge(self, page: Page, candidates: Sequence[Candidate], now: float) -> Step:
        """Decide on a page's candidates; none at all means that its order has come to its end."""
        if not candidates:
            self._end_lap(page)
        victims: list[Victim] = []
        moves: list[Move] = []
        for candidate in candidates:
            if self.needed_bytes <= 0 or self._choose_order() is not page.order:
                break
            self.places[page.order] = candidate.place(page.order)
            if candidate.digest in self.guard.pinned:
                continue
            move = self._spare(candidate, now)
            if move is not None:
                self._note(candidate, move)
                self._unsettled.add(page.order)
                moves.append(move)
            elif self._is_last_resort or not self.guard.is_in_use(candidate):
                victims.append(self._condemn(candidate))
        return Step(tuple(victims), tuple(moves))

    def _choose_order(self) -> Order | None:
        if not self._is_last_resort:
            balance = Balance(self._capacity_bytes, self._new_bytes, self._finished)
            order = self._policy.choose_order(balance)
            if order is not None:
                return order
            self._begin_last_resort()
        return None if Order.BY_USE in self._finished else Order.BY_USE

    def _begin_last_resort(self) -> None:
        self._is_last_resort = True
        self._finished = frozenset()
        self.places[Order.BY_USE] = FIRST

    def _end_lap(self, page: Page) -> None:
        if page.order not in self._unsettled:
            self._finished |= {page.order}
        self._unsettled.discard(page.order)
        self.places[page.order] = FIRST

    def _spare(self, candidate: Candidate, now: float) -> Move | None:
        if self._is_last_resort or self._move_count >= MAX_MOVES:
            return None
        return self._policy.spare(candidate, now)

    def _note(self, candidate: Candidate, move: Move) -> None:
        self._move_count += 1
        if candidate.queue is not move.queue:
            joined = 1 if move.queue is Queue.NEW else -1
            self._new_bytes += joined * candidate.disk_bytes

    def _condemn(self, candidate: Candidate) -> Victim:
        is_new = candidate.queue is Queue.NEW
        self.needed_bytes -= candidate.disk_bytes
        self._new_bytes -= candidate.disk_bytes if is_new else 0
        return Victim(
            candidate.digest,
            candidate.disk_bytes,
            candidate.used_at,
            self._reason,
            is_remembered=is_new and self._policy.remembers,
        )
