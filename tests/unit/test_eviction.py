"""What a round of eviction decides, case by case."""

import math

import pytest

from engine.eviction import (
    MAX_MOVES,
    PARTIAL_TTL_S,
    Guard,
    Reason,
    Sweep,
    Ttls,
    Victim,
    plan_expired,
    plan_partials,
)
from engine.leftovers import Leftover
from engine.policies import (
    Balance,
    Candidate,
    LeastRecentlyUsed,
    Move,
    Order,
    Policy,
    Queue,
    S3Fifo,
    Sieve,
    UsedOnceFirst,
)
from tests.fakes.candidates import Pool, candidate_of, digest_of

NOW = 100_000.0


def leftover_of(number: int, size: int, left_at: float) -> Leftover:
    return Leftover(digest_of(number), size, left_at)


def begin(
    policy: Policy, pool: Pool, needed_bytes: int, guard: Guard | None = None, capacity: int = 100
) -> Sweep:
    balance = Balance(capacity, pool.new_bytes)
    return Sweep(policy, balance, guard or Guard(), needed_bytes, Reason.BUDGET)


# Partials


def test_old_partials_go_even_if_there_is_room() -> None:
    old = leftover_of(1, 10, NOW - PARTIAL_TTL_S)
    young = leftover_of(2, 10, NOW - PARTIAL_TTL_S + 1)
    assert plan_partials([old, young], 0, NOW) == [old]


def test_partials_go_oldest_first_until_there_is_room() -> None:
    leftovers = [leftover_of(number, 10, NOW - 100 + number) for number in range(5)]
    assert plan_partials(leftovers, 11, NOW) == leftovers[:2]
    assert plan_partials(leftovers, 1000, NOW) == leftovers


# Age


@pytest.mark.parametrize(
    ("upstreams", "expires_after_s"),
    [
        (["short"], 10),
        (["long"], 100),
        (["short", "long"], 100),
        (["short", "never"], math.inf),
        (["gone"], 50),
        (["short", "gone"], 50),
        ([], 50),
    ],
)
def test_content_lives_by_the_longest_ttl_of_its_upstreams(
    upstreams: list[str], expires_after_s: float
) -> None:
    ttls = Ttls({"short": 10, "long": 100, "never": 0}, default_s=50)
    assert ttls.expires_at(NOW, upstreams) == NOW + expires_after_s


def test_the_shortest_ttl_is_infinite_where_nothing_ever_expires() -> None:
    assert Ttls({"a": 0}, default_s=0).shortest_s == math.inf
    assert Ttls({"a": 0, "b": 7}, default_s=0).shortest_s == 7


def test_what_nobody_used_for_its_ttl_expires_unless_it_must_stay() -> None:
    used_at = NOW - 10
    stale, pinned, named, touched = (candidate_of(number, used_at=used_at) for number in range(4))
    fresh = candidate_of(4, used_at=used_at + 1)
    guard = Guard(
        pinned=frozenset({pinned.digest}),
        named=frozenset({named.digest}),
        in_use_since=NOW - 5,
        find_used_at={touched.digest: NOW}.get,
    )
    page = [(each, ["u"]) for each in (stale, pinned, named, touched, fresh)]
    victims = plan_expired(page, Ttls({"u": 10}, default_s=0), guard, NOW)
    assert victims == [Victim(stale.digest, stale.disk_bytes, used_at, Reason.EXPIRED)]


# The policies


def test_lru_takes_what_was_not_used_for_longest() -> None:
    pool = Pool(candidate_of(number, used_at=used_at) for number, used_at in [(1, 3), (2, 1)])
    assert pool.run(begin(LeastRecentlyUsed(), pool, 10), NOW) == [2]


def test_used_once_first_spares_what_was_used_again_for_as_long_as_there_is_other_content() -> None:
    pool = Pool(
        [
            candidate_of(1, used_at=1, queued_at=1, reuse_count=1),
            candidate_of(2, used_at=5, queued_at=5),
            candidate_of(3, used_at=2, queued_at=2, queue=Queue.MAIN),
            candidate_of(4, used_at=6, queued_at=6),
        ]
    )
    assert pool.run(begin(UsedOnceFirst(), pool, 30), NOW) == [2, 4, 1]


def test_sieve_takes_what_was_not_used_since_the_hand_came_by() -> None:
    pool = Pool(candidate_of(number, queued_at=number, reuse_count=number % 2) for number in (1, 2))
    sieve = begin(Sieve(), pool, 10)
    assert pool.run(sieve, NOW) == [2]
    # The use of 1 was taken into account, and in its place it waits for the next lap.
    assert pool.candidates[digest_of(1)] == candidate_of(1, queued_at=1)


def test_sieves_hand_goes_on_where_it_stopped() -> None:
    pool = Pool(candidate_of(number, queued_at=number) for number in range(1, 6))
    first = begin(Sieve(), pool, 20)
    assert pool.run(first, NOW) == [1, 2]
    pool.candidates[digest_of(0)] = candidate_of(0, queued_at=0)
    second = begin(Sieve(), pool, 40)
    second.resume(first.places)
    assert pool.run(second, NOW) == [3, 4, 5, 0]


def test_sieve_takes_over_what_another_policy_left_in_main() -> None:
    pool = Pool([candidate_of(1, queue=Queue.MAIN, queued_at=1), candidate_of(2, queued_at=2)])
    assert pool.run(begin(Sieve(), pool, 10), NOW) == [1]


def test_s3_fifo_sifts_what_is_used_once_while_it_has_more_than_its_share() -> None:
    pool = Pool(
        [
            candidate_of(1, queued_at=1, queue=Queue.MAIN),
            candidate_of(2, queued_at=2),
            candidate_of(3, queued_at=3),
        ]
    )
    sweep = begin(S3Fifo(), pool, 20, capacity=150)
    # 20 of 150 are more than a tenth; 10 are less.
    assert pool.run(sweep, NOW) == [2, 1]


def test_s3_fifo_remembers_what_went_from_the_small_queue() -> None:
    pool = Pool([candidate_of(1), candidate_of(2, queue=Queue.MAIN)])
    sweep = begin(S3Fifo(), pool, 20)
    victims: list[Victim] = []
    while (page := sweep.next_page()) is not None:
        step = sweep.judge(page, pool.page(page.order, page.after, 1), NOW)
        victims += step.victims
    assert {victim.digest: victim.is_remembered for victim in victims} == {
        digest_of(1): True,
        digest_of(2): False,
    }


@pytest.mark.parametrize(
    ("candidate", "move"),
    [
        (candidate_of(1, used_at=NOW, reuse_count=0), None),
        (candidate_of(1, used_at=600, reuse_count=3), None),
        (candidate_of(1, used_at=601, reuse_count=1), Move(digest_of(1), Queue.MAIN, NOW, 0)),
        (candidate_of(1, queue=Queue.MAIN, used_at=NOW, reuse_count=0), None),
        (
            candidate_of(1, queue=Queue.MAIN, used_at=1, reuse_count=3),
            Move(digest_of(1), Queue.MAIN, NOW, 2),
        ),
    ],
    ids=["used once", "used while young", "used later", "unused in main", "used in main"],
)
def test_s3_fifo_spares(candidate: Candidate, move: Move | None) -> None:
    assert S3Fifo().spare(candidate, NOW) == move


# What must stay


def test_what_is_in_use_goes_only_when_nothing_else_is_left_and_longest_unused_first() -> None:
    pool = Pool(
        [
            candidate_of(1, used_at=NOW - 3),
            candidate_of(2, used_at=NOW - 5),
            candidate_of(3, used_at=1),
            candidate_of(4, used_at=2),
        ]
    )
    guard = Guard(in_use_since=NOW - 60, named=frozenset({digest_of(3)}))
    assert pool.run(begin(LeastRecentlyUsed(), pool, 25, guard), NOW) == [4, 3, 2]


def test_a_use_that_the_index_does_not_know_of_counts() -> None:
    pool = Pool([candidate_of(1, used_at=1), candidate_of(2, used_at=2)])
    guard = Guard(in_use_since=NOW - 60, find_used_at={digest_of(1): NOW}.get)
    assert pool.run(begin(LeastRecentlyUsed(), pool, 10, guard), NOW) == [2]


@pytest.mark.parametrize("policy", [LeastRecentlyUsed(), UsedOnceFirst(), Sieve(), S3Fifo()])
def test_what_is_pinned_never_goes(policy: Policy) -> None:
    pool = Pool(candidate_of(number, queued_at=number) for number in range(8))
    guard = Guard(pinned=frozenset(map(digest_of, (0, 3, 7))))
    sweep = begin(policy, pool, 1000, guard)
    assert sorted(pool.run(sweep, NOW)) == [1, 2, 4, 5, 6]
    assert sweep.needed_bytes == 950


def test_a_round_ends_when_enough_is_freed() -> None:
    pool = Pool(candidate_of(number, used_at=number) for number in range(8))
    sweep = begin(LeastRecentlyUsed(), pool, 21)
    assert pool.run(sweep, NOW) == [0, 1, 2]
    assert sweep.next_page() is None
    assert sweep.places[Order.BY_USE] == (2, digest_of(2))


def test_a_round_that_must_move_too_much_takes_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_MOVES > 10
    monkeypatch.setattr("engine.eviction.MAX_MOVES", 4)
    pool = Pool(
        candidate_of(number, used_at=NOW, queued_at=number, reuse_count=1) for number in range(10)
    )
    # 0 to 3 are lifted; then 4 goes, although it was used.
    assert pool.run(begin(S3Fifo(), pool, 10), NOW) == [4]
