"""Facts of a running server, put together from what its parts tell. Pure, but for the pid.

Invariant: nothing here waits, and nothing is kept; lists are bounded, whatever goes on.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from engine.live_views import CacheView, FillView, UpstreamView
from engine.settings import EngineSettings, UpstreamSettings
from engine.space import Space
from server.config_tree import mask
from server.counted import Durations, Snapshot
from server.facts import (
    BreakerFacts,
    ErrorFacts,
    FillFacts,
    PauseFacts,
    PulledFacts,
    ReconcileFacts,
    ScrubFacts,
    ServerFacts,
    SpaceFacts,
    TrafficFacts,
    UpstreamFacts,
)
from server.recent_errors import RecentError
from server.series import BOUNDS_S, Method
from server.settings import ServerSettings

MAX_FILLS = 50
_TOP = 10
_MAX_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """What only the composition root knows."""

    state: str
    connection_count: int
    clients_at: Sequence[str]


def describe_server(
    settings: ServerSettings, standing: Standing, started_at: float, now: float
) -> ServerFacts:
    """Tell what this is."""
    return ServerFacts(
        version("moorage"),
        os.getpid(),
        started_at,
        now,
        standing.state,
        standing.connection_count,
        list(standing.clients_at),
        str(settings.engine.data_directory),
        settings.http.draintimeout_s,
    )


def describe_traffic(counted: Snapshot) -> TrafficFacts:
    """Sum up what clients were answered."""
    hits = _sum_hits(counted)
    return TrafficFacts(
        sum(each.count for each in counted.answers),
        sum(each.sent_bytes for each in counted.answers),
        counted.hit_share,
        counted.hit_bytes_share,
        counted.count_by_status(),
        quantile_s(hits, 0.5),
        quantile_s(hits, 0.99),
        counted.gone_count,
        counted.cut_count,
    )


def _sum_hits(counted: Snapshot) -> list[int]:
    sums = [0] * (len(BOUNDS_S) + 1)
    for (_, method, is_hit), durations in counted.durations.items():
        if is_hit and method is Method.GET:
            sums = _add(sums, durations)
    return sums


def _add(sums: list[int], durations: Durations) -> list[int]:
    return [mine + its for mine, its in zip(sums, durations.counts, strict=True)]


def quantile_s(counts: Sequence[int], share: float) -> float | None:
    """The bound that a `share` of durations does not exceed; None without any, or beyond all."""
    left = sum(counts) * share
    if not left:
        return None
    for count, bound_s in zip(counts, BOUNDS_S, strict=False):
        left -= count
        if left <= 0:
            return bound_s
    return None


def describe_space(space: Space, settings: EngineSettings) -> SpaceFacts:
    """Tell how full it is."""
    eviction, limit_bytes = settings.eviction, space.capacity_bytes
    return SpaceFacts(
        limit_bytes,
        space.stored_bytes,
        space.blob_bytes,
        space.quarantine_bytes,
        space.reserved_bytes,
        int(limit_bytes * eviction.highwatermark_fraction),
        int(limit_bytes * eviction.lowwatermark_fraction),
    )


def describe_fill(view: FillView) -> FillFacts:
    """Tell how far a download is."""
    return FillFacts(
        view.digest,
        str(view.location),
        view.size_bytes,
        view.written_bytes,
        view.reader_count,
        view.begun_at,
        view.is_stored,
    )


def describe_upstreams(
    views: Sequence[UpstreamView], settings: Sequence[UpstreamSettings]
) -> list[UpstreamFacts]:
    """Tell how upstreams fare, the default one first."""
    namespaces = {each.namespace: each.namespaces for each in settings}
    return [_describe_upstream(view, namespaces[view.namespace]) for view in views]


def _describe_upstream(view: UpstreamView, namespaces: Sequence[str]) -> UpstreamFacts:
    limits = view.rate_limit
    return UpstreamFacts(
        view.namespace,
        mask(view.url),
        list(namespaces),
        [BreakerFacts(lane.name, lane.wait_s, lane.cause) for lane in view.lanes if lane.is_open],
        [PauseFacts(pause.kind, pause.left_s) for pause in view.pauses],
        limits.limit if limits else None,
        limits.remaining if limits else None,
        limits.window_s if limits else None,
        view.request_count,
        view.billable_count,
    )


def describe_pulled(counted: Snapshot) -> list[PulledFacts]:
    """List the most pulled repositories."""
    return [
        PulledFacts(
            f"{each.upstream}/{each.repository}",
            each.manifest_count,
            each.blob_count,
            each.sent_bytes,
        )
        for each in counted.repositories[:_TOP]
    ]


def describe_errors(counted: Snapshot) -> list[ErrorFacts]:
    """List what went wrong, the latest first; refusals do not push failures out."""
    found = [
        _describe_error(kind, each)
        for kind, errors in (("failure", counted.failures), ("refusal", counted.refusals))
        for each in errors[:_MAX_ERRORS]
    ]
    return sorted(found, key=lambda each: each.last_at, reverse=True)


def _describe_error(kind: str, error: RecentError) -> ErrorFacts:
    return ErrorFacts(
        kind,
        error.first_at,
        error.last_at,
        error.count,
        error.status,
        "/".join(part for part in (error.upstream, error.repository) if part),
        error.digest,
        error.cause,
    )


def describe_upkeep(view: CacheView, settings: EngineSettings) -> tuple[ScrubFacts, ReconcileFacts]:
    """Tell what goes on in the background."""
    scrub, reconcile = view.scrub, view.reconcile
    return (
        ScrubFacts(
            settings.verify.interval_s > 0,
            scrub.is_running,
            scrub.checked_count,
            scrub.checked_bytes,
            scrub.damaged_count,
            scrub.finished_at,
        ),
        ReconcileFacts(
            reconcile.is_running,
            reconcile.file_count,
            reconcile.adopted_count,
            reconcile.dropped_count,
            reconcile.foreign_count,
            reconcile.finished_at,
        ),
    )
