"""What the cache asks of an upstream registry, as values and a Protocol.

`deadline` is an absolute time of the event loop's clock (`loop.time()`): until then transient
faults are retried inside the call; after it the call raises. Every call may raise `NotFound` (its
subclass for what was asked), `UpstreamDenied`, `UpstreamRateLimited`, `UpstreamUnavailable` or
`UpstreamProtocolError`, and nothing else but `CancelledError`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from engine.live_views import UpstreamView
from engine.names import Digest, Reference, Repository
from engine.settings import UpstreamSettings


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What upstream says of a manifest without sending it. None = the header was not there."""

    digest: Digest | None
    size_bytes: int | None
    media_type: str | None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestBody:
    """A manifest as received; `digest` is the header's claim, not verified here."""

    body: bytes
    media_type: str | None
    digest: Digest | None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class TagList:
    """All tags of a repository, in lexical order."""

    tags: tuple[str, ...]


class BlobStream(Protocol):
    """A blob's body under way. Close it, whatever happened.

    `start` is the offset of the first byte that iteration yields: always the one asked for.
    `size_bytes` is the whole blob's size by upstream's headers, None where they do not say.
    Iteration yields non-empty pieces; it raises `UpstreamUnavailable` where the body breaks off,
    stalls or exceeds its own length, and ends only at the end of the range asked for.
    """

    start: int
    size_bytes: int | None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body, once."""

    async def aclose(self) -> None:
        """Drop the connection where the body is unfinished. Idempotent."""


class Upstream(Protocol):
    """One upstream registry."""

    settings: UpstreamSettings

    async def adopt(self, settings: UpstreamSettings) -> None:
        """Go by other settings from now on, of the same registry. Raises `PemError`."""

    async def head_manifest(
        self, repository: Repository, reference: Reference, *, deadline: float
    ) -> ManifestHead:
        """`HEAD` a manifest; not billed by Docker Hub."""

    async def get_manifest(
        self, repository: Repository, reference: Reference, *, deadline: float
    ) -> ManifestBody:
        """`GET` a manifest of at most `MAX_MANIFEST_BYTES`."""

    async def head_blob(
        self, repository: Repository, digest: Digest, *, deadline: float
    ) -> int | None:
        """`HEAD` a blob: its size in bytes, None where upstream does not say."""

    async def open_blob(
        self,
        repository: Repository,
        digest: Digest,
        *,
        start: int = 0,
        end: int | None = None,
        deadline: float,
    ) -> BlobStream:
        """Open a blob's bytes `start` up to but without `end` (None = to its end).

        Returns once upstream's headers are here and make sense (until `deadline`); the body then
        has stall limits of its own. With `start` 0 and no `end`, no Range is sent. Otherwise a
        closed one where `end` is known; a 200 answer to it is skipped up to `start`.
        """

    async def list_tags(self, repository: Repository, *, deadline: float) -> TagList:
        """Fetch all pages of `tags/list`."""

    async def get_referrers(
        self, repository: Repository, digest: Digest, *, deadline: float
    ) -> bytes | None:
        """Fetch all pages of the referrers API merged into one image index, unfiltered.

        None where upstream does not know the API (404).
        """

    def look(self) -> UpstreamView:
        """Tell how it fares; asks nobody."""

    async def aclose(self) -> None:
        """Close all connections."""
