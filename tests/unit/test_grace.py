"""How much the fastest gives to the others."""

from engine.grace import MAX_S, Grace


def test_what_is_given_is_gone() -> None:
    grace = Grace(100.0)
    grace.spend(100.0 + MAX_S / 4)
    assert grace.left_s == MAX_S * 3 / 4
    grace.spend(200.0)
    assert grace.left_s == 0.0


def test_time_in_which_nothing_is_given_earns_as_much() -> None:
    grace = Grace(100.0)
    grace.spend(100.0 + MAX_S)
    grace.earn(100.0 + MAX_S * 1.25)
    assert grace.left_s == MAX_S / 4


def test_no_more_than_so_much_is_saved() -> None:
    grace = Grace(100.0)
    grace.earn(1000.0)
    assert grace.left_s == MAX_S
