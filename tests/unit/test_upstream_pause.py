"""Pauses after a 429: one kind, so long as asked, a probe a minute."""

import pytest

from engine.upstream.kinds import Kind
from engine.upstream.limits import Limits
from engine.upstream.pause import Pauses


@pytest.fixture
def pauses() -> Pauses:
    return Pauses(Limits())


def test_nothing_is_paused_at_first(pauses: Pauses) -> None:
    assert all(pauses.admit(kind, 0.0) is None for kind in Kind)


def test_a_pause_holds_its_kind_alone_and_for_so_long(pauses: Pauses) -> None:
    assert pauses.limited(Kind.MANIFEST, 30.0, now=100.0) == 30.0
    assert pauses.admit(Kind.MANIFEST, 100.0) == 30.0
    assert pauses.admit(Kind.MANIFEST, 129.0) == 1.0
    assert pauses.admit(Kind.HEAD, 100.0) is None
    assert pauses.admit(Kind.MANIFEST, 130.0) is None


@pytest.mark.parametrize(
    ("asked_s", "got_s"), [(None, 60.0), (0.0, 1.0), (7.0, 7.0), (3600.0, 3600.0), (9e9, 3600.0)]
)
def test_a_pause_has_a_default_and_bounds(
    pauses: Pauses, asked_s: float | None, got_s: float
) -> None:
    assert pauses.limited(Kind.BLOB, asked_s, now=0.0) == got_s


def test_one_probe_a_minute_passes(pauses: Pauses) -> None:
    pauses.limited(Kind.BLOB, 3600.0, now=0.0)
    passed = [now for now in range(3600) if pauses.admit(Kind.BLOB, float(now)) is None]
    assert passed == list(range(60, 3600, 60))


def test_an_answer_ends_the_pause(pauses: Pauses) -> None:
    pauses.limited(Kind.BLOB, 3600.0, now=10.0)
    assert pauses.answered(Kind.BLOB, sent_at=70.0)
    assert pauses.admit(Kind.BLOB, 70.0) is None
    assert not pauses.answered(Kind.BLOB, sent_at=71.0)


def test_an_answer_to_an_older_request_does_not(pauses: Pauses) -> None:
    pauses.limited(Kind.BLOB, 3600.0, now=10.0)
    assert not pauses.answered(Kind.BLOB, sent_at=9.0)
    assert pauses.admit(Kind.BLOB, 11.0) is not None
