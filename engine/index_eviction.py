"""What eviction asks of the index: candidates, marks, moves, and what all of it takes.

Invariant: as `engine/index.py`'s. Reads take a page, writes a batch, so neither the requests that
share the reading connection nor the commits that share the writing one wait for long; the cost of a
page does not depend on the size of the index.
A blob that is 'evicting' is invisible to all others until its row goes, or it is committed again.
"""

import json
from collections.abc import Callable, Iterable, Sequence

from engine.index_connections import Connections
from engine.index_rows import Row
from engine.index_writer import Probe, Statement
from engine.names import Digest
from engine.policies import Candidate, Move, Order, Place, Queue

_PAGE_BY_USE = """
    SELECT digest, (size_bytes + block_bytes - 1) / block_bytes * block_bytes,
        used_at, queue, queued_at, reuse_count
    FROM blob, usage
    WHERE state = 'valid' AND (used_at, digest) > (:at, :digest)
    ORDER BY used_at, digest LIMIT :limit
"""
_PAGE_BY_QUEUE = """
    SELECT digest, (size_bytes + block_bytes - 1) / block_bytes * block_bytes,
        used_at, queue, queued_at, reuse_count
    FROM blob, usage
    WHERE queue = :queue AND state = 'valid' AND (queued_at, digest) > (:at, :digest)
    ORDER BY queued_at, digest LIMIT :limit
"""
_PAGE_UNUSED = """
    SELECT digest, (size_bytes + block_bytes - 1) / block_bytes * block_bytes, used_at,
        (SELECT json_group_array(DISTINCT upstream)
        FROM link JOIN repository ON repository.id = repository_id
        WHERE link.digest = blob.digest)
    FROM blob, usage
    WHERE state = 'valid' AND used_at <= :before AND (used_at, digest) > (:at, :digest)
    ORDER BY used_at, digest LIMIT :limit
"""
_PAGE_USED_MANIFESTS = """
    SELECT used_at, digest,
        EXISTS (SELECT 1 FROM link WHERE link.digest = blob.digest AND kind = 'manifest')
    FROM blob WHERE (used_at, digest) > (:at, :digest) ORDER BY used_at, digest LIMIT :limit
"""
# SQLite's GLOB is the shell's, but for how a set is negated.
_FIND_PINNED = """
    SELECT DISTINCT digest FROM tag JOIN repository ON repository.id = tag.repository_id
    WHERE upstream || '/' || name || ':' || tag GLOB :glob
"""
_NEW_BYTES = """
    SELECT coalesce(sum((size_bytes + block_bytes - 1) / block_bytes * block_bytes), 0)
    FROM blob, usage WHERE queue = 'new'
"""
_LIST_LEAVING = "SELECT digest FROM blob WHERE state = 'evicting'"
_LIST_MARKED = """
    SELECT digest FROM blob
    WHERE state = 'evicting' AND digest IN (SELECT value FROM json_each(:digests))
"""

_MARK = """
    UPDATE blob SET state = 'evicting'
    WHERE digest = :digest AND state = 'valid' AND used_at <= :used_at
"""
_MOVE = """
    UPDATE blob SET queue = :queue, queued_at = :queued_at, reuse_count = :reuse_count
    WHERE digest = :digest
"""
_DROP = "DELETE FROM blob WHERE digest = :digest"
_REMEMBER = """
    INSERT INTO evicted (digest, evicted_at) VALUES (:digest, :now)
    ON CONFLICT (digest) DO UPDATE SET evicted_at = excluded.evicted_at
"""
# As many as there are blobs: who had to go so long ago was not needed.
_FORGET_OLDEST = """
    DELETE FROM evicted WHERE digest IN (
        SELECT digest FROM evicted ORDER BY evicted_at
        LIMIT max(0, (SELECT count(*) FROM evicted) - (SELECT blob_count FROM usage)))
"""
_SET_BLOCKS = """
    UPDATE usage SET block_bytes = :block_bytes, disk_bytes =
        (SELECT coalesce(sum((size_bytes + :block_bytes - 1) / :block_bytes * :block_bytes), 0)
        FROM blob)
    WHERE block_bytes <> :block_bytes
"""
_DISK_BYTES = "SELECT disk_bytes FROM usage"

_QUEUES = {Order.BY_NEW: Queue.NEW, Order.BY_MAIN: Queue.MAIN}
_QUEUES_BY_NAME = {queue.value: queue for queue in Queue}


class IndexEviction:
    """The index as eviction sees it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def count_bytes(
        self,
        block_bytes: int,
        tell: Callable[[int, int], None],
        restart: Callable[[], None] | None = None,
    ) -> None:
        """Have a `Probe` count what all blobs' files take, now and behind each write.

        It is told before the write returns to whoever asked for it.
        """
        self._connections.probes.append(Probe(_DISK_BYTES, tell, restart))
        await self.set_blocks(block_bytes)

    async def set_blocks(self, block_bytes: int) -> None:
        """Say to how many bytes the file system rounds up; a new index presumes 4096."""
        await self._connections.write(Statement(_SET_BLOCKS, [{"block_bytes": block_bytes}]))

    async def page(self, order: Order, after: Place, limit: int) -> list[Candidate]:
        """List up to `limit` valid blobs behind a place of an order."""
        row = _page(after, limit)
        queue = _QUEUES.get(order)
        if queue is None:
            rows = await self._connections.read(_PAGE_BY_USE, row)
        else:
            rows = await self._connections.read(_PAGE_BY_QUEUE, {**row, "queue": queue.value})
        return [
            Candidate(Digest(digest), disk_bytes, used_at, _QUEUES_BY_NAME[name], *rest)
            for digest, disk_bytes, used_at, name, *rest in rows
        ]

    async def page_unused(
        self, before: float, after: Place, limit: int
    ) -> list[tuple[Candidate, list[str]]]:
        """List blobs last used at `before` or earlier, behind a place by use, with the upstreams
        that link them.
        """
        rows = await self._connections.read(_PAGE_UNUSED, {**_page(after, limit), "before": before})
        return [
            (Candidate(Digest(digest), disk_bytes, used_at), json.loads(upstreams))
            for digest, disk_bytes, used_at, upstreams in rows
        ]

    async def page_used_manifests(self, after: Place, limit: int) -> tuple[Place, list[Digest]]:
        """List the manifests among the next `limit` blobs by use, and the place of the last blob.

        The place is `after` again where there are no more.
        """
        rows = await self._connections.read(_PAGE_USED_MANIFESTS, _page(after, limit))
        last: Place = rows[-1][:2] if rows else after
        return last, [Digest(digest) for _, digest, is_manifest in rows if is_manifest]

    async def find_pinned(self, glob: str) -> list[Digest]:
        """List what the tags mean whose `upstream/repository:tag` matches `glob`."""
        row: Row = {"glob": glob.replace("[!", "[^")}
        return [Digest(digest) for (digest,) in await self._connections.read(_FIND_PINNED, row)]

    async def sum_new_bytes(self) -> int:
        """Sum up what the blobs in the queue NEW take."""
        ((new_bytes,),) = await self._connections.read(_NEW_BYTES, {})
        return int(new_bytes)

    async def list_leaving(self) -> list[Digest]:
        """List what an eviction that was broken off left to be finished."""
        return [Digest(digest) for (digest,) in await self._connections.read(_LIST_LEAVING, {})]

    async def mark(self, used_at: dict[Digest, float]) -> set[Digest]:
        """Make blobs invisible that were not used after the time given; return which are."""
        rows: list[Row] = [{"digest": digest, "used_at": at} for digest, at in used_at.items()]
        await self._connections.write(Statement(_MARK, rows))
        marked = await self._connections.read(_LIST_MARKED, {"digests": json.dumps([*used_at])})
        return {Digest(digest) for (digest,) in marked}

    async def move(self, moves: Iterable[Move]) -> None:
        """Carry out a policy's moves; what is gone is passed over."""
        rows: list[Row] = [
            {
                "digest": move.digest,
                "queue": move.queue.value,
                "queued_at": move.queued_at,
                "reuse_count": move.reuse_count,
            }
            for move in moves
        ]
        await self._connections.write(Statement(_MOVE, rows))

    async def drop(
        self, digests: Iterable[Digest], remembered: Sequence[Digest], now: float
    ) -> None:
        """Drop the rows of blobs whose files are gone; remember some of them as evicted."""
        await self._connections.write(
            Statement(_DROP, [{"digest": digest} for digest in digests]),
            Statement(_REMEMBER, [{"digest": digest, "now": now} for digest in remembered]),
        )

    async def forget_oldest(self) -> None:
        """Keep the memory of what was evicted within its bound."""
        await self._connections.write(Statement(_FORGET_OLDEST, [{}]))


def _page(after: Place, limit: int) -> Row:
    at, digest = after
    return {"at": at, "digest": digest, "limit": limit}
