"""Takes blobs out: row invisible, hot table, file, row gone, in this order.

Invariant: whatever happens at whatever step, no reader is promised bytes that are not there for
longer than it takes to look, and nothing that was stored or used meanwhile is lost. A removal that
was begun is carried through, even where its caller is cancelled; what a crash broke off is finished
by `finish`.
Rows count the bytes: they are free for new content when the files are gone. Where a client still
reads a file that had to go (see `engine.store.Store.find_used_at`), the file system keeps its bytes
until that ends.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from engine.blobdir import BlobDirectory
from engine.claims import Claims
from engine.errors import StorageError
from engine.eviction import Reason, Victim
from engine.index_eviction import IndexEviction
from engine.names import Digest

log = logging.getLogger(__name__)

# Files and rows of one turn; some milliseconds of the thread's and of the writer's time.
BATCH = 256


class Removable(Protocol):
    """What `engine.store.Store` knows of what is to be removed."""

    blob_directory: BlobDirectory
    claims: Claims

    def find_used_at(self, digest: Digest) -> float | None:
        """When it was last used, where the index may not know yet."""

    def hide(self, digest: Digest) -> None:
        """Have nobody served it from memory any more."""


class Removal:
    """Removes victims. `aclose` before the index."""

    def __init__(
        self, store: Removable, index: IndexEviction, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._index = index
        self._clock = clock
        self._tasks: set[asyncio.Task[list[Victim]]] = set()

    async def remove(self, victims: Sequence[Victim]) -> list[Victim]:
        """Remove those that were not used since they were chosen; return those that are gone.

        Raises `StorageError` where the index cannot be written; what is half removed is finished
        by `finish`. A caller that is cancelled only stops waiting.
        """
        task = asyncio.create_task(self._remove(victims), name="removal")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait({task})
        return task.result()

    async def finish(self) -> int:
        """Finish what was broken off: by a crash, a disk that failed, a caller that was cancelled.

        Returns how many a crash or the disk had left. Raises as `remove`.
        """
        await self.aclose()
        leaving = await self._index.list_leaving()
        for start in range(0, len(leaving), BATCH):
            batch = leaving[start : start + BATCH]
            await self.remove([Victim(digest, 0, float("inf"), Reason.BUDGET) for digest in batch])
        return len(leaving)

    async def aclose(self) -> None:
        """Wait for what was begun."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _remove(self, victims: Sequence[Victim]) -> list[Victim]:
        claimed = {
            victim.digest: victim
            for victim in victims
            if self._is_unused(victim) and self._store.claims.take_free(victim.digest)
        }
        try:
            return await self._remove_claimed(claimed)
        finally:
            for digest in claimed:
                self._store.claims.release(digest)

    async def _remove_claimed(self, claimed: dict[Digest, Victim]) -> list[Victim]:
        marked = await self._mark(claimed.values())
        for digest in marked:
            self._store.hide(digest)
        gone = await asyncio.to_thread(self._unlink, marked)
        for digest in gone:
            # Somebody who had read the row before it was marked may have made it hot again.
            self._store.hide(digest)
        removed = [claimed[digest] for digest in gone]
        remembered = [victim.digest for victim in removed if victim.is_remembered]
        await self._index.drop(gone, remembered, self._clock())
        return removed

    def _is_unused(self, victim: Victim) -> bool:
        used_at = self._store.find_used_at(victim.digest)
        return used_at is None or used_at <= victim.used_at

    async def _mark(self, victims: Iterable[Victim]) -> list[Digest]:
        planned = {victim.digest: victim.used_at for victim in victims}
        try:
            marked = await self._index.mark(planned)
        except StorageError as exc:
            # A full disk takes no write of the index either, so files must go first. A row without
            # its file is dropped by whoever comes upon it.
            log.warning("eviction unmarked count=%d cause=%s", len(planned), exc)
            return list(planned)
        return [digest for digest in planned if digest in marked]

    def _unlink(self, digests: Sequence[Digest]) -> list[Digest]:
        gone = []
        for digest in digests:
            try:
                self._store.blob_directory.remove_blob(digest)
            except StorageError as exc:
                log.error("blob not removed digest=%s cause=%s", digest, exc)
            else:
                gone.append(digest)
        return gone
