"""Backoff grows to a bound with jitter; the budget bounds all retries together."""

from hypothesis import given
from hypothesis import strategies as st

from engine.upstream.limits import Limits
from engine.upstream.retry import RetryBudget, backoff_s

LIMITS = Limits(backoff_first_s=0.1, backoff_max_s=2.0)


def test_backoff_doubles_to_its_bound() -> None:
    waits = [backoff_s(failures, 1.0, LIMITS) for failures in range(1, 8)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@given(st.integers(1, 10_000), st.floats(0.0, 1.0, exclude_max=True))
def test_jitter_takes_at_most_half(failures: int, jitter: float) -> None:
    full_s = backoff_s(failures, 1.0, LIMITS)
    assert full_s / 2 <= backoff_s(failures, jitter, LIMITS) <= full_s <= 2.0


def spend(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.take(now):
        count += 1
    return count


def test_a_few_retries_are_always_there() -> None:
    assert spend(RetryBudget(0.0), 0.0) == 10


def test_time_gives_ten_a_second_but_saves_no_more_than_that() -> None:
    budget = RetryBudget(0.0)
    spend(budget, 0.0)
    assert spend(budget, 0.5) == 5
    assert spend(budget, 3600.0) == 10


def test_a_fifth_of_the_requests_may_be_retried() -> None:
    budget = RetryBudget(0.0)
    for _ in range(100):
        budget.note_request()
    assert spend(budget, 0.0) in (29, 30)  # ten and a fifth of a hundred, in binary fractions


def test_good_times_save_a_bounded_number() -> None:
    budget = RetryBudget(0.0)
    for _ in range(100_000):
        budget.note_request()
    assert spend(budget, 0.0) == 100
