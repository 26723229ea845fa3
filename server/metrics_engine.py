"""What the cache does and did, as metrics. Pure.

Invariant: labels are of configured upstreams and of the engine's own words; all of them are there
from the start, so that a rate finds the first increase. Repositories and digests are no labels.
"""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from engine.live_views import CacheView, DoneView, UpstreamView
from engine.space import Space
from engine.upstream.kinds import Kind
from server.metric_families import count, counter, gauge, level

_REFUSALS = ("paused", "breaker", "busy")


def iter_cache(space: Space, seen: CacheView) -> Iterator[Metric]:
    """List all of it."""
    yield from _iter_fills(seen)
    yield from _iter_space(space)
    yield from _iter_evictions(seen.done)
    yield from _iter_upkeep(seen)
    yield from _iter_requests(seen.upstreams)
    yield from _iter_bills(seen.upstreams)
    yield from _iter_health(seen.upstreams)


def _iter_fills(seen: CacheView) -> Iterator[Metric]:
    done = seen.done
    yield level("moorage_fills_running", "Blobs being fetched now.", len(seen.fills))
    yield level(
        "moorage_fill_readers",
        "Requests that read a blob while it is fetched.",
        sum(fill.reader_count for fill in seen.fills),
    )
    yield counter(
        "moorage_fills",
        "Fetches of blobs that ended, by outcome.",
        ("outcome",),
        (((outcome,), number) for outcome, number in done.fills_ended.items()),
    )
    for name, text, number in (
        ("resumed", "Bodies that broke off and were gone on with.", done.fills_resumed_count),
        ("retried", "Begun anew, as the bytes did not match.", done.fills_retried_count),
        ("adopted", "Gone on with from what was left on disk.", done.fills_adopted_count),
        ("unstored", "Passed on without being stored.", done.fills_unstored_count),
    ):
        yield count(f"moorage_fills_{name}", text, number)


def _iter_space(space: Space) -> Iterator[Metric]:
    yield level("moorage_storage_limit_bytes", "What the cache may hold.", space.capacity_bytes)
    leftover_bytes = space.stored_bytes - space.blob_bytes - space.quarantine_bytes
    yield gauge(
        "moorage_storage_used_bytes",
        "What the cache holds; reserved: promised to fetches under way, their files included.",
        ("kind",),
        [
            (("blobs",), space.blob_bytes),
            (("partials",), leftover_bytes),
            (("quarantine",), space.quarantine_bytes),
            (("reserved",), space.reserved_bytes),
        ],
    )


def _iter_evictions(done: DoneView) -> Iterator[Metric]:
    yield counter(
        "moorage_evicted_blobs",
        "Blobs and partials removed, by reason.",
        ("reason",),
        (((reason,), weight.count) for reason, weight in done.evicted.items()),
    )
    yield counter(
        "moorage_evicted_bytes",
        "What they took on disk.",
        ("reason",),
        (((reason,), weight.size_bytes) for reason, weight in done.evicted.items()),
    )


def _iter_upkeep(seen: CacheView) -> Iterator[Metric]:
    done, scrub, reconcile = seen.done, seen.scrub, seen.reconcile
    yield level("moorage_scrub_running", "1: stored blobs are being verified.", scrub.is_running)
    yield count("moorage_scrub_blobs", "Blobs that the scrub has read.", done.scrubbed.count)
    yield count("moorage_scrub_bytes", "Bytes that it has read.", done.scrubbed.size_bytes)
    yield level(
        "moorage_scrub_finished_timestamp_seconds",
        "When its last pass ended; 0: none has since the start.",
        scrub.finished_at or 0.0,
    )
    yield count("moorage_damaged_blobs", "Damaged blobs, moved to quarantine.", done.damaged_count)
    yield level(
        "moorage_reconcile_running", "1: index and files are being compared.", reconcile.is_running
    )
    yield level(
        "moorage_reconcile_finished_timestamp_seconds",
        "When they were last found to agree; 0: not since the start.",
        reconcile.finished_at or 0.0,
    )
    yield gauge(
        "moorage_reconcile_files",
        "What the last comparison found.",
        ("found",),
        [
            (("all",), reconcile.file_count),
            (("adopted",), reconcile.adopted_count),
            (("dropped",), reconcile.dropped_count),
            (("foreign",), reconcile.foreign_count),
        ],
    )
    yield count("moorage_index_write_failures", "Failed index writes.", done.failed_write_count)


def _iter_requests(upstreams: tuple[UpstreamView, ...]) -> Iterator[Metric]:
    yield counter(
        "moorage_upstream_requests",
        "HTTP requests to upstream, redirects included; outcome: the status, or error.",
        ("upstream", "kind", "outcome"),
        (
            ((each.namespace, kind.value, outcome), number)
            for each in upstreams
            for (kind, outcome), number in each.counts.requests.items()
        ),
    )
    yield counter(
        "moorage_upstream_refused",
        "What upstream was not asked: it is paused, taken for dead, or all connections are busy.",
        ("upstream", "kind", "reason"),
        (
            ((each.namespace, kind.value, reason), each.counts.refused[kind, reason])
            for each in upstreams
            for kind in Kind
            for reason in _REFUSALS
        ),
    )
    yield counter(
        "moorage_upstream_retries",
        "Attempts repeated after a fault.",
        ("upstream",),
        (((each.namespace,), each.counts.retries) for each in upstreams),
    )
    yield counter(
        "moorage_upstream_received_bytes",
        "Bytes of bodies received from upstream.",
        ("upstream", "kind"),
        (
            ((each.namespace, kind), number)
            for each in upstreams
            for kind, number in (
                ("manifest", each.counts.manifest_bytes),
                ("blob", each.counts.blob_bytes),
            )
        ),
    )


def _iter_bills(upstreams: tuple[UpstreamView, ...]) -> Iterator[Metric]:
    yield counter(
        "moorage_upstream_billable_manifest_gets",
        "Manifests got from upstream: what Docker Hub counts.",
        ("upstream",),
        (((each.namespace,), each.counts.billable_manifest_gets) for each in upstreams),
    )
    limited = [(each.namespace, each.rate_limit) for each in upstreams if each.rate_limit]
    for name, text, rows in (
        (
            "limit",
            "Pulls that upstream allows in a window.",
            [(name, limit.limit) for name, limit in limited],
        ),
        (
            "remaining",
            "Pulls that it said are left.",
            [(name, limit.remaining) for name, limit in limited],
        ),
        (
            "window_seconds",
            "The window.",
            [(name, limit.window_s) for name, limit in limited],
        ),
    ):
        yield gauge(
            f"moorage_upstream_ratelimit_{name}",
            text,
            ("upstream",),
            (((namespace,), number) for namespace, number in rows if number is not None),
        )


def _iter_health(upstreams: tuple[UpstreamView, ...]) -> Iterator[Metric]:
    yield gauge(
        "moorage_upstream_breaker_open",
        "1: upstream is taken for dead, and only probed.",
        ("upstream", "lane"),
        (((each.namespace, lane.name), lane.is_open) for each in upstreams for lane in each.lanes),
    )
    yield gauge(
        "moorage_upstream_pause_seconds",
        "For how long upstream is not asked any more after a 429.",
        ("upstream", "kind"),
        (
            ((each.namespace, kind.value), _left_s(each, kind))
            for each in upstreams
            for kind in Kind
        ),
    )


def _left_s(upstream: UpstreamView, kind: Kind) -> float:
    return sum(pause.left_s for pause in upstream.pauses if pause.kind == kind.value)
