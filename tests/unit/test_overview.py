"""Facts put together from counters: shares, quantiles, history, errors."""

from server.counters import Counters
from server.facts import Sample
from server.history import MAX_SAMPLES, History, sample_of
from server.overview import describe_errors, describe_traffic, quantile_s
from server.routes import Router
from server.series import BOUNDS_S
from tests.fakes.counted import UPSTREAMS, Clock
from tests.fakes.exchange import FakeExchange

BLOB = b"/v2/library/busybox/blobs/sha256:" + b"a" * 64


def counters_of(*statuses: tuple[int, str, float]) -> Counters:
    counters = Counters(Router(UPSTREAMS), Clock())
    for status, cache_status, duration_s in statuses:
        exchange = FakeExchange(BLOB, status=status, cache_status=cache_status)
        exchange.upstream = "docker.io"
        exchange.cause = "" if status < 400 else "it broke"
        counters.exchange_over(exchange, 100, duration_s)
    return counters


def test_a_quantile_is_the_bound_that_so_many_do_not_exceed() -> None:
    counts = [0] * (len(BOUNDS_S) + 1)
    assert quantile_s(counts, 0.5) is None
    counts[2], counts[4] = 99, 1
    assert quantile_s(counts, 0.5) == BOUNDS_S[2]
    assert quantile_s(counts, 0.99) == BOUNDS_S[2]
    assert quantile_s(counts, 1.0) == BOUNDS_S[4]
    counts[-1] = 1000
    assert quantile_s(counts, 0.5) is None


def test_traffic_counts_hits_among_what_the_cache_had_a_part_in() -> None:
    counters = counters_of((200, "hit", 0.0002), (200, "miss", 3.0), (404, "", 0.1))
    traffic = describe_traffic(counters.snapshot())
    assert (traffic.request_count, traffic.hit_share) == (3, 0.5)
    assert traffic.hit_p50_s == 0.00025
    assert traffic.answers == {"hit": 1, "miss": 1, "none": 1}


def test_history_is_bounded_and_ends_with_now() -> None:
    history, counted = History(), counters_of((200, "hit", 0.1)).snapshot()
    for number in range(MAX_SAMPLES + 10):
        history.note(counted, float(number))
    samples = history.list_until(counted, 1000.0)
    assert len(samples) == MAX_SAMPLES + 1
    assert samples[0].at == 10.0
    assert samples[-1] == sample_of(counted, 1000.0) == Sample(1000.0, 1, 1, 1, 100)


def test_refusals_do_not_push_failures_out() -> None:
    counters = counters_of((503, "", 0.1), *[(404, "", 0.1)] * 100)
    kinds = [(each.kind, each.count, each.cause) for each in describe_errors(counters.snapshot())]
    assert sorted(kinds) == [("failure", 1, "it broke"), ("refusal", 100, "it broke")]
