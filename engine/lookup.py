"""What a lookup in the cache found, and what the cache had to do for it."""

from dataclasses import dataclass
from enum import Enum, auto

from engine.hot import Content
from engine.names import Digest
from engine.reader import Reader


class CacheStatus(Enum):
    """What the cache did; the server says it as `Cache-Status` (RFC 9211)."""

    HIT = auto()  # served from here, nobody was asked
    REVALIDATED = auto()  # upstream was asked, what is here is still right
    MISS = auto()  # fetched from upstream for this request
    COLLAPSED = auto()  # fetched from upstream for another request, shared with this one
    STALE = auto()  # upstream was asked in vain; what is here is served, with a warning
    BYPASS = auto()  # fetched from upstream and not stored


@dataclass(frozen=True, slots=True)
class ManifestLookup:
    """A manifest. `content` is None only for a HEAD of a manifest that is not stored here."""

    status: CacheStatus
    digest: Digest
    size_bytes: int
    media_type: str
    content: Content | None
    warning: str = ""  # why it is stale; for people
    upstream_status: int | None = None  # upstream's HTTP status, where it was asked


@dataclass(frozen=True, slots=True)
class BlobLookup:
    """A blob: stored (`content`) or to be read as it comes (`reader`, which the caller closes).

    `stored_at` (unix seconds) with a reader: it is stored, and being verified.
    """

    status: CacheStatus
    content: Content | None = None
    reader: Reader | None = None
    stored_at: float | None = None


@dataclass(frozen=True, slots=True)
class BlobHead:
    """What a HEAD of a blob says."""

    status: CacheStatus
    size_bytes: int | None
    stored_at: float | None = None  # unix seconds, where it is stored here


@dataclass(frozen=True, slots=True)
class TagPage:
    """Tags in lexical order; from upstream, or those known here while it cannot be asked."""

    tags: tuple[str, ...]
    warning: str = ""


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """An image index, as JSON; `is_filtered` where `artifactType` was applied."""

    body: bytes
    is_filtered: bool
