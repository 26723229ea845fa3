"""The index: which blobs are on disk, who may be served them, and what tags were last seen to mean.

Invariant: a row never promises what is not safe on disk: the caller syncs a file before it commits
the row, and forgets the row before it removes the file. Readers see only valid blobs. Facts about
upstream only grow: a held link never falls back to named, and outlives its blob.
All SQL is in engine/index*.py and engine/migrate.py. One connection writes, one reads
(engine/index_connections.py); each read is one statement, so it sees one state. Every method raises
`StorageError` and may be cancelled: a read is dropped, a write is still carried out.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from engine.descriptor import Descriptor
from engine.hot import Kind
from engine.index_connections import Connections, Replacement
from engine.index_records import BlobRecord, LinkRecord, LinkState, TagRecord, Usage
from engine.index_rows import (
    Row,
    blob_record,
    blob_row,
    link_record,
    link_row,
    location_row,
    named_link,
    tag_row,
)
from engine.index_writer import Statement
from engine.names import Digest, Location, Repository, Tag

_FIND = """
    SELECT link.kind, link.state, link.media_type, link.size_bytes,
        blob.size_bytes, blob.xxh3, blob.is_public, blob.verified_run IS :run,
        blob.stored_at, blob.used_at, blob.use_count
    FROM (SELECT 1)
    LEFT JOIN link ON link.digest = :digest AND link.repository_id =
        (SELECT id FROM repository WHERE upstream = :upstream AND name = :repository)
    LEFT JOIN blob ON blob.digest = :digest AND blob.state = 'valid'
"""
_FIND_TAG = """
    SELECT digest, media_type, size_bytes, etag, checked_at, changed_at
    FROM tag JOIN repository ON repository.id = tag.repository_id
    WHERE upstream = :upstream AND name = :repository AND tag = :tag
"""
_LIST_TAGS = """
    SELECT tag FROM tag JOIN repository ON repository.id = tag.repository_id
    WHERE upstream = :upstream AND name = :repository ORDER BY tag
"""
_LIST_REPOSITORIES = "SELECT upstream, name FROM repository ORDER BY upstream || '/' || name"
# Blobs being evicted count: their bytes are on disk.
_USAGE = "SELECT count(*), coalesce(sum(size_bytes), 0) FROM blob"

_ADD_REPOSITORY = """
    INSERT INTO repository (upstream, name) VALUES (:upstream, :repository) ON CONFLICT DO NOTHING
"""
# A blob that is committed again keeps how often it was used, and stays public.
_PUT_BLOB = """
    INSERT INTO blob
        (digest, size_bytes, xxh3, is_public, state, stored_at, used_at, use_count,
        verified_at, verified_run, queued_at, queue)
    VALUES
        (:digest, :size_bytes, :xxh3, :is_public, 'valid', :stored_at, :used_at, :use_count,
        :stored_at, :run, :stored_at,
        iif(EXISTS (SELECT 1 FROM evicted WHERE digest = :digest), 'main', 'new'))
    ON CONFLICT (digest) DO UPDATE SET
        size_bytes = excluded.size_bytes,
        xxh3 = coalesce(excluded.xxh3, xxh3),
        is_public = max(is_public, excluded.is_public),
        state = 'valid',
        stored_at = excluded.stored_at,
        used_at = max(used_at, excluded.used_at),
        verified_at = excluded.verified_at,
        verified_run = excluded.verified_run
"""
# What is held is not changed by what a manifest merely says. Otherwise the later word counts, but
# a manifest stays one, with its type.
_PUT_LINK = """
    INSERT INTO link (repository_id, digest, kind, state, media_type, size_bytes, linked_at)
    SELECT id, :digest, :kind, :state, :media_type, :size_bytes, unixepoch()
    FROM repository WHERE upstream = :upstream AND name = :repository
    ON CONFLICT (repository_id, digest) DO UPDATE SET
        kind = iif(link.kind = 'manifest', link.kind, excluded.kind),
        state = excluded.state,
        media_type = iif(excluded.media_type = '', link.media_type, excluded.media_type),
        size_bytes = coalesce(excluded.size_bytes, link.size_bytes),
        linked_at = excluded.linked_at
    WHERE link.state = 'named' OR excluded.state = 'held'
"""
# Upstream's later word counts: a slow answer may come in after one that was asked for later. What
# was recorded by a clock that has been set back since is no later word.
_PUT_TAG = """
    INSERT INTO tag
        (repository_id, tag, digest, media_type, size_bytes, etag, checked_at, changed_at)
    SELECT id, :tag, :digest, :media_type, :size_bytes, :etag, :checked_at, :changed_at
    FROM repository WHERE upstream = :upstream AND name = :repository
    ON CONFLICT (repository_id, tag) DO UPDATE SET
        digest = excluded.digest,
        media_type = excluded.media_type,
        size_bytes = excluded.size_bytes,
        etag = excluded.etag,
        checked_at = excluded.checked_at,
        changed_at = iif(digest = excluded.digest, changed_at, excluded.changed_at)
    WHERE excluded.checked_at >= checked_at OR checked_at > unixepoch() + 1
"""
_DROP_TAG = """
    DELETE FROM tag WHERE tag = :tag AND repository_id =
        (SELECT id FROM repository WHERE upstream = :upstream AND name = :repository)
    AND (checked_at <= :asked_at OR checked_at > unixepoch() + 1)
"""
_FORGET_BLOB = "DELETE FROM blob WHERE digest = :digest"
# Uses within seconds of its storing are the pull that stored it.
_RECORD_USE = """
    UPDATE blob SET used_at = max(used_at, :used_at), use_count = use_count + 1,
        reuse_count = min(3, reuse_count + (:used_at > stored_at + 10))
    WHERE digest = :digest
"""


class Index:
    """The open index. Whoever opened it closes it."""

    def __init__(self, connections: Connections) -> None:
        # The door for the other modules that hold SQL.
        self.connections = connections

    @classmethod
    async def open(cls, path: Path, replacement: Replacement | None = None) -> Self:
        """Open the index at `path`, creating or migrating it as needed.

        Raises `IndexTooNew` for a newer program's, `StorageError` for what is not an index; with a
        `replacement` the latter is replaced, now and whenever damage is found later.
        """
        connections = Connections(path, replacement)
        await connections.open()
        return cls(connections)

    async def aclose(self) -> None:
        """Carry out the writes that wait, then close. Idempotent."""
        await self.connections.aclose()

    async def find(
        self, location: Location, digest: Digest
    ) -> tuple[LinkRecord | None, BlobRecord | None]:
        """Find what `location` knows of `digest`, and the blob itself if it is here and valid.

        A blob without a link is there, but not known to be `location`'s to have.
        """
        asked = {**location_row(location), "digest": digest, "run": self.connections.run}
        (row,) = await self.connections.read(_FIND, asked)
        return link_record(digest, *row[:4]), blob_record(digest, *row[4:])

    async def find_tag(self, location: Location, tag: Tag) -> TagRecord | None:
        """Find what upstream last said of a tag."""
        for digest, *rest in await self.connections.read(
            _FIND_TAG, {**location_row(location), "tag": tag}
        ):
            return TagRecord(tag, Digest(digest), *rest)
        return None

    async def list_tags(self, location: Location) -> list[str]:
        """All tags recorded for `location`, in lexical order."""
        return [tag for (tag,) in await self.connections.read(_LIST_TAGS, location_row(location))]

    async def list_repositories(self) -> list[Location]:
        """All repositories ever recorded, in lexical order of `upstream/repository`."""
        rows = await self.connections.read(_LIST_REPOSITORIES, {})
        return [Location(upstream, Repository(name)) for upstream, name in rows]

    async def usage(self) -> Usage:
        """Count the blobs and their bytes."""
        ((blob_count, stored_bytes),) = await self.connections.read(_USAGE, {})
        return Usage(blob_count, stored_bytes)

    async def commit_blob(self, location: Location, blob: BlobRecord, link: LinkRecord) -> None:
        """Record a blob whose file is safe on disk, and that it was served to `location`."""
        await self._write_for(location, self._put_blob(blob), _put_links(location, [link]))

    async def commit_manifest(
        self,
        location: Location,
        blob: BlobRecord,
        link: LinkRecord,
        named: Sequence[Descriptor],
        tag: TagRecord | None,
    ) -> None:
        """Record a manifest as `commit_blob` does, with what it names and the tag it came by."""
        links = [link, *map(named_link, named)]
        statements = [self._put_blob(blob), _put_links(location, links)]
        if tag is not None:
            statements.append(_put_tag(location, tag))
        await self._write_for(location, *statements)

    async def hold(
        self,
        location: Location,
        digest: Digest,
        kind: Kind,
        media_type: str,
        size_bytes: int | None,
    ) -> None:
        """Record that upstream serves `digest` to `location`. The blob need not be here."""
        link = LinkRecord(digest, kind, LinkState.HELD, media_type, size_bytes)
        await self._write_for(location, _put_links(location, [link]))

    async def record_tag(self, location: Location, record: TagRecord) -> None:
        """Record what upstream said of a tag at `checked_at`, unless a later word is known.

        Where it is what upstream said before, the old `changed_at` is kept.
        """
        await self._write_for(location, _put_tag(location, record))

    async def drop_tag(self, location: Location, tag: Tag, asked_at: float) -> None:
        """Forget a tag that upstream, asked at `asked_at`, said is gone."""
        row: Row = {**location_row(location), "tag": tag, "asked_at": asked_at}
        await self.connections.write(Statement(_DROP_TAG, [row]))

    async def forget_blob(self, digest: Digest) -> None:
        """Drop a blob's row; only then may its file go. Links stay: they are facts of upstream."""
        await self.connections.write(Statement(_FORGET_BLOB, [{"digest": digest}]))

    async def record_uses(self, used_at: Mapping[Digest, float]) -> None:
        """Record when blobs were last used; those that are gone are passed over.

        `use_count` grows by one for each: it counts the batches a blob is in, so that a burst of
        pulls does not make a blob look like one that is in daily use.
        """
        rows: list[Row] = [{"digest": digest, "used_at": at} for digest, at in used_at.items()]
        await self.connections.write(Statement(_RECORD_USE, rows))

    def _put_blob(self, blob: BlobRecord) -> Statement:
        return Statement(_PUT_BLOB, [{**blob_row(blob), "run": self.connections.run}])

    async def _write_for(self, location: Location, *statements: Statement) -> None:
        await self.connections.write(
            Statement(_ADD_REPOSITORY, [location_row(location)]), *statements
        )


def _put_links(location: Location, links: Iterable[LinkRecord]) -> Statement:
    return Statement(_PUT_LINK, [link_row(location, link) for link in links])


def _put_tag(location: Location, record: TagRecord) -> Statement:
    return Statement(_PUT_TAG, [tag_row(location, record)])
