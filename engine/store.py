"""What is stored here, and which repository may be served it.

Invariant: content is served to a repository only if upstream is known to serve it there: the link
is held, or a manifest of the repository names content that was fetched without credentials. An
index row whose file is gone is dropped and taken for a miss: the cache heals itself.
A failed index write never fails a request; it is logged, and asked of upstream again next time.
Must not know: HTTP, upstream.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from engine.blobdir import BlobDirectory
from engine.descriptor import find_named
from engine.errors import StorageError
from engine.hashing import Hasher
from engine.hot import Content, Hot, Kind, OpenFile
from engine.index import Index
from engine.index_records import BlobRecord, LinkRecord, LinkState, TagRecord
from engine.names import Digest, Location
from engine.touch import Touch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a digest for a repository. `blob`: it is stored here, for whomever."""

    link: LinkRecord | None
    blob: BlobRecord | None


def may_serve(kind: Kind, link: LinkRecord | None, *, is_public: bool) -> bool:
    """Whether `link` allows its repository content that `is_public` (no credentials were needed).

    A manifest may be asked for as a blob, but a blob is no manifest: it has no media type.
    """
    if link is None or (kind is Kind.MANIFEST and link.kind is not Kind.MANIFEST):
        return False
    return link.state is LinkState.HELD or is_public


class Store:
    """Stored content: the index, the blob files and the hot table as one."""

    def __init__(self, index: Index, blob_directory: BlobDirectory) -> None:
        self.index = index
        self.blob_directory = blob_directory
        self.touch = Touch()
        self._hot = Hot(blob_directory.open_blob)

    def find_hot(self, kind: Kind, location: Location, digest: Digest) -> Content | None:
        """The hit path: find content without I/O, and note its use."""
        content = self._hot.find(kind, location, digest)
        if content is not None:
            self.touch.note(digest, time.time())
        return content

    def load_body(self, content: Content) -> bytes | None:
        """Give small content's bytes; None for large content.

        Raises `StorageError` where the file is gone or damaged; it is forgotten then.
        """
        try:
            return self._hot.load_body(content)
        except (OSError, ValueError) as exc:
            raise self._forget_vanished(content.digest, exc) from exc

    def open_file(self, content: Content) -> OpenFile:
        """Hold content's open file; the caller releases it. Raises as `load_body`."""
        try:
            return self._hot.open_file(content.digest)
        except OSError as exc:
            raise self._forget_vanished(content.digest, exc) from exc

    async def find(self, location: Location, digest: Digest) -> Known:
        """Read the index. A blob whose file is missing or has another size is dropped."""
        link, blob = await self.index.find(location, digest)
        if blob is not None and not self._has_file(blob):
            log.warning("blob lost digest=%s action=fetched anew when asked for", digest)
            await self.forget(digest)
            blob = None
        return Known(link, blob)

    def admit(self, kind: Kind, location: Location, blob: BlobRecord, media_type: str) -> Content:
        """Make stored content hot for a repository that may be served it, and note its use."""
        content = self.find_hot(kind, location, blob.digest)
        if content is None:
            content = Content(blob.digest, blob.size_bytes, media_type, blob.stored_at)
            self._hot.add(kind, location, content)
            self.touch.note(blob.digest, time.time())
        return content

    async def find_content(self, kind: Kind, location: Location, digest: Digest) -> Content | None:
        """Find content that `location` may be served, in the hot table or the index."""
        content = self.find_hot(kind, location, digest)
        if content is None:
            known = await self.find(location, digest)
            content = self.find_permitted(kind, location, known)
        return content

    def find_permitted(self, kind: Kind, location: Location, known: Known) -> Content | None:
        """Make content hot if it is stored and `location` may be served it."""
        if known.blob is None or known.link is None:
            return None
        if not may_serve(kind, known.link, is_public=known.blob.is_public):
            return None
        media_type = known.link.media_type if kind is Kind.MANIFEST else ""
        return self.admit(kind, location, known.blob, media_type)

    async def hold(self, location: Location, link: LinkRecord) -> None:
        """Record that upstream serves the content to `location`."""
        with log_failed_write("link", link.digest):
            await self.index.hold(
                location, link.digest, link.kind, link.media_type, link.size_bytes
            )

    async def commit_blob(self, location: Location, blob: BlobRecord) -> None:
        """Commit a verified partial: the file first, then the rows. Raises `StorageError`."""
        await asyncio.to_thread(self.blob_directory.commit, blob.digest)
        link = LinkRecord(blob.digest, Kind.BLOB, LinkState.HELD, "", blob.size_bytes)
        with log_failed_write("blob", blob.digest):
            await self.index.commit_blob(location, blob, link)

    async def commit_manifest(
        self,
        location: Location,
        link: LinkRecord,
        body: bytes,
        *,
        is_public: bool,
        tag: TagRecord | None,
    ) -> Content:
        """Store a verified manifest, what it names, and the tag that led to it.

        Where the disk refuses, the content is returned all the same, and not stored.
        """
        hasher = Hasher(link.digest.algorithm)
        hasher.update(body)
        now = time.time()
        blob = BlobRecord(link.digest, len(body), hasher.xxh3, is_public, now, now, 1)
        try:
            await asyncio.to_thread(self.blob_directory.write_blob, link.digest, body)
        except StorageError as exc:
            log.error("manifest not stored digest=%s cause=%s", link.digest, exc)
            content = Content(link.digest, len(body), link.media_type, now)
            content.body = body
            return content
        with log_failed_write("manifest", link.digest):
            await self.index.commit_manifest(location, blob, link, find_named(body), tag)
        return self.admit(Kind.MANIFEST, location, blob, link.media_type)

    async def forget(self, digest: Digest) -> None:
        """Drop stored content: from the hot table at once, then from the index."""
        self._hot.forget(digest)
        with log_failed_write("loss", digest):
            await self.index.forget_blob(digest)

    async def aclose(self) -> None:
        """Write what is pending and close everything."""
        self._hot.close()
        await self.flush_uses()
        await self.index.aclose()

    async def flush_uses(self) -> None:
        """Write the access times that were noted since the last call."""
        with log_failed_write("access times", "-"):
            uses = self.touch.take()
            await self.index.record_uses(uses)
            self.touch.settle(uses)

    def _has_file(self, blob: BlobRecord) -> bool:
        try:
            file = self._hot.open_file(blob.digest)
        except OSError:
            return False
        try:
            return os.fstat(file.fd).st_size == blob.size_bytes
        finally:
            file.release()

    # No context manager: entering and leaving one takes longer than finding an open file.
    def _forget_vanished(self, digest: Digest, cause: Exception) -> StorageError:
        """Forget content whose file is gone or damaged; return the error to raise."""
        self._hot.forget(digest)
        return StorageError(f"{digest} cannot be read: {cause}")


@contextmanager
def log_failed_write(what: str, subject: str) -> Iterator[None]:
    """Log a failed index write instead of failing the request that caused it."""
    try:
        yield
    except StorageError as exc:
        log.error("index write failed what=%s digest=%s cause=%s", what, subject, exc)
