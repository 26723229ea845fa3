"""What finished exchanges are counted as, and that memory stays bounded whatever is asked for."""

from engine.names import Location, Repository
from server.counted import Answers, RepositoryPulls
from server.counters import Counters
from server.exchange import CLIENT_GONE
from server.pulls import PullTable
from server.series import BOUNDS_S, Histogram, Method, RouteKind
from tests.fakes.counted import Clock, make_counters
from tests.fakes.exchange import FakeExchange

DIGEST = "sha256:" + "a" * 64
BLOB = f"/v2/library/busybox/blobs/{DIGEST}".encode()
MANIFEST = b"/v2/busybox/manifests/1.35"


def hit(target: bytes, **given: object) -> FakeExchange:
    exchange = FakeExchange(target, status=200, cache_status="hit", upstream="docker.io")
    for name, value in given.items():
        setattr(exchange, name, value)
    return exchange


def failed(status: int, cause: str, target: bytes = BLOB) -> FakeExchange:
    return hit(target, status=status, cache_status="", cause=cause)


def test_exchanges_are_counted_by_route_method_status_and_cache_status() -> None:
    counters = make_counters()
    counters.exchange_over(hit(BLOB), 1_000, 0.001)
    counters.exchange_over(hit(BLOB), 500, 0.001)
    counters.exchange_over(hit(BLOB, method=b"HEAD"), 200, 0.001)
    counters.exchange_over(hit(MANIFEST, cache_status="miss"), 300, 0.2)
    counters.exchange_over(FakeExchange(b"/v2/", method=b"POST", status=405), 90, 0.001)
    counters.exchange_over(FakeExchange(b"/nowhere", status=404), 80, 0.001)
    assert set(counters.snapshot().answers) == {
        Answers(RouteKind.BLOB, Method.GET, 200, "hit", 2, 1_500),
        Answers(RouteKind.BLOB, Method.HEAD, 200, "hit", 1, 200),
        Answers(RouteKind.MANIFEST, Method.GET, 200, "miss", 1, 300),
        Answers(RouteKind.BASE, Method.OTHER, 405, "none", 1, 90),
        Answers(RouteKind.OTHER, Method.GET, 404, "none", 1, 80),
    }


def test_every_endpoint_has_its_own_route() -> None:
    targets = {
        b"/": RouteKind.ROOT,
        b"/v2/": RouteKind.BASE,
        b"/v2/_catalog?n=5": RouteKind.CATALOG,
        b"/v2/busybox/tags/list": RouteKind.TAGS,
        b"/v2/busybox/referrers/" + DIGEST.encode(): RouteKind.REFERRERS,
        MANIFEST: RouteKind.MANIFEST,
        BLOB: RouteKind.BLOB,
        b"/v2/busybox/blobs/sha256:short": RouteKind.OTHER,
        b"-": RouteKind.OTHER,
    }
    for target, route in targets.items():
        assert [each.route for each in make_counters(target).snapshot().answers] == [route]


def test_hit_shares_leave_out_what_the_cache_had_no_part_in() -> None:
    counters = make_counters(b"/v2/", b"/v2/")
    assert counters.snapshot().hit_share is None
    counters.exchange_over(hit(BLOB), 900, 0.001)
    counters.exchange_over(hit(MANIFEST, cache_status="stale"), 50, 0.001)
    counters.exchange_over(hit(BLOB, cache_status="collapsed"), 50, 0.001)
    counters.exchange_over(hit(BLOB, cache_status="miss"), 1_000, 0.001)
    seen = counters.snapshot()
    assert (seen.hit_share, seen.hit_bytes_share) == (0.5, 0.475)
    assert seen.count_by_status() == {"none": 2, "hit": 1, "stale": 1, "collapsed": 1, "miss": 1}


def test_durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() -> None:
    histogram = Histogram()
    for duration_s in (0.0, BOUNDS_S[0], BOUNDS_S[0] * 1.01, 3_600.0):
        histogram.note(duration_s)
    assert histogram.counts == [2, 1] + [0] * (len(BOUNDS_S) - 2) + [1]
    assert histogram.count == 4


def test_durations_are_kept_apart_for_hits_and_the_rest() -> None:
    counters = make_counters()
    counters.exchange_over(hit(BLOB), 1, 0.00005)
    counters.exchange_over(hit(BLOB, status=206), 1, 0.00005)
    counters.exchange_over(hit(BLOB, cache_status="miss", first_byte_s=0.3), 1, 2.0)
    seen = counters.snapshot()
    assert seen.durations[RouteKind.BLOB, Method.GET, True].counts[0] == 2
    assert seen.durations[RouteKind.BLOB, Method.GET, False].total_s == 2.0
    assert (sum(seen.first_bytes.counts), seen.first_bytes.total_s) == (1, 0.3)


def test_a_repository_is_one_by_whichever_name_it_was_asked_for() -> None:
    counters = make_counters()
    for target in (MANIFEST, b"/v2/library/busybox/manifests/1.35", BLOB):
        counters.exchange_over(hit(target), 100, 0.001)
    counters.exchange_over(hit(b"/v2/ghcr.io/org/app/manifests/1", upstream="ghcr.io"), 10, 0.001)
    counters.exchange_over(hit(MANIFEST, method=b"HEAD"), 10, 0.001)
    counters.exchange_over(failed(404, "unknown", b"/v2/typo/manifests/1"), 10, 0.001)
    assert counters.snapshot().repositories == (
        RepositoryPulls("docker.io", "library/busybox", 2, 1, 300),
        RepositoryPulls("ghcr.io", "org/app", 1, 0, 10),
    )


def test_the_same_target_of_another_host_is_another_repository() -> None:
    counters = make_counters()
    for host in ("docker.io", "ghcr.io"):
        exchange = hit(b"/v2/org/app/manifests/1", upstream=host, headers={"host": host})
        counters.exchange_over(exchange, 1, 0.001)
    upstreams = {each.upstream for each in counters.snapshot().repositories}
    assert upstreams == {"docker.io", "ghcr.io"}


def test_a_full_table_keeps_what_is_pulled_most() -> None:
    table = PullTable(4)
    for number in range(4):
        table.add(Location("docker.io", Repository(f"app{number}"))).manifests.count = number
    assert table.is_full
    table.shrink()
    assert [pulls.location.repository for pulls in table.top(9)] == ["app3", "app2"]


def test_a_flood_of_repositories_is_bounded_and_goes_on_being_counted() -> None:
    counters = make_counters()
    for _ in range(3):
        counters.exchange_over(hit(MANIFEST), 1, 0.001)
    for number in range(2_500):
        counters.exchange_over(hit(b"/v2/org/app%d/manifests/1" % number), 1, 0.001)
    counters.exchange_over(hit(MANIFEST), 1, 0.001)
    repositories = counters.snapshot().repositories
    assert len(repositories) == 100
    assert repositories[0] == RepositoryPulls("docker.io", "library/busybox", 4, 0, 4)
    assert counters.snapshot().answers[0].count == 2_504


def test_like_failures_are_one_with_what_they_said_last() -> None:
    clock = Clock()
    counters = make_counters(clock=clock)
    counters.exchange_over(failed(503, "refused"), 1, 0.001)
    clock.now += 5
    counters.exchange_over(failed(503, "timed out"), 1, 0.001)
    counters.exchange_over(failed(429, "limited", MANIFEST), 1, 0.001)
    limited, unavailable = counters.snapshot().failures
    assert (limited.status, limited.repository, limited.count) == (429, "library/busybox", 1)
    assert (unavailable.count, unavailable.cause) == (2, "timed out")
    assert (unavailable.first_at, unavailable.last_at) == (1_000.0, 1_005.0)


def test_refusals_do_not_push_failures_out() -> None:
    counters = make_counters()
    counters.exchange_over(failed(502, "not what was asked for"), 1, 0.001)
    for number in range(1_000):
        counters.exchange_over(failed(404, "unknown", b"/v2/a%d/tags/list" % number), 1, 0.001)
    seen = counters.snapshot()
    assert [each.cause for each in seen.failures] == ["not what was asked for"]
    assert len(seen.refusals) == 64
    assert seen.refusals[0].repository == "library/a999"


def test_a_client_that_goes_is_no_failure_and_an_answer_that_is_cut_is_one() -> None:
    counters = make_counters()
    counters.exchange_over(hit(BLOB, cause=CLIENT_GONE), 1, 0.001)
    counters.exchange_over(hit(BLOB, cause="upstream's body broke off"), 1, 0.001)
    seen = counters.snapshot()
    assert (seen.gone_count, seen.cut_count, len(seen.failures)) == (1, 1, 1)


def test_a_refused_login_is_not_taken_for_another_upstreams() -> None:
    """The gate refuses before anybody has looked for the upstream."""
    counters = make_counters()
    for host in ("docker.io", "ghcr.io"):
        headers = {"host": host}
        refused = failed(401, "no credentials", b"/v2/org/app/manifests/1")
        refused.upstream, refused.headers = "", headers
        counters.exchange_over(refused, 1, 0.001)
    assert {each.upstream for each in counters.snapshot().refusals} == {"docker.io", "ghcr.io"}


def test_no_secret_of_a_request_is_remembered() -> None:
    counters: Counters = make_counters()
    exchange = failed(503, "refused", BLOB + b"?token=hunter2")
    exchange.headers = {"authorization": "Basic hunter2"}
    counters.exchange_over(exchange, 1, 0.001)
    assert "hunter2" not in repr(counters.snapshot())
