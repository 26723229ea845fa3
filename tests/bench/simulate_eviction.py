"""What each eviction policy keeps of synthetic traces, at several sizes of the cache.

    python -m tests.bench.simulate_eviction [--seed N] [--policy NAME ...]

The policies and the plan are the program's own (engine/policies.py, engine/eviction.py), with its
watermarks and its batches of uses; only the index is a dictionary here. The first quarter of each
trace warms the cache and is not counted. Prints hits in percent of bytes / of requests.
"""

import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import click

from engine.eviction import IN_USE_S, Guard, Reason, Sweep
from engine.names import Digest
from engine.policies import POLICIES, Balance, Candidate, Move, Order, Place, Policy, Queue
from engine.space import Watermarks
from tests.bench.traces import SHAPES, Blob, Request, make_trace

SHARES = (0.02, 0.05, 0.10, 0.20)  # of all that is ever asked for
_WARMING_SHARE = 0.25
_FLUSH_S = 10.0  # uses within one flush are one
_MARKS = Watermarks()
_PAGE = 256


@dataclass(slots=True)
class Entry:
    """A stored blob, as the index would have it."""

    digest: Digest
    size_bytes: int
    stored_at: float
    used_at: float
    counted_at: float  # when a use was last counted
    queue: Queue
    queued_at: float
    reuse_count: int = 0

    def use(self, now: float) -> None:
        """Note a use, once for each flush; the pull that stored it is none."""
        self.used_at = now
        if now // _FLUSH_S != self.counted_at // _FLUSH_S:
            self.counted_at = now
            self.reuse_count = min(3, self.reuse_count + (now > self.stored_at + _FLUSH_S))

    def as_candidate(self) -> Candidate:
        """What the plan is shown of it."""
        return Candidate(
            self.digest,
            self.size_bytes,
            self.used_at,
            self.queue,
            self.queued_at,
            self.reuse_count,
        )


class SimulatedCache:
    """A cache of `capacity_bytes` with one policy."""

    def __init__(self, policy: Policy, capacity_bytes: int) -> None:
        self._policy = policy
        self._capacity_bytes = capacity_bytes
        self._used_bytes = 0
        self._entries: dict[Digest, Entry] = {}
        self._evicted: dict[Digest, None] = {}  # oldest first
        self._places: dict[Order, Place] = {}
        self._sorted: dict[Order, list[Candidate]] = {}

    def ask(self, digest: Digest, size_bytes: int, now: float) -> bool:
        """Ask for a blob; tell whether it was here, and store it if it was not."""
        entry = self._entries.get(digest)
        if entry is not None:
            entry.use(now)
            return True
        if size_bytes <= self._capacity_bytes:
            self._store(digest, size_bytes, now)
        return False

    def _store(self, digest: Digest, size_bytes: int, now: float) -> None:
        queue = Queue.MAIN if digest in self._evicted else Queue.NEW
        self._evicted.pop(digest, None)
        self._entries[digest] = Entry(digest, size_bytes, now, now, now, queue, now)
        self._used_bytes += size_bytes
        if self._used_bytes > self._capacity_bytes * _MARKS.high:
            self._evict(now)

    def _evict(self, now: float) -> None:
        """One round, as `engine.evictor.Evictor` goes about it."""
        needed_bytes = self._used_bytes - int(self._capacity_bytes * _MARKS.low)
        guard = Guard(in_use_since=now - IN_USE_S)
        sweep = Sweep(self._policy, self._balance(), guard, needed_bytes, Reason.BUDGET)
        sweep.resume(self._places)
        self._sorted.clear()
        while (page := sweep.next_page()) is not None:
            step = sweep.judge(page, self._page(page.order, page.after), now)
            for victim in step.victims:
                self._used_bytes -= self._entries.pop(victim.digest).size_bytes
                if victim.is_remembered:
                    self._evicted[victim.digest] = None
            for move in step.moves:
                self._move(move)
        if self._policy.keeps_place:
            self._places = sweep.places
        while len(self._evicted) > len(self._entries):
            del self._evicted[next(iter(self._evicted))]

    def _balance(self) -> Balance:
        held = self._entries.values()
        new_bytes = sum(entry.size_bytes for entry in held if entry.queue is Queue.NEW)
        return Balance(self._capacity_bytes, new_bytes)

    def _page(self, order: Order, after: Place) -> list[Candidate]:
        if order not in self._sorted:
            held = [
                entry.as_candidate()
                for entry in self._entries.values()
                if order is Order.BY_USE or entry.queue.value == order.value
            ]
            self._sorted[order] = sorted(held, key=lambda each: each.place(order))
        ordered = self._sorted[order]
        start = bisect_right(ordered, after, key=lambda each: each.place(order))
        rest = islice(ordered, start, None)
        return list(islice((each for each in rest if each.digest in self._entries), _PAGE))

    def _move(self, move: Move) -> None:
        entry = self._entries[move.digest]
        entry.queue, entry.queued_at = move.queue, move.queued_at
        entry.reuse_count = move.reuse_count
        self._sorted.clear()


@dataclass(frozen=True, slots=True)
class Result:
    """Shares of what was asked for that were hits."""

    byte_hits: float
    request_hits: float

    def __str__(self) -> str:
        return f"{100 * self.byte_hits:5.1f} /{100 * self.request_hits:5.1f}"


def simulate(trace: Sequence[Request], policy: Policy, capacity_bytes: int) -> Result:
    """Run one policy over a trace."""
    cache = SimulatedCache(policy, capacity_bytes)
    digests: dict[int, Digest] = {}
    warming_count = int(len(trace) * _WARMING_SHARE)
    hit_count = hit_bytes = asked_bytes = 0
    for number, request in enumerate(trace):
        blob = request.blob
        digest = digests.setdefault(blob.number, Digest(f"sha256:{blob.number:064x}"))
        is_hit = cache.ask(digest, blob.size_bytes, request.at)
        if number >= warming_count:
            asked_bytes += blob.size_bytes
            hit_bytes += blob.size_bytes if is_hit else 0
            hit_count += is_hit
    return Result(hit_bytes / asked_bytes, hit_count / (len(trace) - warming_count))


def footprint_bytes(trace: Sequence[Request]) -> int:
    """Sum up every blob once."""
    blobs: set[Blob] = {request.blob for request in trace}
    return sum(blob.size_bytes for blob in blobs)


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--policy", "names", type=click.Choice([*POLICIES]), multiple=True, default=POLICIES)
def main(seed: int, names: tuple[str, ...]) -> None:
    """Show what each eviction policy keeps of synthetic traces."""
    begun_at = time.monotonic()
    click.echo(f"seed {seed}; hits in % of bytes / of requests, by the cache's share of all bytes")
    for shape in SHAPES:
        trace = make_trace(shape, seed)
        total_bytes = footprint_bytes(trace)
        click.echo(f"\n{shape.name}: {len(trace):,} requests for {total_bytes / 1e9:,.0f} GB")
        click.echo(_row("", [f"{share:.0%}" for share in SHARES]))
        for name in names:
            results = [
                simulate(trace, POLICIES[name](), int(share * total_bytes)) for share in SHARES
            ]
            click.echo(_row(name, map(str, results)))
    click.echo(f"\n{time.monotonic() - begun_at:.0f} s")


def _row(name: str, cells: Iterable[str]) -> str:
    return f"{name:16}" + "".join(f"{cell:>14}" for cell in cells)


if __name__ == "__main__":
    main()
