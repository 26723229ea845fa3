"""Rows and files held to each other, whenever one is looked for: the cache heals itself.

Invariant: what `find` returns is there, has the size it should have and, but for large blobs, bytes
that this run has verified. A row whose file is gone is dropped and taken for a miss; a file without
a row gets one; a damaged file goes into quarantine, and no byte of it is served from then on.
A failed index write never fails a request; it is logged.
Must not know: HTTP, upstream, who may be served what.
"""

import asyncio
import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import trust
from engine.blobdir import BlobDirectory, FoundFile
from engine.claims import Claims
from engine.errors import StorageError
from engine.fault_log import RepeatedLines
from engine.hot import Hot, Kind
from engine.index import Index
from engine.index_records import BlobRecord, LinkRecord
from engine.index_upkeep import IndexUpkeep
from engine.names import Digest, Location
from engine.quarantine import Kept, Quarantine
from engine.reconcile import adopt_record
from engine.space import Space

log = logging.getLogger(__name__)
# Of the process, as the log is.
_failed_writes = RepeatedLines(log)

# Failures to open a file that say nothing about the file.
_SCARCITY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Custody:
    """Takes care of stored blobs; `aclose` before the index."""

    def __init__(
        self,
        index: Index,
        blob_directory: BlobDirectory,
        hot: Hot,
        claims: Claims,
        space: Space,
    ) -> None:
        self.upkeep = IndexUpkeep(index.connections)
        self.trust = trust.Trust(blob_directory.open_blob, self)
        self.damaged_count = 0  # since the start
        self._index = index
        self._blob_directory = blob_directory
        self._hot = hot
        self._claims = claims
        self._space = space
        self._quarantine = Quarantine(blob_directory.layout)

    async def find(
        self, kind: Kind, location: Location, digest: Digest
    ) -> tuple[LinkRecord | None, BlobRecord | None]:
        """Find what the index says, and see that it is right about the blob.

        What is not trusted yet is verified now; but if it is asked for as a blob and is large,
        `trust` is to do that while it is read. Raises `StorageError` where the index, or a file
        that is there, cannot be read for now.
        """
        link, blob = await self._index.find(location, digest)
        if blob is None and self._find_whole(digest) is not None:
            # Whoever is storing or removing it just now is waited for.
            async with self._claims.hold(digest):
                link, blob = await self._index.find(location, digest)
                if blob is None and await self._adopt(digest):
                    link, blob = await self._index.find(location, digest)
        if blob is not None and _is_verified_whole(kind, blob) and self._has_file(blob):
            blob = await self.trust.verify(blob)
        # The last look at the file: what is returned is there, until the next await.
        if blob is not None and not self._has_file(blob):
            await self._drop_lost(blob)
            blob = None
        return link, blob

    async def forget(self, digest: Digest) -> None:
        """Drop stored content: from the hot table at once, then from the index."""
        self._hot.forget(digest)
        with log_failed_write("loss", digest):
            await self._index.forget_blob(digest)

    async def quarantine(self, digest: Digest, reason: str, fd: int | None = None) -> Path | None:
        """Take a blob out of service at once; its file is kept apart for people to look at.

        Returns where; None where there is no file, or one that cannot be moved: it is removed. With
        `fd` nothing happens unless the file is still the one that is open.
        """
        now = time.time()
        self._hot.revoke(digest, fd)
        async with self._claims.hold(digest):
            kept = self._take(digest, now, fd)
            is_replaced = kept is None and self._blob_directory.find_file(digest) is not None
            if fd is not None and is_replaced:
                return None
            if kept is not None:
                # Before its row goes, so that its bytes are not free for a moment in between.
                quarantine_bytes = self._space.quarantine_bytes + kept.allocated_bytes
                self._space.count_quarantine(quarantine_bytes)
            await self.forget(digest)
        if kept is not None:
            self.damaged_count += 1
            log.error(
                "blob damaged digest=%s path=%s cause=%s action=fetched anew when asked for; "
                "several of these mean that the disk or the memory fails",
                digest,
                kept.path,
                reason,
            )
            await self.prune_quarantine(now)
        return None if kept is None else kept.path

    async def note_verified(self, digest: Digest, xxh3: bytes) -> None:
        """Record that a blob's bytes were compared, and are right."""
        with log_failed_write("verification", digest):
            await self.upkeep.record_verified(digest, xxh3, time.time())

    async def prune_quarantine(self, now: float) -> None:
        """Remove from quarantine what has been there for long, or is too much."""
        try:
            self._space.count_quarantine(await asyncio.to_thread(self._quarantine.prune, now))
        except StorageError as exc:
            log.error("quarantine not pruned cause=%s", exc)

    async def aclose(self) -> None:
        """Give up checks under way."""
        await self.trust.aclose()

    def _find_whole(self, digest: Digest) -> FoundFile | None:
        file = self._blob_directory.find_file(digest)
        return file if file is not None and file.is_plausible(digest) else None

    async def _adopt(self, digest: Digest) -> bool:
        """Give a file that has no row one, as a lost index leaves many; whether that was tried."""
        file = self._find_whole(digest)
        if file is None:
            return False
        with log_failed_write("found blob", digest):
            await self.upkeep.adopt([adopt_record(digest, file, time.time())])
            log.info("blob adopted digest=%s", digest)
        return True

    def _take(self, digest: Digest, now: float, fd: int | None) -> Kept | None:
        try:
            return self._quarantine.take(digest, now, fd)
        except StorageError as exc:
            log.error("quarantine failed digest=%s cause=%s action=removed", digest, exc)
        try:
            self._blob_directory.remove_blob(digest)
        except StorageError as exc:
            log.error("damaged blob not removed digest=%s cause=%s", digest, exc)
        return None

    async def _drop_lost(self, blob: BlobRecord) -> None:
        """Drop a blob whose file cannot be opened, or has not the size it should have."""
        file = self._blob_directory.find_file(blob.digest)
        if file is not None:
            reason = f"it cannot be opened, or has {file.size_bytes} of {blob.size_bytes} bytes"
            await self.quarantine(blob.digest, reason)
            return
        log.warning("blob lost digest=%s action=fetched anew when asked for", blob.digest)
        self._hot.forget(blob.digest)
        with log_failed_write("loss", blob.digest):
            await self.upkeep.forget([blob.digest])

    def _has_file(self, blob: BlobRecord) -> bool:
        try:
            file = self._hot.open_file(blob.digest)
        except OSError as exc:
            if exc.errno in _SCARCITY:
                raise StorageError(f"{blob.digest} cannot be opened now: {exc}") from exc
            return False
        try:
            return os.fstat(file.fd).st_size == blob.size_bytes
        finally:
            file.release()


def _is_verified_whole(kind: Kind, blob: BlobRecord) -> bool:
    is_small = kind is Kind.MANIFEST or blob.size_bytes <= trust.MAX_WHOLE_BYTES
    return is_small and not blob.is_trusted


@contextmanager
def log_failed_write(what: str, subject: str) -> Iterator[None]:
    """Log a failed index write instead of failing the request that caused it."""
    try:
        yield
    except StorageError as exc:
        key = (what, type(exc))
        message = "index write failed what=%s digest=%s cause=%s"
        _failed_writes.error(key, message, what, subject, exc)
