"""What `Counters` has counted, as values that do not change any more. Pure.

Invariant: all numbers count from `started_at` and never go back; a share is None where there is
nothing to share.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from server.recent_errors import RecentError
from server.series import Method, RouteKind

K = TypeVar("K", bound=Hashable)

# What was answered without the cache: errors, `/v2/`, refusals.
NONE = "none"
# What was served from here, whether upstream was asked about it or not.
HITS = frozenset({"hit", "revalidated", "stale"})


@dataclass(frozen=True, slots=True)
class Answers:
    """Exchanges of one kind. `cache_status` is `server.provenance`'s word, or `NONE`.

    `status` 0: the client went before there was an answer. `sent_bytes` has heads in it.
    """

    route: RouteKind
    method: Method
    status: int
    cache_status: str
    count: int
    sent_bytes: int

    @property
    def is_hit(self) -> bool:
        """Whether the content was here."""
        return self.cache_status in HITS


@dataclass(frozen=True, slots=True)
class Durations:
    """How long exchanges took, by `server.series.BOUNDS_S`; `counts` are not cumulative."""

    counts: tuple[int, ...]
    total_s: float


def add_up(parts: Iterable[tuple[K, Durations]]) -> dict[K, Durations]:
    """Add up what has the same key."""
    sums: dict[K, Durations] = {}
    for key, part in parts:
        earlier = sums.get(key)
        if earlier is not None:
            counts = tuple(map(int.__add__, earlier.counts, part.counts))
            part = Durations(counts, earlier.total_s + part.total_s)
        sums[key] = part
    return sums


@dataclass(frozen=True, slots=True)
class RepositoryPulls:
    """What a repository was served since it is known here; see `server.pulls`."""

    upstream: str
    repository: str
    manifest_count: int
    blob_count: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counters at one moment. `started_at` is unix seconds.

    `durations` is by route, method and whether it was a hit. `first_bytes` is of bodies that were
    sent while they arrived: from the request to the response's head. `failures` are faults of
    ours, of upstream or of the disk; `refusals` are faults of the request. `repositories` are the
    100 most pulled, most first; `failures` and `refusals` begin with the latest.
    """

    started_at: float
    answers: tuple[Answers, ...]
    durations: dict[tuple[RouteKind, Method, bool], Durations]
    first_bytes: Durations
    gone_count: int  # answers whose client went before their end
    cut_count: int  # answers that were cut off here, as they could not be ended
    repositories: tuple[RepositoryPulls, ...]
    failures: tuple[RecentError, ...]
    refusals: tuple[RecentError, ...]

    def count_by_status(self) -> dict[str, int]:
        """Count answers by cache status."""
        counts: Counter[str] = Counter()
        for each in self.answers:
            counts[each.cache_status] += each.count
        return dict(counts)

    @property
    def hit_share(self) -> float | None:
        """The share of hits in the answers that the cache had a part in."""
        return _share((each, each.count) for each in self.answers)

    @property
    def hit_bytes_share(self) -> float | None:
        """The share of hits in what these answers sent."""
        return _share((each, each.sent_bytes) for each in self.answers)


def _share(parts: Iterable[tuple[Answers, int]]) -> float | None:
    counted = [(each.is_hit, weight) for each, weight in parts if each.cache_status != NONE]
    whole = sum(weight for _, weight in counted)
    return sum(weight for is_hit, weight in counted if is_hit) / whole if whole else None
