"""A cache that holds what a test puts into it: files and fills are real, upstream is not there.

Every call is noted in `calls` by its name.
"""

import os
import tempfile
from collections.abc import AsyncGenerator
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from engine.cache import Cache
from engine.errors import BlobUnknown, CacheError, ManifestUnknown, StorageError
from engine.fill import Fill, Outcome
from engine.hot import SMALL_BODY_BYTES, Content, Kind, OpenFile
from engine.lookup import (
    BlobHead,
    BlobLookup,
    CacheStatus,
    ManifestLookup,
    ReferrersPage,
    TagPage,
)
from engine.names import Digest, Location, Reference
from engine.reader import Reader

T = TypeVar("T")


def digest_of(data: bytes) -> Digest:
    """Name `data`."""
    return Digest(f"sha256:{sha256(data).hexdigest()}")


class FilledBlob:
    """A fill whose lead is the test: it writes, ends, and looks who is still reading."""

    def __init__(self, data: bytes, *, is_size_known: bool = True) -> None:
        self.data = data
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self.size_bytes = len(data) if is_size_known else None
        self.fill = Fill(digest_of(data), self.size_bytes)
        self.fill.attach(os.dup(self.file.fileno()))

    def write_to(self, offset: int) -> None:
        """Let upstream's bytes arrive up to `offset`."""
        start = self.fill.written_bytes
        if not self.fill.is_open:
            self.fill.open(self.size_bytes)
        if self.fill.window is not None:
            self.fill.pass_on(memoryview(self.data)[start:offset])
            return
        os.pwrite(self.file.fileno(), self.data[start:offset], start)
        self.fill.advance(offset - start)

    def finish(self) -> None:
        """Let the rest arrive, verified."""
        self.write_to(len(self.data))
        self.fill.end(Outcome.DONE)

    def fail(self, error: CacheError) -> None:
        """Let the fill end in vain."""
        self.fill.end(Outcome.RETRYABLE, error)

    @property
    def reader_count(self) -> int:
        """How many read it."""
        return self.fill.reader_count

    def close(self) -> None:
        """Be done; fails where a reader was left open."""
        assert self.reader_count == 0
        self.fill.leave()
        self.file.close()


class FakeCache(Cache):
    """A cache of what was added to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: list[str] = []
        self.contents: dict[tuple[Kind, Location, Digest], Content] = {}
        self.manifests: dict[tuple[Location, Reference], ManifestLookup | CacheError] = {}
        self.blobs: dict[tuple[Location, Digest], BlobHead | CacheError] = {}
        self.fills: dict[Digest, FilledBlob] = {}
        self.tags: TagPage | CacheError = TagPage(())
        self.referrers: ReferrersPage | CacheError = ReferrersPage(b"{}", is_filtered=False)
        self.repositories: list[Location] = []
        self.side_error: CacheError | None = None
        self.side_piece_bytes = 1 << 16  # 0: `side_error` comes before the first piece
        self.side_ranges: list[tuple[int, int]] = []
        self.side_closed_count = 0

    def add(
        self, location: Location, data: bytes, media_type: str = "", stored_at: float = 0.0
    ) -> Content:
        """Store a blob, or a manifest where there is a `media_type`; it is a hit from now on."""
        digest = digest_of(data)
        (self.directory / digest).write_bytes(data)
        content = Content(digest, len(data), media_type, stored_at)
        kind = Kind.MANIFEST if media_type else Kind.BLOB
        self.contents[kind, location, digest] = content
        return content

    def lose(self, content: Content) -> None:
        """Remove its file behind the cache's back."""
        (self.directory / content.digest).unlink()

    def find(self, kind: Kind, location: Location, digest: Digest) -> Content | None:
        return self.contents.get((kind, location, digest))

    def load_body(self, content: Content) -> bytes | None:
        if content.size_bytes > SMALL_BODY_BYTES:
            return None
        try:
            return (self.directory / content.digest).read_bytes()
        except OSError as exc:
            raise self._forget(content) from exc

    def open_file(self, content: Content) -> OpenFile:
        try:
            return OpenFile(os.open(self.directory / content.digest, os.O_RDONLY))
        except OSError as exc:
            raise self._forget(content) from exc

    async def get_manifest(self, location: Location, reference: Reference) -> ManifestLookup:
        self.calls.append("get_manifest")
        unknown = ManifestUnknown(f"{location} has no {reference}")
        return _value(self.manifests.get((location, reference), unknown))

    async def head_manifest(self, location: Location, reference: Reference) -> ManifestLookup:
        self.calls.append("head_manifest")
        unknown = ManifestUnknown(f"{location} has no {reference}")
        return _value(self.manifests.get((location, reference), unknown))

    async def get_blob(self, location: Location, digest: Digest) -> BlobLookup:
        self.calls.append("get_blob")
        filled = self.fills.get(digest)
        if filled is None:
            raise BlobUnknown(f"{location} has no {digest}")
        return BlobLookup(CacheStatus.MISS, reader=Reader(filled.fill))

    async def head_blob(self, location: Location, digest: Digest) -> BlobHead:
        self.calls.append("head_blob")
        unknown = BlobUnknown(f"{location} has no {digest}")
        return _value(self.blobs.get((location, digest), unknown))

    async def open_side_fetch(
        self, location: Location, digest: Digest, start: int, end: int
    ) -> AsyncGenerator[bytes, None]:
        self.side_ranges.append((start, end))
        try:
            data = self.fills[digest].data
            for offset in range(start, end, self.side_piece_bytes or end):
                if self.side_piece_bytes:
                    yield data[offset : min(end, offset + self.side_piece_bytes)]
                if self.side_error is not None:
                    raise self.side_error
        finally:
            self.side_closed_count += 1

    async def list_tags(self, location: Location) -> TagPage:
        self.calls.append("list_tags")
        return _value(self.tags)

    async def get_referrers(
        self, location: Location, digest: Digest, artifact_type: str | None
    ) -> ReferrersPage:
        self.calls.append(f"get_referrers artifact_type={artifact_type}")
        return _value(self.referrers)

    async def list_repositories(self) -> list[Location]:
        self.calls.append("list_repositories")
        return sorted(self.repositories, key=str)

    def _forget(self, content: Content) -> StorageError:
        for key in [key for key, known in self.contents.items() if known is content]:
            del self.contents[key]
        return StorageError(f"{content.digest} is gone")


def _value(found: T | CacheError) -> T:
    if isinstance(found, CacheError):
        raise found
    return found
