"""What goes when an operator purges, and what stays because others need it.

Invariant: content leaves with the last one that has it. What another repository links stays, and a
tag takes along only what no other manifest of its repository needs.
Pure: `engine/index_purge.py` finds the facts and carries the plan out.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from engine.names import Digest
from engine.subject import DigestSubject, Subject


@dataclass(frozen=True, slots=True)
class Linked:
    """A digest of the subject. `size_bytes`: None where it is not stored.

    `is_shared`: a repository that is not purged links it, too.
    """

    digest: Digest
    size_bytes: int | None
    is_shared: bool


@dataclass(frozen=True, slots=True)
class Goner:
    """A stored blob that goes."""

    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """What a purge takes. `kept_count`: stored blobs of the subject that stay, for others."""

    subject: Subject
    tags: tuple[str, ...]  # as upstream/repository:tag
    blobs: tuple[Goner, ...]
    kept_count: int

    @property
    def freed_bytes(self) -> int:
        """The sizes of what goes."""
        return sum(blob.size_bytes for blob in self.blobs)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.tags and not self.blobs


def make_plan(subject: Subject, tags: Iterable[str], linked: Iterable[Linked]) -> PurgePlan:
    """Decide which of the subject's digests go; `linked` may repeat one."""
    stored = {each.digest: each for each in linked if each.size_bytes is not None}
    # A digest that is meant wherever it is goes wherever it is.
    goes_anyway = isinstance(subject, DigestSubject) and subject.location is None
    goners = [
        Goner(each.digest, each.size_bytes)
        for each in stored.values()
        if each.size_bytes is not None and (goes_anyway or not each.is_shared)
    ]
    goners.sort(key=lambda goner: goner.digest)
    return PurgePlan(subject, tuple(sorted(tags)), tuple(goners), len(stored) - len(goners))


def keeping_roots(
    closure: Collection[Digest], manifests: Iterable[Digest], tagged: Iterable[Digest]
) -> set[Digest]:
    """Choose the manifests that keep content when a tag goes whose manifest names `closure`.

    `manifests`: all that the repository has stored; `tagged`: what its other tags mean. A manifest
    that only the purged one names goes with it.
    """
    return (set(manifests) - set(closure)) | set(tagged)
