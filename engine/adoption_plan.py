"""What an adoption takes, in which order, and what it came to. Pure.

Invariant: manifests come first, since without them nothing else is asked for; then what was used
last. What the budget has no room for is left, so that eviction need not undo an adoption.
"""

from dataclasses import dataclass, field

from engine.adoption_intake import Mode
from engine.adoption_survey import FoundBlob, Survey
from engine.hot import Kind
from engine.names import Digest, Location


@dataclass(slots=True)
class Adopted:
    """What was done. `left`: what the budget has no room for."""

    taken: dict[Mode, int] = field(default_factory=lambda: dict.fromkeys(Mode, 0))
    taken_bytes: int = 0
    present_count: int = 0
    left_count: int = 0
    left_bytes: int = 0
    repository_count: int = 0
    link_count: int = 0
    tag_count: int = 0
    gone_count: int = 0  # links and tags to what the registry has deleted
    unlinked_count: int = 0  # blobs that no repository links

    @property
    def taken_count(self) -> int:
        """Blobs that came in."""
        return sum(self.taken.values())


@dataclass(slots=True)
class Allowance:
    """The bytes that may still be taken, in whole blocks of the file system."""

    room_bytes: int
    block_bytes: int = 1

    def take(self, size_bytes: int) -> bool:
        """Take room for a file; False where there is not enough."""
        needed_bytes = -(-size_bytes // self.block_bytes) * self.block_bytes
        if needed_bytes > self.room_bytes:
            return False
        self.room_bytes -= needed_bytes
        return True


@dataclass(frozen=True, slots=True)
class Job:
    """A blob of the registry, and who was served it."""

    digest: Digest
    found: FoundBlob
    kind: Kind
    holders: tuple[Location, ...]


def plan_jobs(survey: Survey, upstream: str) -> list[Job]:
    """List what is to be taken: manifests first, then what was used last. Pure."""
    holders: dict[Digest, list[Location]] = {}
    manifests: set[Digest] = set()
    for repository in survey.repositories:
        for digest in sorted(repository.blobs | repository.manifests):
            holders.setdefault(digest, []).append(Location(upstream, repository.name))
        manifests |= repository.manifests
    jobs = [
        Job(
            digest,
            found,
            Kind.MANIFEST if digest in manifests else Kind.BLOB,
            tuple(holders[digest]),
        )
        for digest, found in survey.blobs.items()
        if digest in holders
    ]
    return sorted(jobs, key=lambda job: (job.kind is Kind.BLOB, -job.found.seen_at, job.digest))
