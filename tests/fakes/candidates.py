"""Candidates in memory, read by pages as eviction reads the index."""

from collections.abc import Iterable

from engine.eviction import Step, Sweep
from engine.names import Digest
from engine.policies import Candidate, Order, Place, Queue


def digest_of(number: int) -> Digest:
    """Make the digest of a blob that is known by a number."""
    return Digest(f"sha256:{number:064x}")


def candidate_of(
    number: int,
    size: int = 10,
    used_at: float = 0.0,
    queue: Queue = Queue.NEW,
    queued_at: float = 0.0,
    reuse_count: int = 0,
) -> Candidate:
    """Make a candidate that is known by a number."""
    return Candidate(digest_of(number), size, used_at, queue, queued_at, reuse_count)


class Pool:
    """What is stored."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.candidates = {candidate.digest: candidate for candidate in candidates}
        self.evicted: list[Candidate] = []

    @property
    def new_bytes(self) -> int:
        """What is in the queue NEW."""
        held = self.candidates.values()
        return sum(each.disk_bytes for each in held if each.queue is Queue.NEW)

    def page(self, order: Order, after: Place, limit: int) -> list[Candidate]:
        """List candidates behind a place."""
        held = [
            candidate
            for candidate in self.candidates.values()
            if candidate.place(order) > after
            and (order is Order.BY_USE or candidate.queue.value == order.value)
        ]
        return sorted(held, key=lambda each: each.place(order))[:limit]

    def run(self, sweep: Sweep, now: float, page_size: int = 3) -> list[int]:
        """Carry a round out to its end; return the numbers of what went, in order."""
        already = len(self.evicted)
        while (page := sweep.next_page()) is not None:
            self._apply(sweep.judge(page, self.page(page.order, page.after, page_size), now))
        return [int(gone.digest.hex, 16) for gone in self.evicted[already:]]

    def _apply(self, step: Step) -> None:
        for victim in step.victims:
            self.evicted.append(self.candidates.pop(victim.digest))
        for move in step.moves:
            self.candidates[move.digest] = self.candidates[move.digest]._replace(
                queue=move.queue,
                queued_at=move.queued_at,
                reuse_count=move.reuse_count,
            )
