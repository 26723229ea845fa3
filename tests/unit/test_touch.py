"""Access times in memory: nothing is lost between a use and the index."""

from engine.names import Digest
from engine.touch import Touch

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")


def touched(*uses: tuple[Digest, float]) -> Touch:
    touch = Touch()
    for digest, now in uses:
        touch.note(digest, now)
    return touch


def test_the_last_use_counts() -> None:
    touch = touched((A, 1.0), (B, 2.0), (A, 3.0))
    assert touch.take() == {A: 3.0, B: 2.0}
    assert touch.used_at(A) == 3.0
    assert touch.used_at(C) is None


def test_a_use_is_visible_until_the_index_has_it() -> None:
    touch = touched((A, 1.0))
    batch = touch.take()
    assert touch.used_at(A) == 1.0
    touch.settle(batch)
    assert touch.used_at(A) is None
    assert touch.take() == {}


def test_a_batch_that_was_not_written_is_handed_out_again() -> None:
    touch = touched((A, 1.0))
    assert touch.take() == touch.take() == {A: 1.0}


def test_a_use_during_the_write_is_kept_for_the_next() -> None:
    touch = touched((A, 1.0), (B, 1.0))
    batch = touch.take()
    touch.note(A, 2.0)
    touch.settle(batch)
    assert touch.take() == {A: 2.0}


def test_a_batch_has_at_most_so_many_and_the_rest_comes_next() -> None:
    touch = touched((A, 1.0), (B, 2.0), (C, 3.0))
    batch = touch.take(2)
    assert batch == {A: 1.0, B: 2.0}
    touch.settle(batch)
    assert touch.take(2) == {C: 3.0}


def test_a_busy_blob_keeps_no_other_waiting() -> None:
    touch = touched((A, 1.0), (B, 1.0))
    batch = touch.take(1)
    touch.note(A, 2.0)
    touch.settle(batch)
    assert touch.take(1) == {B: 1.0}
    assert len(touch) == 2


def test_settling_twice_is_harmless() -> None:
    touch = touched((A, 1.0))
    batch = touch.take()
    touch.settle(batch)
    touch.settle(batch)
    assert len(touch) == 0
