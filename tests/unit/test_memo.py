"""A memo is bounded, and what is in use stays in it."""

from server.memo import Memo


def test_what_was_added_is_found_until_it_is_old() -> None:
    memo: Memo[int, str] = Memo(2)
    memo.add(1, "one")
    assert memo.find(1) == "one"
    assert memo.find(2) is None
    for key in range(2, 6):  # two generations later
        memo.add(key, str(key))
    assert memo.find(1) is None
    assert memo.find(5) == "5"


def test_it_holds_at_most_two_generations() -> None:
    memo: Memo[int, int] = Memo(10)
    for key in range(1_000):
        memo.add(key, key)
    assert sum(memo.find(key) is not None for key in range(1_000)) <= 20


def test_what_is_in_use_outlives_the_turn_of_generations() -> None:
    memo: Memo[int, str] = Memo(10)
    memo.add(-1, "used")
    for key in range(100):
        memo.add(key, "other")
        assert memo.find(-1) == "used"
