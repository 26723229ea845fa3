"""What an adoption takes, in which order."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.adoption_plan import Allowance, plan_jobs
from engine.adoption_survey import FoundBlob, FoundRepository, Survey
from engine.hashing import digest_of
from engine.hot import Kind
from engine.names import Digest, Location, Repository

A, B, C, D = (digest_of(name.encode()) for name in "abcd")
BUSY, OTHER = Repository("library/busy"), Repository("library/other")


def blob(seen_at: float) -> FoundBlob:
    return FoundBlob(10, stored_at=1.0, seen_at=seen_at)


def repository(name: Repository, blobs: set[Digest], manifests: set[Digest]) -> FoundRepository:
    return FoundRepository(name, frozenset(blobs), frozenset(manifests), ())


def test_manifests_come_first_then_what_was_used_last() -> None:
    survey = Survey(Path("/r"), is_proxy=True)
    survey.blobs = {A: blob(1), B: blob(2), C: blob(3), D: blob(9)}
    survey.repositories = [repository(BUSY, {B, C}, {A}), repository(OTHER, {C}, set())]
    jobs = plan_jobs(survey, "docker.io")
    assert [job.digest for job in jobs] == [A, C, B]
    assert [job.kind for job in jobs] == [Kind.MANIFEST, Kind.BLOB, Kind.BLOB]
    assert jobs[1].holders == (Location("docker.io", BUSY), Location("docker.io", OTHER))


def test_what_is_not_there_is_no_job() -> None:
    survey = Survey(Path("/r"), is_proxy=True, repositories=[repository(BUSY, {A}, {B})])
    assert plan_jobs(survey, "docker.io") == []


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 512, 4096]),
    st.lists(st.integers(0, 3_000), max_size=30),
)
def test_an_allowance_is_never_exceeded(room: int, block: int, sizes: list[int]) -> None:
    allowance = Allowance(room, block)
    taken = [size for size in sizes if allowance.take(size)]
    assert sum(-(-size // block) * block for size in taken) <= room
    assert allowance.room_bytes >= 0
