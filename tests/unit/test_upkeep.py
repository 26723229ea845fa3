"""The pure parts of upkeep: pace, what is due, what leaves quarantine, when a file was used."""

from pathlib import Path

import pytest

from engine.blobdir import FoundFile
from engine.hashing import digest_of
from engine.quarantine import MAX_AGE_S, MAX_BYTES, Kept, plan_removal
from engine.reconcile import adopt_record, presume_use
from engine.scrub import Pace, is_due

DAY_S = 24 * 3600.0
NOW = 100 * DAY_S


def test_a_pace_keeps_its_rate_over_any_pieces() -> None:
    pace = Pace(100)
    assert pace.spend(50, 10.0) == pytest.approx(0.5)
    assert pace.spend(50, 10.5) == pytest.approx(0.5)
    assert pace.spend(200, 11.0) == pytest.approx(2.0)


def test_a_pace_lets_what_came_late_catch_up_but_not_burst() -> None:
    pace = Pace(100)
    pace.spend(100, 0.0)
    # Reading took half of the second that it may take.
    assert pace.spend(100, 0.5) == pytest.approx(1.5)
    # A long pause saves nothing up.
    assert pace.spend(100, 1000.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("verified_at", "expected"),
    [
        (None, True),
        (NOW - 7 * DAY_S, True),
        (NOW - 7 * DAY_S - 1, True),
        (NOW - 7 * DAY_S + 1, False),
        (NOW, False),
        (NOW + 1, True),
    ],
)
def test_what_is_due_was_not_compared_within_the_interval(
    verified_at: float | None, expected: bool
) -> None:
    assert is_due(verified_at, NOW, 7 * DAY_S) is expected


def kept(size_bytes: int, since: float, name: str = "x") -> Kept:
    return Kept(Path(name), size_bytes, int(since))


def test_quarantine_lets_go_of_the_oldest_beyond_its_bytes() -> None:
    old, middle, new = (kept(MAX_BYTES // 2, NOW - age) for age in (30, 20, 10))
    assert plan_removal([old, new, middle], NOW) == [old]


def test_quarantine_lets_go_of_what_is_old() -> None:
    old, new = kept(1, NOW - MAX_AGE_S - 1), kept(1, NOW - MAX_AGE_S)
    assert plan_removal([new, old], NOW) == [old]


def test_quarantine_does_not_keep_what_is_larger_than_all_of_it_and_keeps_the_rest() -> None:
    huge, small = kept(MAX_BYTES + 1, NOW), kept(1, NOW - 1)
    assert plan_removal([huge, small], NOW) == [huge]


@pytest.mark.parametrize("age_s", [0.0, 1.0, 3600.0, DAY_S, 365 * DAY_S, 1e10])
def test_what_was_found_counts_as_used_within_the_last_day(age_s: float) -> None:
    assert NOW - DAY_S <= presume_use(NOW - age_s, NOW) <= NOW


def test_what_was_found_keeps_the_order_of_its_times() -> None:
    ages = [1e6, 1e5, 1e4, 100.0, 1.0, 0.0]
    used = [presume_use(NOW - age_s, NOW) for age_s in ages]
    assert used == sorted(used)
    assert len(set(used)) == len(used)


def test_a_file_from_the_future_counts_as_used_now() -> None:
    assert presume_use(NOW + 1000, NOW) == NOW
    file = FoundFile(5, stored_at=NOW + 10, read_at=NOW + 20)
    record = adopt_record(digest_of(b"x"), file, NOW)
    assert (record.stored_at, record.used_at) == (NOW, NOW)
    assert not record.is_trusted
    assert not record.is_public


def test_an_empty_file_is_no_blob_but_the_empty_one() -> None:
    empty = FoundFile(0, NOW, NOW)
    assert empty.is_plausible(digest_of(b""))
    assert empty.is_plausible(digest_of(b"", "sha512"))
    assert not empty.is_plausible(digest_of(b"x"))
