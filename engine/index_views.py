"""What `engine/index_inspection.py` tells, as values. Times are unix seconds, sizes bytes. Pure."""

from dataclasses import dataclass

from engine.names import Digest, Location, Repository


@dataclass(frozen=True, slots=True)
class BlobFilter:
    """Which blobs are meant; None = whichever. `repository` needs `upstream`."""

    upstream: str | None = None
    repository: str | None = None
    larger_than_bytes: int | None = None
    stored_before: float | None = None
    used_before: float | None = None


@dataclass(frozen=True, slots=True)
class BlobView:
    """A row of a blob. `kind`: manifest, blob, or empty where no repository links it."""

    digest: Digest
    size_bytes: int
    kind: str
    state: str
    is_public: bool
    stored_at: float
    used_at: float
    use_count: int
    verified_at: float | None
    repository_count: int


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """What one repository has. `own_bytes`: of blobs that no other repository links."""

    upstream: str
    name: str
    tag_count: int
    link_count: int
    blob_count: int
    stored_bytes: int
    own_bytes: int
    used_at: float | None

    @property
    def location(self) -> Location:
        """Which repository it is."""
        return Location(self.upstream, Repository(self.name))


@dataclass(frozen=True, slots=True)
class TagView:
    """A tag, as upstream last said. `is_stored`: its manifest is here."""

    upstream: str
    repository: str
    tag: str
    digest: Digest
    media_type: str
    checked_at: float
    changed_at: float
    is_stored: bool

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.upstream}/{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class LinkView:
    """What one repository knows of a digest. `state`: named or held."""

    upstream: str
    repository: str
    kind: str
    state: str
    media_type: str
    size_bytes: int | None
    linked_at: float


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a blob's bytes should be. `xxh3`: None where only the digest tells."""

    digest: Digest
    size_bytes: int
    xxh3: bytes | None
    stored_at: float


@dataclass(frozen=True, slots=True)
class Share:
    """How many blobs, and their sizes."""

    blob_count: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Books:
    """What the index has counted as it went, and what counting anew says, in one moment."""

    blob_count: int
    disk_bytes: int
    actual_count: int
    actual_bytes: int
