"""Freshness under any clock."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.freshness import Freshness, decide
from tests.unit.test_freshness import RECORD

TIMES = st.floats(0, 1e11)
TTLS = st.floats(0, 1e9)


@given(checked_at=TIMES, now=TIMES, tagttl_s=TTLS)
def test_only_a_check_of_the_last_tagttl_seconds_makes_a_tag_fresh(
    checked_at: float, now: float, tagttl_s: float
) -> None:
    verdict = decide(replace(RECORD, checked_at=checked_at), now, tagttl_s)
    is_young = checked_at <= now and now - checked_at < tagttl_s
    assert verdict is (Freshness.FRESH if is_young else Freshness.REVALIDATE)


@given(checked_at=TIMES, now=TIMES, later_s=st.floats(0, 1e9), tagttl_s=TTLS)
def test_time_alone_never_makes_a_checked_tag_fresh_again(
    checked_at: float, now: float, later_s: float, tagttl_s: float
) -> None:
    record = replace(RECORD, checked_at=checked_at)
    if now >= checked_at and decide(record, now, tagttl_s) is Freshness.REVALIDATE:
        assert decide(record, now + later_s, tagttl_s) is Freshness.REVALIDATE


@given(checked_at=TIMES, now=TIMES)
def test_without_tagttl_upstream_is_always_asked(checked_at: float, now: float) -> None:
    record = replace(RECORD, checked_at=checked_at)
    assert decide(record, now, 0.0) is Freshness.REVALIDATE
