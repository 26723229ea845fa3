"""What tools ask of all of the index at once: sums by repository and by upstream.

Invariant: as `engine/index_inspection.py`'s: by the shard. Links are walked in the order of their
digests, which is that of the blobs: a walk by repository would look a blob up wherever it lies,
which takes ten times as long for a million. `advance` is called for each shard of each sum.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from engine.index_connections import Connections
from engine.index_inspection import all_shards
from engine.index_views import RepositoryView, Share

# Uses within seconds of its storing are the pull that stored it.
_SUMS = """
    SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(sum(state = 'evicting'), 0),
        coalesce(sum(used_at > stored_at + 10), 0)
    FROM blob WHERE digest >= :first AND digest < :beyond
"""
_REPOSITORIES = """
    SELECT id, upstream, name,
        (SELECT count(*) FROM tag WHERE tag.repository_id = repository.id)
    FROM repository ORDER BY upstream, name
"""
_BY_REPOSITORY = """
    SELECT repository_id, count(*), count(blob.digest), coalesce(sum(blob.size_bytes), 0),
        coalesce(max(used_at), 0)
    FROM link INDEXED BY link_by_digest
    LEFT JOIN blob ON blob.digest = link.digest AND blob.state = 'valid'
    WHERE link.digest >= :first AND link.digest < :beyond GROUP BY repository_id
"""
# `link` has a row for each repository, so a digest with one row is one repository's own.
_OWN = """
    SELECT repository_id, sum(size_bytes) FROM (
        SELECT min(repository_id) AS repository_id, blob.size_bytes AS size_bytes
        FROM link INDEXED BY link_by_digest
        JOIN blob ON blob.digest = link.digest AND blob.state = 'valid'
        WHERE link.digest >= :first AND link.digest < :beyond
        GROUP BY link.digest HAVING count(*) = 1)
    GROUP BY repository_id
"""
_BY_UPSTREAM = """
    SELECT upstream, count(*), sum(size_bytes) FROM (
        SELECT upstream, blob.size_bytes AS size_bytes
        FROM link INDEXED BY link_by_digest JOIN repository ON repository.id = repository_id
        JOIN blob ON blob.digest = link.digest AND blob.state = 'valid'
        WHERE link.digest >= :first AND link.digest < :beyond
        GROUP BY link.digest, upstream)
    GROUP BY upstream
"""


@dataclass(frozen=True, slots=True)
class Sums:
    """What all blobs come to. `reused_count`: of those that were used after their pull."""

    total: Share
    leaving_count: int
    reused_count: int


class IndexTotals:
    """All methods raise `StorageError`."""

    SHARD_COUNT = len(all_shards())

    def __init__(
        self, connections: Connections, advance: Callable[[], None] = lambda: None
    ) -> None:
        self._connections = connections
        self._advance = advance

    async def sum_up(self) -> Sums:
        """Count all blobs."""
        count, size_bytes, leaving_count, reused_count = map(
            sum, zip(*await self._walk(_SUMS), strict=True)
        )
        return Sums(Share(count, size_bytes), leaving_count, reused_count)

    async def share_upstreams(self) -> dict[str, Share]:
        """What each upstream's repositories have; what several have counts for each."""
        shares: dict[str, Share] = {}
        for upstream, blob_count, size_bytes in await self._walk(_BY_UPSTREAM):
            share = shares.get(upstream, Share(0, 0))
            shares[upstream] = Share(share.blob_count + blob_count, share.stored_bytes + size_bytes)
        return dict(sorted(shares.items()))

    async def describe_repositories(self, *, is_own_wanted: bool) -> list[RepositoryView]:
        """Sum all repositories up, by upstream and name; `own_bytes` takes another walk, else 0."""
        links: Counter[int] = Counter()
        blobs: Counter[int] = Counter()
        sizes_bytes: Counter[int] = Counter()
        own_bytes: Counter[int] = Counter()
        used_at: dict[int, float] = {}
        for number, link_count, blob_count, size_bytes, at in await self._walk(_BY_REPOSITORY):
            links[number] += link_count
            blobs[number] += blob_count
            sizes_bytes[number] += size_bytes
            used_at[number] = max(at, used_at.get(number, 0.0))
        if is_own_wanted:
            for number, size_bytes in await self._walk(_OWN):
                own_bytes[number] += size_bytes
        return [
            RepositoryView(
                upstream,
                name,
                tag_count,
                links[number],
                blobs[number],
                sizes_bytes[number],
                own_bytes[number],
                used_at.get(number) or None,
            )
            for number, upstream, name, tag_count in await self._connections.read(_REPOSITORIES, {})
        ]

    async def _walk(self, sql: str) -> list[sqlite3.Row]:
        rows: list[sqlite3.Row] = []
        for shard in all_shards():
            rows += await self._connections.read(sql, shard)
            self._advance()
        return rows
