"""What is stored here, and which repository may be served it.

Invariant: content is served to a repository only if upstream is known to serve it there: the link
is held, or a manifest of the repository names content that was fetched without credentials. Only
what this run has verified is hot. Rows and files are held to each other (engine/custody.py).
A failed index write never fails a request; it is logged, and asked of upstream again next time.
Must not know: HTTP, upstream.
"""

import asyncio
import logging
import math
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.blobdir import BlobDirectory
from engine.claims import Claims
from engine.custody import Custody, log_failed_write
from engine.descriptor import find_named
from engine.errors import StorageError
from engine.fault_log import RepeatedLines
from engine.hands import Hands
from engine.hashing import Hasher
from engine.hot import Content, Hot, Kind, OpenFile
from engine.index import Index
from engine.index_records import BlobRecord, LinkRecord, LinkState, TagRecord
from engine.leftovers import Leftovers
from engine.names import Digest, Location, Tag
from engine.room import Room
from engine.space import Space
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

    def __init__(
        self, index: Index, blob_directory: BlobDirectory, space: Space | None = None
    ) -> None:
        """Without a `space` there is no budget."""
        self.index = index
        self.blob_directory = blob_directory
        self.space = space or Space(sys.maxsize)
        self.room = Room(self.space)
        self.leftovers = Leftovers(self.space)
        self.touch = Touch()
        self.claims = Claims()
        self.hands = Hands()
        self._flushing = asyncio.Lock()
        self._failed_reads = RepeatedLines(log)
        self._hot = Hot(blob_directory.open_blob)
        self.custody = Custody(index, blob_directory, self._hot, self.claims, self.space)

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

    async def find(self, kind: Kind, location: Location, digest: Digest) -> Known:
        """Find what is known, healed and verified; see `Custody.find`.

        Where the index cannot be read, nothing is known: upstream is asked.
        """
        try:
            link, blob = await self.custody.find(kind, location, digest)
        except StorageError as exc:
            self._failed_reads.error("digest", "index not read digest=%s cause=%s", digest, exc)
            return Known(None, None)
        return Known(link, blob)

    async def find_tag(self, location: Location, tag: Tag) -> TagRecord | None:
        """Find what upstream last said of a tag; None too where the index cannot be read."""
        try:
            return await self.index.find_tag(location, tag)
        except StorageError as exc:
            message = "index not read location=%s tag=%s cause=%s"
            self._failed_reads.error("tag", message, location, tag, exc)
            return None

    def admit(self, kind: Kind, location: Location, blob: BlobRecord, media_type: str) -> Content:
        """Make stored content hot for a repository that may be served it, and note its use.

        What is not trusted yet does not become hot: it is to be read by way of `trust`.
        """
        content = self.find_hot(kind, location, blob.digest)
        if content is None:
            content = Content(blob.digest, blob.size_bytes, media_type, blob.stored_at)
            if blob.is_trusted:
                self._hot.add(kind, location, content)
            self.touch.note(blob.digest, time.time())
        return content

    async def find_content(self, kind: Kind, location: Location, digest: Digest) -> Content | None:
        """Find content that `location` may be served, in the hot table or the index."""
        content = self.find_hot(kind, location, digest)
        if content is None:
            known = await self.find(kind, location, digest)
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

    async def commit_blob(
        self, location: Location, blob: BlobRecord, body: bytes | None = None
    ) -> None:
        """Commit a verified partial, or what has none yet, `body`: the file first, then the rows.

        Raises `StorageError`, and nothing of it is kept: without a row nobody would count it.
        """
        link = LinkRecord(blob.digest, Kind.BLOB, LinkState.HELD, "", blob.size_bytes)
        async with self.claims.hold(blob.digest):
            if body is None:
                await asyncio.to_thread(self.blob_directory.commit, blob.digest)
            else:
                await asyncio.to_thread(self.blob_directory.write_blob, blob.digest, body)
            async with self._kept_only_with_row(location, blob.digest):
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

        Where there is no room or the disk refuses, the content is returned all the same, and not
        stored.
        """
        hasher = Hasher(link.digest.algorithm)
        hasher.update(body)
        now = time.time()
        blob = BlobRecord(link.digest, len(body), hasher.xxh3, is_public, now, now, 1)
        try:
            promise = await self.room.promise(len(body))
        except StorageError as exc:
            return self._unstored(link, body, now, exc)
        try:
            async with self.claims.hold(link.digest):
                await asyncio.to_thread(self.blob_directory.write_blob, link.digest, body)
                async with self._kept_only_with_row(location, link.digest):
                    await self.index.commit_manifest(location, blob, link, find_named(body), tag)
        except StorageError as exc:
            self.room.failed(exc)
            return self._unstored(link, body, now, exc)
        finally:
            promise.release()
        self.room.worked()
        return self.admit(Kind.MANIFEST, location, blob, link.media_type)

    def find_used_at(self, digest: Digest) -> float | None:
        """When it was last used, where the index may not know yet; for ever, while it is sent."""
        return math.inf if self._hot.is_sent(digest) else self.touch.used_at(digest)

    def hide(self, digest: Digest) -> None:
        """Have nobody served it from the hot table any more. What is being sent goes on."""
        self._hot.forget(digest)

    def hide_repositories(self, is_hidden: Callable[[Location], bool]) -> None:
        """Have the index asked what these repositories may be served."""
        self._hot.forget_repositories(is_hidden)

    async def forget(self, digest: Digest) -> None:
        """Drop stored content: from the hot table at once, then from the index."""
        await self.custody.forget(digest)

    async def quarantine(self, digest: Digest, reason: str) -> Path | None:
        """Take a blob out of service at once; see `Custody.quarantine`."""
        return await self.custody.quarantine(digest, reason)

    async def aclose(self) -> None:
        """Write what is pending and close everything."""
        await self.custody.aclose()
        self.hands.close()
        self._hot.close()
        await self.flush_uses()
        await self.index.aclose()

    async def flush_uses(self) -> None:
        """Write the access times that were noted since the last call."""
        # One at a time: a batch that two took would count twice.
        async with self._flushing:
            with log_failed_write("access times", "-"):
                uses = self.touch.take()
                await self.index.record_uses(uses)
                self.touch.settle(uses)

    def _unstored(self, link: LinkRecord, body: bytes, now: float, cause: StorageError) -> Content:
        """Make content that is in memory only."""
        self.room.note_unstored("manifest", link.digest, cause)
        content = Content(link.digest, len(body), link.media_type, now)
        content.body = body
        return content

    @asynccontextmanager
    async def _kept_only_with_row(self, location: Location, digest: Digest) -> AsyncIterator[None]:
        try:
            yield
        except StorageError:
            if not await self._has_row(location, digest):
                await asyncio.to_thread(self.blob_directory.remove_blob, digest)
            raise

    async def _has_row(self, location: Location, digest: Digest) -> bool:
        """Whether it was stored before: some upstreams have a tag's manifest come each time."""
        try:
            _, blob = await self.index.find(location, digest)
        except StorageError:
            return False
        return blob is not None

    # No context manager: entering and leaving one takes longer than finding an open file.
    def _forget_vanished(self, digest: Digest, cause: Exception) -> StorageError:
        """Forget content whose file is gone or damaged; return the error to raise."""
        self._hot.forget(digest)
        return StorageError(f"{digest} cannot be read: {cause}")
