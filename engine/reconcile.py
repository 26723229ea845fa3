"""Index and files brought to agree, in the background of a running mirror.

Invariant: a file without a row gets one, a row without a file goes; nothing is hashed and no file
is removed. It goes by one of a few hundred pieces at a time and yields in between, and each act
rests on a look at the file in the same turn of the loop: fills and evictions go on all the while.
What it has not come to yet heals as it is asked for (`engine/store.py`).
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from engine.blobdir import BlobDirectory, FoundFile
from engine.index_records import BlobRecord
from engine.index_upkeep import IndexUpkeep
from engine.live_views import ReconcileView
from engine.names import DIGEST_HEX_CHARS, Digest

log = logging.getLogger(__name__)

SHARDS = tuple(f"{number:02x}" for number in range(256))
# Looks at files on the loop, and rows of one transaction; a few milliseconds.
BATCH = 256
# All that was found counts as used within the last day, since nobody knows better.
_PRESUMED_SPAN_S = 24 * 3600.0


@dataclass(slots=True)
class Tally:
    """What one pass found and did."""

    file_count: int = 0
    adopted_count: int = 0
    dropped_count: int = 0
    foreign: list[str] = field(default_factory=list)  # paths


def adopt_record(digest: Digest, file: FoundFile, now: float) -> BlobRecord:
    """Make the record of a file that was found. Pure."""
    return BlobRecord(
        digest,
        file.size_bytes,
        xxh3=None,
        is_public=False,
        stored_at=min(file.stored_at, now),
        used_at=presume_use(max(file.stored_at, file.read_at), now),
        is_trusted=False,
    )


def presume_use(seen_at: float, now: float) -> float:
    """Guess when a file was last used that the file system saw used at `seen_at` (unix seconds).

    It may have been every minute since: many disks are mounted so that reading leaves no trace. So
    the order of these times is kept, but all of them become times of the last day, lest a lost
    index have everything expire that was stored long ago. Pure.
    """
    age_s = max(0.0, now - seen_at)
    return now - _PRESUMED_SPAN_S * age_s / (age_s + _PRESUMED_SPAN_S)


class Reconciler:
    """Compares all of the index with all of the files."""

    def __init__(self, index: IndexUpkeep, blob_directory: BlobDirectory) -> None:
        self._index = index
        self._blob_directory = blob_directory
        self._tally = Tally()  # of the pass under way, else of the last one
        self._is_running = False
        self._finished_at: float | None = None

    def look(self) -> ReconcileView:
        """Tell how far it is."""
        tally = self._tally
        return ReconcileView(
            self._is_running,
            tally.file_count,
            tally.adopted_count,
            tally.dropped_count,
            len(tally.foreign),
            self._finished_at,
        )

    async def run_once(self) -> Tally:
        """Go through everything once and log what was done. Raises `StorageError`.

        Cancelled, it leaves off between two batches.
        """
        begun_at = time.monotonic()
        tally = self._tally = Tally()
        self._is_running = True
        try:
            await self._compare_all(tally)
        finally:
            self._is_running = False
        self._finished_at = time.time()
        self._log(tally, time.monotonic() - begun_at)
        return tally

    async def _compare_all(self, tally: Tally) -> None:
        tally.foreign += await asyncio.to_thread(self._blob_directory.list_foreign)
        for algorithm in DIGEST_HEX_CHARS:
            if await self._is_used(algorithm):
                for shard in SHARDS:
                    await self._reconcile_shard(algorithm, shard, tally)

    async def _is_used(self, algorithm: str) -> bool:
        """Whether there is anything of an algorithm; most mirrors only ever see one."""
        return self._blob_directory.has_any(algorithm) or await self._index.has_any(algorithm)

    async def _reconcile_shard(self, algorithm: str, shard: str, tally: Tally) -> None:
        # Files first: a blob that is committed between the two looks has a row, and its file is
        # looked for once more before the row would go.
        listing = await asyncio.to_thread(self._blob_directory.list_shard, algorithm, shard)
        rows = await self._index.list_shard(algorithm, shard)
        tally.file_count += len(listing.digests)
        tally.foreign += listing.foreign
        for batch in _batches(rows - listing.digests):
            tally.dropped_count += await self._drop(batch)
        for batch in _batches(listing.digests - rows):
            tally.adopted_count += await self._adopt(batch, tally)

    async def _drop(self, digests: list[Digest]) -> int:
        gone = [digest for digest in digests if self._blob_directory.find_file(digest) is None]
        if gone:
            await self._index.forget(gone)
        return len(gone)

    async def _adopt(self, digests: list[Digest], tally: Tally) -> int:
        now = time.time()
        found = []
        for digest in digests:
            file = self._blob_directory.find_file(digest)
            if file is not None and file.is_plausible(digest):
                found.append(adopt_record(digest, file, now))
            elif file is not None:
                tally.foreign.append(str(self._blob_directory.path_of(digest)))
        if found:
            await self._index.adopt(found)
        return len(found)

    def _log(self, tally: Tally, duration_s: float) -> None:
        if tally.foreign:
            log.warning(
                "foreign files left alone count=%d first=%s action=move them out of blobs/",
                len(tally.foreign),
                min(tally.foreign),
            )
        log.info(
            "reconciled files=%d adopted=%d dropped=%d foreign=%d duration_s=%.1f",
            tally.file_count,
            tally.adopted_count,
            tally.dropped_count,
            len(tally.foreign),
            duration_s,
        )


def _batches(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    rest = iter(digests)
    while batch := list(islice(rest, BATCH)):
        yield batch
