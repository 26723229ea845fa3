"""What goes with a purge, and what stays for others."""

from engine.names import Digest, Location, Repository
from engine.purge import Goner, Linked, keeping_roots, make_plan
from engine.subject import DigestSubject, RepositorySubject

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")
HERE = Location("docker.io", Repository("library/busybox"))


def test_what_is_shared_or_not_stored_does_not_go() -> None:
    linked = [Linked(C, 3, False), Linked(B, 5, True), Linked(A, None, False)]
    plan = make_plan(RepositorySubject(HERE), ["b", "a"], linked)
    assert plan.tags == ("a", "b")
    assert plan.blobs == (Goner(C, 3),)
    assert (plan.kept_count, plan.freed_bytes, plan.is_empty) == (1, 3, False)


def test_a_digest_meant_wherever_it_is_goes_though_it_is_shared() -> None:
    assert make_plan(DigestSubject(A), [], [Linked(A, 1, True)]).blobs == (Goner(A, 1),)
    assert make_plan(DigestSubject(A, HERE), [], [Linked(A, 1, True)]).is_empty


def test_what_several_repositories_of_the_subject_link_goes_once() -> None:
    twice = [Linked(A, 1, False), Linked(A, 1, False)]
    assert make_plan(RepositorySubject(HERE), [], twice).freed_bytes == 1


def test_manifests_outside_the_closure_and_other_tags_keep_what_they_name() -> None:
    assert keeping_roots({A, B}, [A, B, C], []) == {C}
    assert keeping_roots({A, B}, [A, B], [B]) == {B}
