"""All that a running server shows of itself, to the status page, `status` and `top` alike. Pure.

Invariant: these are the names that programs read in `/api/v1/status`; times are unix seconds, sizes
bytes. Text in them comes from outside (repositories, causes): whoever shows it must escape it.
"""

import msgspec


class ServerFacts(msgspec.Struct, frozen=True):
    """`state`: starting, ready or draining. `clients_at`: URLs without a path, unix sockets too."""

    version: str
    pid: int
    started_at: float
    now: float
    state: str
    connection_count: int
    clients_at: list[str]
    data_directory: str
    drain_timeout_s: float


class TrafficFacts(msgspec.Struct, frozen=True):
    """Finished exchanges since the start. Shares are None before there is anything to share.

    `hit_p50_s`, `hit_p99_s`: how long hits took, rounded up to a bucket of the histogram.
    """

    request_count: int
    sent_bytes: int
    hit_share: float | None
    hit_bytes_share: float | None
    answers: dict[str, int]
    hit_p50_s: float | None
    hit_p99_s: float | None
    gone_count: int
    cut_count: int


class Sample(msgspec.Struct, frozen=True):
    """Totals since the start at one moment: their differences are rates.

    `cached_count`: answers that the cache had a part in; `hit_count`: hits among them.
    """

    at: float
    request_count: int
    cached_count: int
    hit_count: int
    sent_bytes: int


class SpaceFacts(msgspec.Struct, frozen=True):
    """The budget: `stored_bytes` is blobs, partials and quarantine."""

    limit_bytes: int
    stored_bytes: int
    blob_bytes: int
    quarantine_bytes: int
    reserved_bytes: int
    high_bytes: int
    low_bytes: int


class FillFacts(msgspec.Struct, frozen=True):
    """A download under way. `size_bytes` None: not known yet."""

    digest: str
    repository: str
    size_bytes: int | None
    written_bytes: int
    reader_count: int
    begun_at: float
    is_stored: bool


class BreakerFacts(msgspec.Struct, frozen=True):
    """An open circuit breaker: nobody is let through for `wait_s`."""

    lane: str
    wait_s: float
    cause: str


class PauseFacts(msgspec.Struct, frozen=True):
    """A kind of request that upstream has rate-limited."""

    kind: str
    left_s: float


class UpstreamFacts(msgspec.Struct, frozen=True):
    """An upstream. `limit`, `remaining`: as it last said (Docker Hub), None = it did not."""

    name: str
    url: str
    namespaces: list[str]
    breakers: list[BreakerFacts]
    pauses: list[PauseFacts]
    limit: int | None
    remaining: int | None
    window_s: int | None
    request_count: int
    billable_count: int


class PulledFacts(msgspec.Struct, frozen=True):
    """What a repository was served."""

    repository: str
    manifest_count: int
    blob_count: int
    sent_bytes: int


class LargeFacts(msgspec.Struct, frozen=True):
    """What a repository takes; `own_bytes` of it no other repository links."""

    repository: str
    blob_count: int
    stored_bytes: int
    own_bytes: int
    used_at: float | None


class VictimFacts(msgspec.Struct, frozen=True):
    """What is evicted next. `needed_bytes`: how much must be stored first; 0 = it goes now."""

    digest: str
    disk_bytes: int
    used_at: float
    reason: str
    needed_bytes: int


class SurveyFacts(msgspec.Struct, frozen=True):
    """What was found in the index at a time."""

    at: float
    blob_count: int
    repository_count: int
    largest: list[LargeFacts]
    victims: list[VictimFacts]


class ErrorFacts(msgspec.Struct, frozen=True):
    """Like failures, and what the last one of them was. `kind`: failure or refusal."""

    kind: str
    first_at: float
    last_at: float
    count: int
    status: int
    repository: str
    digest: str
    cause: str


class ScrubFacts(msgspec.Struct, frozen=True):
    """The background verification; counts are of the pass under way, else of the last one."""

    is_on: bool
    is_running: bool
    checked_count: int
    checked_bytes: int
    damaged_count: int
    finished_at: float | None


class ReconcileFacts(msgspec.Struct, frozen=True):
    """Index and files compared."""

    is_running: bool
    file_count: int
    adopted_count: int
    dropped_count: int
    foreign_count: int
    finished_at: float | None


class Facts(msgspec.Struct, tag="facts", frozen=True):
    """All of it. `survey` None: the index is being read for the first time."""

    server: ServerFacts
    traffic: TrafficFacts
    samples: list[Sample]
    space: SpaceFacts
    fills: list[FillFacts]
    upstreams: list[UpstreamFacts]
    pulled: list[PulledFacts]
    survey: SurveyFacts | None
    errors: list[ErrorFacts]
    scrub: ScrubFacts
    reconcile: ReconcileFacts
