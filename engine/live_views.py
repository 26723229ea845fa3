"""What goes on in a running cache, as values for people and programs that look. Pure.

Invariant: a view is of one moment and never changes; taking one asks nobody and waits for nothing.
"""

from dataclasses import dataclass, field

from engine.names import Digest, Location
from engine.upstream.kinds import Counts, RateLimit


@dataclass(frozen=True, slots=True)
class FillView:
    """A fill under way. `written_bytes` counts what an earlier run left, too.

    `size_bytes` None: not known yet. `begun_at` is unix seconds. `is_stored`: it has room on disk.
    """

    digest: Digest
    location: Location
    size_bytes: int | None
    written_bytes: int
    reader_count: int
    begun_at: float
    is_stored: bool


@dataclass(frozen=True, slots=True)
class LaneView:
    """A circuit breaker. `wait_s`: until upstream is probed, while it `is_open`."""

    name: str
    is_open: bool
    wait_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class PauseView:
    """A kind of requests that upstream has rate-limited, and how long for."""

    kind: str
    left_s: float


@dataclass(frozen=True, slots=True)
class UpstreamView:
    """How an upstream fares. `rate_limit`: as its answers last said it."""

    namespace: str
    url: str
    lanes: tuple[LaneView, ...] = ()
    pauses: tuple[PauseView, ...] = ()
    rate_limit: RateLimit | None = None
    request_count: int = 0
    billable_count: int = 0
    counts: Counts = field(default_factory=Counts)  # a copy


@dataclass(frozen=True, slots=True)
class ScrubView:
    """The scrub since the start; `checked_…` are of the pass under way, else of the last one.

    `finished_at`: unix seconds, None before the first pass is over.
    """

    is_running: bool
    checked_count: int
    checked_bytes: int
    damaged_count: int
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class ReconcileView:
    """How far index and files were compared; counts are of the pass under way, else the last."""

    is_running: bool
    file_count: int
    adopted_count: int
    dropped_count: int
    foreign_count: int
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class Weight:
    """So many blobs of so many bytes."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DoneView:
    """What was done since the start. Mappings have every key there can be.

    `fills_ended` is by `engine.fill.Outcome`'s names, `evicted` by `engine.eviction.Reason`'s
    values. `scrubbed` has damaged blobs in it, too; `damaged_count` is of all that went into
    quarantine, whoever found it.
    """

    fills_ended: dict[str, int]
    fills_resumed_count: int  # bodies that broke off, and were gone on with
    fills_retried_count: int  # begun anew, as the bytes did not match
    fills_adopted_count: int  # gone on with from what an earlier fill had left
    fills_unstored_count: int  # passed on to clients, and not stored
    evicted: dict[str, Weight]
    scrubbed: Weight
    damaged_count: int
    failed_write_count: int  # of the index


@dataclass(frozen=True, slots=True)
class CacheView:
    """All of it."""

    fills: tuple[FillView, ...]
    upstreams: tuple[UpstreamView, ...]
    scrub: ScrubView
    reconcile: ReconcileView
    done: DoneView
