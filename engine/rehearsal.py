"""A round of eviction that changes nothing: who would go, in which order.

Invariant: the policy sees what it would see if its acts were carried out, although they are only
noted here. What a server alone knows is missing: uses of the last seconds that the index has not
got yet, and the place where a policy that keeps one (SIEVE) would go on.
"""

from collections.abc import AsyncIterator

from engine.eviction import Guard, Sweep, Ttls, Victim, plan_expired
from engine.index_eviction import IndexEviction
from engine.names import Digest
from engine.policies import FIRST, Candidate, Move, Order, Place, Queue

PAGE = 256
_QUEUES = {Order.BY_NEW: Queue.NEW, Order.BY_MAIN: Queue.MAIN}


class Rehearsal:
    """Rehearses on an index that may be open for reading only."""

    def __init__(self, index: IndexEviction) -> None:
        self._index = index
        self._gone: set[Digest] = set()
        self._moved: dict[Digest, Candidate] = {}
        self._seen: dict[Digest, Candidate] = {}

    async def iter_expired(self, ttls: Ttls, guard: Guard, now: float) -> AsyncIterator[Victim]:
        """What goes for its age, whether space is needed or not."""
        place, before = FIRST, now - ttls.shortest_s
        while page := await self._index.page_unused(before, place, PAGE):
            place = page[-1][0].place(Order.BY_USE)
            for victim in plan_expired(page, ttls, guard, now):
                self._gone.add(victim.digest)
                yield victim

    async def iter_swept(self, sweep: Sweep, now: float) -> AsyncIterator[Victim]:
        """What goes when space is needed, as much as `sweep` needs."""
        while (page := sweep.next_page()) is not None:
            candidates = await self._page(page.order, page.after)
            self._seen = {candidate.digest: candidate for candidate in candidates}
            step = sweep.judge(page, candidates, now)
            for move in step.moves:
                self._note(move)
            for victim in step.victims:
                self._gone.add(victim.digest)
                yield victim

    def _note(self, move: Move) -> None:
        self._moved[move.digest] = self._seen[move.digest]._replace(
            queue=move.queue,
            queued_at=move.queued_at,
            reuse_count=move.reuse_count,
        )

    async def _page(self, order: Order, after: Place) -> list[Candidate]:
        """A page as it would be: without those that went, and those that moved where they are."""
        found: list[Candidate] = []
        place = after
        while len(found) < PAGE and (page := await self._index.page(order, place, PAGE)):
            place = page[-1].place(order)
            found += [each for each in page if not self._is_changed(each.digest)]
        queue = _QUEUES.get(order)
        found += [
            each
            for each in self._moved.values()
            if each.digest not in self._gone
            and each.place(order) > after
            and queue in (None, each.queue)
        ]
        found.sort(key=lambda each: each.place(order))
        return found[:PAGE]

    def _is_changed(self, digest: Digest) -> bool:
        return digest in self._gone or digest in self._moved
