"""The circuit breaker opens by a whole failed operation and closes by an answer."""

import pytest

from engine.upstream.breaker import Breaker, Cause, Verdict
from engine.upstream.limits import Limits

CAUSE = Cause("it is down", 503)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(Limits(breaker_after_s=1.0, breaker_first_s=2.0, breaker_max_s=30.0))


def opened(breaker: Breaker, now: float = 10.0) -> Breaker:
    assert breaker.failed(CAUSE, began_at=now - 10.0, now=now)
    return breaker


def test_it_passes_everybody_at_first(breaker: Breaker) -> None:
    assert [breaker.admit(0.0) for _ in range(3)] == [Verdict.PASS] * 3
    assert not breaker.is_open


def test_an_operation_that_failed_to_its_end_opens_it(breaker: Breaker) -> None:
    opened(breaker)
    assert breaker.admit(11.9) is Verdict.REFUSED
    assert (breaker.cause, breaker.remaining_s(10.5)) == (CAUSE, 1.5)


def test_a_short_operation_says_too_little(breaker: Breaker) -> None:
    assert not breaker.failed(CAUSE, began_at=10.0, now=10.9)
    assert not breaker.is_open


def test_a_failure_while_others_succeed_says_nothing_about_upstream(breaker: Breaker) -> None:
    breaker.answered(5.0)
    assert not breaker.failed(CAUSE, began_at=0.0, now=10.0)
    assert not breaker.is_open


def test_one_probe_at_a_time(breaker: Breaker) -> None:
    opened(breaker)
    assert breaker.admit(12.0) is Verdict.PROBE
    assert breaker.admit(12.0) is Verdict.REFUSED
    breaker.abandoned()
    assert breaker.admit(12.0) is Verdict.PROBE


def test_failed_probes_open_it_for_longer_and_longer(breaker: Breaker) -> None:
    opened(breaker, now=0.0 + 10.0)
    now, pauses = 10.0, []
    for _ in range(6):
        pauses.append(breaker.remaining_s(now))
        now += pauses[-1]
        assert breaker.admit(now) is Verdict.PROBE
        assert not breaker.failed(CAUSE, began_at=now, now=now)  # open already: no news
    assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_operations_that_fail_while_it_is_open_do_not_prolong_it(breaker: Breaker) -> None:
    opened(breaker)
    assert not breaker.failed(CAUSE, began_at=1.0, now=11.0)
    assert breaker.admit(12.0) is Verdict.PROBE


def test_an_answer_closes_it_and_forgets(breaker: Breaker) -> None:
    opened(breaker)
    assert breaker.admit(12.0) is Verdict.PROBE
    assert breaker.answered(12.1)
    assert breaker.admit(12.1) is Verdict.PASS
    assert not breaker.answered(12.2)
    opened(breaker, now=100.0)
    assert breaker.remaining_s(100.0) == 2.0
