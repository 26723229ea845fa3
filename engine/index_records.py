"""What the index knows, as values. Times are unix seconds (UTC).

Pure: these are what `engine/index.py` takes and gives; nothing here reads or writes.
"""

from dataclasses import dataclass
from enum import Enum

from engine.hot import Kind
from engine.names import Digest, Tag


class LinkState(Enum):
    """How well it is known that upstream serves a digest to a repository."""

    NAMED = "named"  # a manifest of the repository names it
    HELD = "held"  # upstream served it, or said that it would


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A blob on disk. `xxh3`: the 16 bytes of xxh3-128, None where it was not computed."""

    digest: Digest
    size_bytes: int
    xxh3: bytes | None
    is_public: bool  # was once fetched without credentials
    stored_at: float
    used_at: float
    use_count: int = 0
    is_trusted: bool = True  # its bytes were verified in this run of the program


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """What is known of a digest in one repository; the blob itself need not be here."""

    digest: Digest
    kind: Kind
    state: LinkState
    media_type: str  # empty for a blob
    size_bytes: int | None  # None where upstream did not say


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What upstream last said of a tag. `changed_at`: when it first said this digest."""

    tag: Tag
    digest: Digest
    media_type: str
    size_bytes: int | None  # None where upstream did not say
    etag: str | None
    checked_at: float
    changed_at: float


@dataclass(frozen=True, slots=True)
class Usage:
    """How much is stored."""

    blob_count: int
    stored_bytes: int
