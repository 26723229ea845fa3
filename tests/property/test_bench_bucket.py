"""The slow link lets no more through than its rate and its burst, and no less than its rate."""

from hypothesis import given
from hypothesis import strategies as st

from tools.bench_relay import TokenBucket

RATE = 1_000.0
BURST = 500.0

# Pauses before pieces, in seconds, and the pieces' sizes.
arrivals = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 400)), min_size=1, max_size=50)


def passages(pieces: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """When each piece passes, as the link says."""
    bucket = TokenBucket(RATE, BURST)
    now, passed = 100.0, []
    for pause_s, size in pieces:
        now += pause_s
        passed.append((now + bucket.reserve(size, now), size))
    return passed


@given(arrivals)
def test_no_span_of_time_has_more_than_rate_and_burst(pieces: list[tuple[float, int]]) -> None:
    passed = passages(pieces)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span_s = passed[last][0] - passed[first][0]
            # The piece that opens the span may have been under way before it.
            count = sum(size for _, size in passed[first + 1 : last + 1])
            assert count <= RATE * span_s + BURST + 1e-6


@given(arrivals)
def test_pieces_pass_in_order_and_none_waits_longer_than_those_before_take(
    pieces: list[tuple[float, int]],
) -> None:
    passed = passages(pieces)
    times = [at for at, _ in passed]
    assert times == sorted(times)
    assert times[-1] <= 100.0 + sum(p for p, _ in pieces) + sum(s for _, s in pieces) / RATE + 1e-6
