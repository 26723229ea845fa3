"""What is counted, as metrics: names, labels and sums."""

from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from engine.live_views import (
    CacheView,
    DoneView,
    FillView,
    LaneView,
    PauseView,
    ReconcileView,
    ScrubView,
    UpstreamView,
    Weight,
)
from engine.names import Digest, Location, Repository
from engine.space import Space
from engine.upstream.kinds import Counts, Kind, RateLimit
from server.counted import Durations
from server.metric_families import histogram
from server.metrics_distribution import iter_http, iter_proxy
from server.metrics_engine import iter_cache
from server.metrics_http import iter_answers
from server.series import BOUNDS_S, Histogram
from tests.fakes.counted import make_counters
from tests.fakes.exchange import FakeExchange
from tests.fakes.scrape import Scrape

DIGEST = Digest("sha256:" + "a" * 64)
BLOB = f"/v2/secret/app/blobs/{DIGEST}".encode()
MANIFEST = b"/v2/secret/app/manifests/1"
LOCATION = Location("docker.io", Repository("secret/app"))

COUNTS = Counts(retries=3, billable_manifest_gets=7, manifest_bytes=70, blob_bytes=9_000)
COUNTS.requests[Kind.BLOB, "200"] = 4
COUNTS.refused[Kind.MANIFEST, "paused"] = 2
UPSTREAM = UpstreamView(
    "docker.io",
    "https://registry-1.docker.io",
    lanes=(LaneView("control", True, 5.0, "refused"), LaneView("blob", False, 0.0, "")),
    pauses=(PauseView("manifest", 30.0),),
    rate_limit=RateLimit(limit=100, remaining=76, window_s=21_600),
    counts=COUNTS,
)
DONE = DoneView(
    fills_ended={"done": 5, "mismatch": 1},
    fills_resumed_count=2,
    fills_retried_count=1,
    fills_adopted_count=3,
    fills_unstored_count=4,
    evicted={"budget": Weight(6, 600), "purge": Weight(0, 0)},
    scrubbed=Weight(8, 800),
    damaged_count=1,
    failed_write_count=9,
)
SEEN = CacheView(
    fills=(FillView(DIGEST, LOCATION, 100, 50, 3, 0.0, True),) * 2,
    upstreams=(UPSTREAM, replace(UPSTREAM, namespace="ghcr.io", rate_limit=None, pauses=())),
    scrub=ScrubView(True, 1, 2, 0, None),
    reconcile=ReconcileView(False, 10, 1, 2, 3, 1_000.0),
    done=DONE,
)


class Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def scrape(*families: Metric) -> Scrape:
    return Scrape.read(generate_latest(Families(list(families))).decode())


@pytest.fixture(scope="module")
def cache() -> Scrape:
    space = Space(10_000)
    space.count_blobs(5_000)
    space.count_quarantine(300)
    space.add(200)
    space.reserve(1_000)
    return scrape(*iter_cache(space, SEEN))


def hits_and_misses() -> Scrape:
    counters = make_counters(b"/v2/")
    for target in (BLOB, MANIFEST):
        for cache_status, count in (("hit", 3), ("miss", 1), ("stale", 1)):
            for _ in range(count):
                exchange = FakeExchange(target, status=200, cache_status=cache_status)
                counters.exchange_over(exchange, 1_000, 0.02)
    counters.exchange_over(FakeExchange(BLOB, status=404, cause="unknown"), 100, 0.02)
    counted = counters.snapshot()
    return scrape(
        *iter_answers(counted), *iter_proxy(counted, (UPSTREAM,) * 2), *iter_http(counted, None)
    )


def test_requests_bear_route_method_status_and_cache_status() -> None:
    rows = hits_and_misses().rows("moorage_http_requests_total")
    # cache_status, method, route, status
    assert rows["hit", "GET", "blob", "200"] == 3
    assert rows["none", "GET", "blob", "404"] == 1
    assert rows["none", "GET", "base", "200"] == 1


def test_a_histogram_is_cumulative_and_ends_with_all() -> None:
    noted = Histogram()
    for duration_s in (0.00005, 0.02, 0.02, 1_000.0):
        noted.note(duration_s)
    durations = Durations(tuple(noted.counts), noted.total_s)
    buckets = scrape(histogram("test_seconds", "Test.", (), [((), durations)])).rows(
        "test_seconds_bucket"
    )
    assert [buckets[(str(bound_s),)] for bound_s in BOUNDS_S[:8]] == [1, 1, 1, 1, 1, 1, 1, 3]
    assert (buckets["300.0",], buckets["+Inf",]) == (3, 4)
    coarse = scrape(histogram("test_seconds", "Test.", (), [((), durations)], (0.005, 60.0)))
    assert coarse.rows("test_seconds_bucket") == {("0.005",): 1, ("60.0",): 3, ("+Inf",): 4}


def test_durations_tell_hits_from_the_rest() -> None:
    rows = hits_and_misses().rows("moorage_http_request_duration_seconds_count")
    assert rows["true", "blob"] == 4
    assert rows["false", "blob"] == 2


def test_distributions_proxy_metrics_have_its_names_and_its_meaning() -> None:
    seen = hits_and_misses()
    for kind, pulled_bytes in (("blob", 18_000), ("manifest", 140)):
        assert seen.value("registry_proxy_requests_total", kind) == 5
        assert seen.value("registry_proxy_hits_total", kind) == 4
        assert seen.value("registry_proxy_misses_total", kind) == 1
        assert seen.value("registry_proxy_pushed_bytes_total", kind) == 5_000
        assert seen.value("registry_proxy_pulled_bytes_total", kind) == pulled_bytes


def test_distributions_http_metrics_have_its_labels_and_buckets() -> None:
    seen = hits_and_misses()
    # code, handler, method
    assert seen.value("registry_http_requests_total", "404", "blob", "get") == 1
    assert seen.value("registry_http_requests_total", "200", "base", "get") == 1
    buckets = seen.rows("registry_http_request_duration_seconds_bucket")
    assert {le for _, le, _ in buckets} == {
        "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0",
        "25.0", "60.0", "+Inf",
    }  # fmt: skip


def test_the_budget_is_told_in_its_parts(cache: Scrape) -> None:
    assert cache.value("moorage_storage_limit_bytes") == 10_000
    assert cache.rows("moorage_storage_used_bytes") == {
        ("blobs",): 5_000,
        ("partials",): 200,
        ("quarantine",): 300,
        ("reserved",): 1_000,
    }


def test_fills_evictions_and_upkeep_are_told(cache: Scrape) -> None:
    assert cache.value("moorage_fills_running") == 2
    assert cache.value("moorage_fill_readers") == 6
    assert cache.rows("moorage_fills_total") == {("done",): 5, ("mismatch",): 1}
    assert cache.value("moorage_fills_resumed_total") == 2
    assert cache.value("moorage_fills_retried_total") == 1
    assert cache.value("moorage_fills_adopted_total") == 3
    assert cache.value("moorage_fills_unstored_total") == 4
    assert cache.value("moorage_evicted_blobs_total", "budget") == 6
    assert cache.value("moorage_evicted_bytes_total", "budget") == 600
    assert cache.value("moorage_scrub_running") == 1
    assert cache.value("moorage_scrub_bytes_total") == 800
    assert cache.value("moorage_damaged_blobs_total") == 1
    assert cache.value("moorage_index_write_failures_total") == 9
    assert cache.value("moorage_reconcile_files", "foreign") == 3


def test_an_upstream_tells_requests_limits_breakers_and_pauses(cache: Scrape) -> None:
    assert cache.value("moorage_upstream_requests_total", "blob", "200", "docker.io") == 4
    assert cache.value("moorage_upstream_refused_total", "manifest", "paused", "docker.io") == 2
    assert cache.value("moorage_upstream_retries_total", "docker.io") == 3
    assert cache.value("moorage_upstream_billable_manifest_gets_total", "docker.io") == 7
    assert cache.rows("moorage_upstream_ratelimit_limit") == {("docker.io",): 100}
    assert cache.rows("moorage_upstream_ratelimit_remaining") == {("docker.io",): 76}
    assert cache.rows("moorage_upstream_ratelimit_window_seconds") == {("docker.io",): 21_600}
    assert cache.value("moorage_upstream_breaker_open", "control", "docker.io") == 1
    assert cache.value("moorage_upstream_breaker_open", "blob", "ghcr.io") == 0
    assert cache.value("moorage_upstream_pause_seconds", "manifest", "docker.io") == 30
    assert cache.value("moorage_upstream_pause_seconds", "manifest", "ghcr.io") == 0


def test_a_limit_that_upstream_does_not_tell_is_no_zero() -> None:
    limits = replace(UPSTREAM, rate_limit=RateLimit(limit=None, remaining=3, window_s=None))
    seen = scrape(*iter_cache(Space(1), replace(SEEN, upstreams=(limits,))))
    assert seen.rows("moorage_upstream_ratelimit_remaining") == {("docker.io",): 3}
    assert seen.rows("moorage_upstream_ratelimit_limit") == {}


def test_no_label_holds_a_repository_a_digest_or_a_cause(cache: Scrape) -> None:
    for _, value in cache.labels() | hits_and_misses().labels():
        assert "secret" not in value
        assert "sha256" not in value
        assert value != "refused"
