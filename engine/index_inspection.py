"""What tools ask of the index: what is in it, piece by piece.

Invariant: as `engine/index_readonly.py`'s. Whatever may be long is read by the shard: the blobs
whose hex begins with the same two characters, some thousands in an index of a million.
"""

import sqlite3
from collections.abc import AsyncIterator

from engine.index_connections import Connections
from engine.index_rows import Row, location_row
from engine.index_views import (
    BlobFilter,
    BlobView,
    Books,
    Checksum,
    LinkView,
    RepositoryView,
    Share,
    TagView,
)
from engine.names import DIGEST_HEX_CHARS, Digest, Location, Repository
from engine.reconcile import SHARDS

_SHARD = """
    SELECT digest, size_bytes, (SELECT max(kind) FROM link WHERE link.digest = blob.digest),
        state, is_public, stored_at, used_at, use_count, verified_at,
        (SELECT count(*) FROM link WHERE link.digest = blob.digest)
    FROM blob
    WHERE digest >= :first AND digest < :beyond
        AND (:larger_than_bytes IS NULL OR size_bytes > :larger_than_bytes)
        AND (:stored_before IS NULL OR stored_at < :stored_before)
        AND (:used_before IS NULL OR used_at < :used_before)
        AND (:upstream IS NULL OR EXISTS (
            SELECT 1 FROM link JOIN repository ON repository.id = link.repository_id
            WHERE link.digest = blob.digest
                AND upstream = :upstream AND name = ifnull(:repository, name)))
    ORDER BY digest
"""
_BLOB = """
    SELECT digest, size_bytes, (SELECT max(kind) FROM link WHERE link.digest = blob.digest),
        state, is_public, stored_at, used_at, use_count, verified_at,
        (SELECT count(*) FROM link WHERE link.digest = blob.digest)
    FROM blob WHERE digest = :digest
"""
_REPOSITORIES = "SELECT upstream, name FROM repository ORDER BY upstream, name"
_REPOSITORY = """
    SELECT (SELECT count(*) FROM tag WHERE tag.repository_id = repository.id),
        count(link.digest), count(blob.digest), coalesce(sum(blob.size_bytes), 0),
        coalesce(sum(iif(
            (SELECT count(*) FROM link AS other WHERE other.digest = blob.digest) = 1,
            blob.size_bytes, 0)), 0),
        max(blob.used_at)
    FROM repository
    LEFT JOIN link ON link.repository_id = repository.id
    LEFT JOIN blob ON blob.digest = link.digest AND blob.state = 'valid'
    WHERE upstream = :upstream AND name = :repository
"""
_TAGS = """
    SELECT upstream, name, tag, tag.digest, media_type, checked_at, changed_at,
        blob.digest IS NOT NULL
    FROM tag JOIN repository ON repository.id = tag.repository_id
    LEFT JOIN blob ON blob.digest = tag.digest AND blob.state = 'valid'
    WHERE upstream = :upstream AND name = :repository ORDER BY tag
"""
_CHECKSUMS = """
    SELECT digest, size_bytes, xxh3, stored_at FROM blob
    WHERE digest >= :first AND digest < :beyond AND state = 'valid'
"""
_LINKED = """
    SELECT digest FROM link JOIN repository ON repository.id = link.repository_id
    WHERE upstream = :upstream AND name = :repository
"""
_LINKS = """
    SELECT upstream, name, kind, state, media_type, size_bytes, linked_at
    FROM link JOIN repository ON repository.id = link.repository_id
    WHERE digest = :digest ORDER BY upstream, name
"""
_MEANING = """
    SELECT upstream, name, tag, tag.digest, media_type, checked_at, changed_at,
        EXISTS (SELECT 1 FROM blob WHERE blob.digest = tag.digest AND state = 'valid')
    FROM tag JOIN repository ON repository.id = tag.repository_id
    WHERE tag.digest = :digest ORDER BY upstream, name, tag
"""
# Of what is stored, by when it was last used: one walk of `blob_by_use` for each span.
_USED_BETWEEN = """
    SELECT count(*), coalesce(sum(size_bytes), 0) FROM blob
    WHERE used_at >= :since AND used_at < :until
"""
_BOOKS = """
    SELECT blob_count, disk_bytes, (SELECT count(*) FROM blob),
        (SELECT coalesce(sum((size_bytes + block_bytes - 1) / block_bytes * block_bytes), 0)
        FROM blob)
    FROM usage
"""
_DISK_BYTES = "SELECT disk_bytes FROM usage"


class IndexInspection:
    """The index as tools see it. All methods raise `StorageError`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def iter_blobs(self, wanted: BlobFilter) -> AsyncIterator[BlobView]:
        """All blobs that are wanted, by digest."""
        asked: Row = {
            "larger_than_bytes": wanted.larger_than_bytes,
            "stored_before": wanted.stored_before,
            "used_before": wanted.used_before,
            "upstream": wanted.upstream,
            "repository": wanted.repository,
        }
        for shard in all_shards():
            for row in await self._connections.read(_SHARD, {**asked, **shard}):
                yield _blob_view(row)

    async def list_shard(self, algorithm: str, shard: str) -> list[BlobView]:
        """The blobs whose hex begins with the two characters `shard`."""
        everything: Row = dict.fromkeys(
            ("larger_than_bytes", "stored_before", "used_before", "upstream", "repository")
        )
        asked = {**everything, **_bounds(algorithm, shard)}
        return [_blob_view(row) for row in await self._connections.read(_SHARD, asked)]

    async def list_checksums(self, algorithm: str, shard: str) -> list[Checksum]:
        """What the bytes of a shard's blobs should be."""
        rows = await self._connections.read(_CHECKSUMS, _bounds(algorithm, shard))
        return [Checksum(Digest(digest), *rest) for digest, *rest in rows]

    async def list_linked(self, location: Location) -> list[Digest]:
        """All digests that a repository links, stored or not."""
        rows = await self._connections.read(_LINKED, location_row(location))
        return [Digest(digest) for (digest,) in rows]

    async def find_blob(self, digest: Digest) -> BlobView | None:
        """Find a blob, being evicted or not."""
        for row in await self._connections.read(_BLOB, {"digest": digest}):
            return _blob_view(row)
        return None

    async def list_locations(self) -> list[Location]:
        """All repositories, by upstream and name."""
        rows = await self._connections.read(_REPOSITORIES, {})
        return [Location(upstream, Repository(name)) for upstream, name in rows]

    async def describe_repository(self, location: Location) -> RepositoryView:
        """Sum one repository up."""
        (row,) = await self._connections.read(_REPOSITORY, location_row(location))
        return RepositoryView(location.upstream, location.repository, *row)

    async def list_tags(self, location: Location) -> list[TagView]:
        """All tags of a repository."""
        rows = await self._connections.read(_TAGS, location_row(location))
        return [_tag_view(row) for row in rows]

    async def list_meaning(self, digest: Digest) -> list[TagView]:
        """All tags that mean a digest."""
        rows = await self._connections.read(_MEANING, {"digest": digest})
        return [_tag_view(row) for row in rows]

    async def list_links(self, digest: Digest) -> list[LinkView]:
        """All repositories that know of a digest."""
        return [LinkView(*row) for row in await self._connections.read(_LINKS, {"digest": digest})]

    async def share_used(self, since: float, until: float) -> Share:
        """What was last used in a span of time, its end excluded."""
        asked: Row = {"since": since, "until": until}
        ((count, size_bytes),) = await self._connections.read(_USED_BETWEEN, asked)
        return Share(count, size_bytes)

    async def count_disk_bytes(self) -> int:
        """What all blobs' files take, as the index has counted."""
        ((disk_bytes,),) = await self._connections.read(_DISK_BYTES, {})
        return int(disk_bytes)

    async def read_books(self) -> Books:
        """Compare what the index has counted with what is in it."""
        (row,) = await self._connections.read(_BOOKS, {})
        return Books(*row)


def all_shards() -> list[Row]:
    """The bounds of every shard, as parameters `first` and `beyond`."""
    return [_bounds(algorithm, shard) for algorithm in DIGEST_HEX_CHARS for shard in SHARDS]


def _bounds(algorithm: str, shard: str) -> Row:
    # "g" comes after every hexadecimal character.
    return {"first": f"{algorithm}:{shard}", "beyond": f"{algorithm}:{shard}g"}


def _blob_view(row: sqlite3.Row) -> BlobView:
    digest, size_bytes, kind, state, is_public, *rest = row
    return BlobView(Digest(digest), size_bytes, kind or "", state, bool(is_public), *rest)


def _tag_view(row: sqlite3.Row) -> TagView:
    upstream, name, tag, digest, media_type, checked_at, changed_at, is_stored = row
    return TagView(
        upstream,
        name,
        tag,
        Digest(digest),
        media_type,
        checked_at,
        changed_at,
        is_stored=bool(is_stored),
    )
