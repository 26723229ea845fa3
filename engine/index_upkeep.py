"""What upkeep asks of the index: which files it knows, what was verified when.

Invariant: as `engine/index.py`'s. Each read takes a bounded piece of the index, so that those of
requests, which share the connection, never wait for long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.index_connections import Connections
from engine.index_records import BlobRecord
from engine.index_rows import Row, blob_row
from engine.index_writer import Statement
from engine.names import Digest

_LIST_SHARD = """
    SELECT digest FROM blob WHERE digest > :after AND digest < :beyond ORDER BY digest LIMIT :limit
"""
_PAGE_ROWS = 512
_HAS_ANY = "SELECT 1 FROM blob WHERE digest >= :first AND digest < :beyond LIMIT 1"
# Found to be on disk, and not to be in the index: never fetched by anybody as far as is known. A
# row that is there says more, one that is being evicted too.
_ADOPT = """
    INSERT INTO blob
        (digest, size_bytes, is_public, state, stored_at, used_at, use_count, queued_at)
    VALUES (:digest, :size_bytes, 0, 'valid', :stored_at, :used_at, 0, :stored_at)
    ON CONFLICT (digest) DO NOTHING
"""
_FORGET = "DELETE FROM blob WHERE digest = :digest"
_RECORD_VERIFIED = """
    UPDATE blob SET xxh3 = coalesce(xxh3, :xxh3), verified_at = :now, verified_run = :run
    WHERE digest = :digest
"""
_RECOUNT = """
    UPDATE usage SET blob_count = (SELECT count(*) FROM blob), disk_bytes =
        (SELECT coalesce(sum((size_bytes + block_bytes - 1) / block_bytes * block_bytes), 0)
        FROM blob)
"""
_PAGE = """
    SELECT digest, size_bytes, xxh3, stored_at, verified_at FROM blob
    WHERE state = 'valid' AND (stored_at, digest) < (:stored_at, :digest)
    ORDER BY stored_at DESC, digest DESC LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Verified:
    """A stored blob, and when its bytes were last compared (unix seconds; None = never)."""

    digest: Digest
    size_bytes: int
    xxh3: bytes | None
    stored_at: float
    verified_at: float | None

    @property
    def blob(self) -> BlobRecord:
        """As a record that says what its bytes should be."""
        at = self.stored_at
        return BlobRecord(self.digest, self.size_bytes, self.xxh3, False, at, at, is_trusted=False)


class IndexUpkeep:
    """The index as upkeep sees it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def list_shard(self, algorithm: str, shard: str) -> set[Digest]:
        """All digests whose hex begins with the two characters `shard`, being evicted or not."""
        after = f"{algorithm}:{shard}"  # shorter than any digest that begins so
        # "g" comes after every hexadecimal character.
        asked: Row = {"beyond": f"{after}g", "limit": _PAGE_ROWS}
        digests: set[Digest] = set()
        while True:
            rows = await self._connections.read(_LIST_SHARD, {"after": after, **asked})
            digests.update(Digest(digest) for (digest,) in rows)
            if len(rows) < _PAGE_ROWS:
                return digests
            (after,) = rows[-1]

    async def has_any(self, algorithm: str) -> bool:
        """Whether there is a row of an algorithm."""
        # ";" comes after ":".
        beyond = f"{algorithm};"
        return bool(await self._connections.read(_HAS_ANY, {"first": algorithm, "beyond": beyond}))

    async def adopt(self, blobs: Sequence[BlobRecord]) -> None:
        """Add blobs whose files were found, except where there is a row."""
        rows = [blob_row(blob) for blob in blobs]
        await self._connections.write(Statement(_ADOPT, rows), is_correction=True)

    async def forget(self, digests: Sequence[Digest]) -> None:
        """Drop the rows of blobs whose files are gone."""
        rows: list[Row] = [{"digest": digest} for digest in digests]
        await self._connections.write(Statement(_FORGET, rows), is_correction=True)

    async def record_verified(self, digest: Digest, xxh3: bytes, now: float) -> None:
        """Record that a blob's bytes are right; this run trusts them from now on."""
        row: Row = {"digest": digest, "xxh3": xxh3, "now": now, "run": self._connections.run}
        await self._connections.write(Statement(_RECORD_VERIFIED, [row]))

    async def recount(self) -> None:
        """Count all blobs and their bytes anew; the only call that takes long in a large index."""
        await self._connections.write(Statement(_RECOUNT, [{}]))

    async def page_newest(self, after: tuple[float, str], limit: int) -> list[Verified]:
        """List blobs stored before `after` (a time, and a digest where times are equal), newest
        first.
        """
        stored_at, digest = after
        asked: Row = {"stored_at": stored_at, "digest": digest, "limit": limit}
        rows = await self._connections.read(_PAGE, asked)
        return [Verified(Digest(name), *rest) for name, *rest in rows]
