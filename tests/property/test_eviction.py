"""A round of eviction keeps its promises with any content, any policy and any pages."""

from hypothesis import given
from hypothesis import strategies as st

from engine.eviction import Guard, Reason, Sweep
from engine.policies import POLICIES, Balance, Candidate, Order, Place, Queue
from tests.fakes.candidates import Pool, candidate_of, digest_of

NOW = 10_000.0
IN_USE_SINCE = NOW - 60

CANDIDATES = st.lists(
    st.builds(
        candidate_of,
        st.integers(0, 40),
        size=st.sampled_from([0, 1, 10, 1000]),
        used_at=st.sampled_from([0.0, 1.0, 9_000.0, IN_USE_SINCE, NOW]),
        queue=st.sampled_from(Queue),
        queued_at=st.sampled_from([0.0, 1.0, 9_000.0, NOW]),
        reuse_count=st.integers(0, 3),
    ),
    max_size=30,
    unique_by=lambda candidate: candidate.digest,
)
NUMBERS = st.frozensets(st.integers(0, 40).map(digest_of))
POLICY_NAMES = st.sampled_from([*POLICIES])


@given(CANDIDATES, POLICY_NAMES, NUMBERS, NUMBERS, st.integers(0, 5000), st.integers(1, 7))
def test_a_round_frees_enough_or_all_that_may_go_and_what_is_in_use_last(
    candidates: list[Candidate],
    policy_name: str,
    pinned: frozenset[str],
    named: frozenset[str],
    needed_bytes: int,
    page_size: int,
) -> None:
    pool = Pool(candidates)
    guard = Guard(
        pinned=frozenset(each.digest for each in candidates if each.digest in pinned),
        named=frozenset(each.digest for each in candidates if each.digest in named),
        in_use_since=IN_USE_SINCE,
    )
    balance = Balance(4000, pool.new_bytes)
    sweep = Sweep(POLICIES[policy_name](), balance, guard, needed_bytes, Reason.BUDGET)
    pool.run(sweep, NOW, page_size)

    gone = pool.evicted
    assert not pinned & {each.digest for each in gone}
    freed_bytes = sum(each.disk_bytes for each in gone)
    assert sweep.needed_bytes == needed_bytes - freed_bytes
    if freed_bytes < needed_bytes:
        assert all(each in pinned for each in pool.candidates)
    elif gone:
        # The last one was still needed.
        assert freed_bytes - gone[-1].disk_bytes < needed_bytes
    if any(guard.is_in_use(each) for each in gone):
        left = [each for each in pool.candidates.values() if each.digest not in pinned]
        assert all(guard.is_in_use(each) for each in left)


@given(CANDIDATES, POLICY_NAMES, st.lists(st.integers(1, 2000), max_size=5))
def test_rounds_that_go_on_where_the_last_stopped_evict_everything_in_the_end(
    candidates: list[Candidate], policy_name: str, needs: list[int]
) -> None:
    pool, policy = Pool(candidates), POLICIES[policy_name]()
    places: dict[Order, Place] = {}
    for needed_bytes in (*needs, 10**9):
        balance = Balance(4000, pool.new_bytes)
        sweep = Sweep(policy, balance, Guard(), needed_bytes, Reason.BUDGET)
        sweep.resume(places)
        pool.run(sweep, NOW)
        places = sweep.places if policy.keeps_place else {}
    assert not pool.candidates
