"""What purging asks of the index, and its one transaction.

Invariant: as `engine/index.py`'s. A purge is there whole or not at all: tags, links and marks are
one transaction, which looks once more whether others have come to link a blob since it was planned.
What it marks is invisible from then on; `engine/removal.py` takes the files away, now or, after a
crash, at the next start.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence

from engine.index_connections import Connections
from engine.index_rows import Row, location_row
from engine.index_writer import Statement
from engine.names import Digest, Location, Repository
from engine.purge import Linked, PurgePlan
from engine.subject import DigestSubject, RepositorySubject, Subject, TagSubject, UpstreamSubject

PAGE = 1000

# The scope: all of an upstream, or where `:within` is not NULL that repository of it. A digest is
# shared where a repository outside of the scope links it.
_PAGE_LINKED = """
    SELECT link.digest, blob.size_bytes, EXISTS (
        SELECT 1 FROM link AS other JOIN repository ON repository.id = other.repository_id
        WHERE other.digest = link.digest
            AND NOT (upstream = :upstream AND name = ifnull(:within, name)))
    FROM link LEFT JOIN blob ON blob.digest = link.digest AND blob.state = 'valid'
    WHERE link.digest > :after AND repository_id =
        (SELECT id FROM repository WHERE upstream = :upstream AND name = :repository)
    ORDER BY link.digest LIMIT :limit
"""
_FIND_LINKED = """
    SELECT value, blob.size_bytes, EXISTS (
        SELECT 1 FROM link JOIN repository ON repository.id = link.repository_id
        WHERE link.digest = value
            AND NOT (upstream = :upstream AND name = ifnull(:within, name)))
    FROM json_each(:digests) LEFT JOIN blob ON blob.digest = value AND blob.state = 'valid'
"""
_LIST_MANIFESTS = """
    SELECT link.digest FROM link JOIN blob ON blob.digest = link.digest AND blob.state = 'valid'
    WHERE kind = 'manifest' AND repository_id =
        (SELECT id FROM repository WHERE upstream = :upstream AND name = :repository)
"""
_LIST_TAGS = """
    SELECT tag, digest FROM tag JOIN repository ON repository.id = tag.repository_id
    WHERE upstream = :upstream AND name = :repository
"""
_LIST_REPOSITORIES = "SELECT name FROM repository WHERE upstream = :upstream ORDER BY name"

_DROP_TAG = """
    DELETE FROM tag WHERE tag = :tag AND repository_id =
        (SELECT id FROM repository WHERE upstream = :upstream AND name = :within)
"""
_DROP_LINK = """
    DELETE FROM link WHERE digest = :digest AND repository_id =
        (SELECT id FROM repository WHERE upstream = :upstream AND name = :within)
"""
_DROP_TAGS = """
    DELETE FROM tag WHERE repository_id IN
        (SELECT id FROM repository WHERE upstream = :upstream AND name = ifnull(:within, name))
"""
_DROP_LINKS = """
    DELETE FROM link WHERE repository_id IN
        (SELECT id FROM repository WHERE upstream = :upstream AND name = ifnull(:within, name))
"""
_DROP_REPOSITORIES = """
    DELETE FROM repository WHERE upstream = :upstream AND name = ifnull(:within, name)
"""
_MARK = "UPDATE blob SET state = 'evicting' WHERE digest = :digest AND state = 'valid'"
_MARK_UNSHARED = """
    UPDATE blob SET state = 'evicting' WHERE digest = :digest AND state = 'valid' AND NOT EXISTS (
        SELECT 1 FROM link JOIN repository ON repository.id = link.repository_id
        WHERE link.digest = :digest
            AND NOT (upstream = :upstream AND name = ifnull(:within, name)))
"""


class IndexPurge:
    """The index as a purge sees it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def list_repositories(self, upstream: str) -> list[Location]:
        """All repositories of an upstream."""
        rows = await self._connections.read(_LIST_REPOSITORIES, {"upstream": upstream})
        return [Location(upstream, Repository(name)) for (name,) in rows]

    async def list_tags(self, location: Location) -> dict[str, Digest]:
        """All tags recorded for a repository, and what they mean."""
        rows = await self._connections.read(_LIST_TAGS, location_row(location))
        return {tag: Digest(digest) for tag, digest in rows}

    async def list_manifests(self, location: Location) -> list[Digest]:
        """The manifests of a repository that are stored."""
        rows = await self._connections.read(_LIST_MANIFESTS, location_row(location))
        return [Digest(digest) for (digest,) in rows]

    async def list_linked(self, location: Location, *, within: str | None) -> list[Linked]:
        """All digests that a repository links.

        `within`: the repository's name, or None where all of its upstream is purged with it.
        """
        found: list[Linked] = []
        after = ""
        while True:
            asked = {**location_row(location), "within": within, "after": after, "limit": PAGE}
            page = _linked(await self._connections.read(_PAGE_LINKED, asked))
            found += page
            if len(page) < PAGE:
                return found
            after = page[-1].digest

    async def find_linked(
        self, digests: Collection[Digest], location: Location | None
    ) -> list[Linked]:
        """Look digests up, shared or not by others than `location`."""
        asked = {"digests": json.dumps(sorted(digests)), **_scope(location)}
        return _linked(await self._connections.read(_FIND_LINKED, asked))

    async def carry_out(self, plan: PurgePlan) -> None:
        """Drop what is known of the plan's subject, and make its blobs invisible."""
        digests = [blob.digest for blob in plan.blobs]
        await self._connections.write(*_statements(plan.subject, digests))


def _statements(subject: Subject, digests: Sequence[Digest]) -> list[Statement]:
    """Make the transaction: what drops links comes before the marks, which see what is left."""
    match subject:
        case TagSubject(location, tag):
            scope = _scope(location)
            drop = Statement(_DROP_TAG, [{**scope, "tag": tag}])
            return [drop, _mark_unshared(scope, digests)]
        case RepositorySubject(location):
            return _drop_whole(_scope(location), digests)
        case UpstreamSubject(upstream):
            return _drop_whole({"upstream": upstream, "within": None}, digests)
        case DigestSubject(digest, None):
            return [Statement(_MARK, [{"digest": digest}])]
        case DigestSubject(digest, location):
            scope = _scope(location)
            drop = Statement(_DROP_LINK, [{**scope, "digest": digest}])
            return [drop, _mark_unshared(scope, digests)]


def _drop_whole(scope: Row, digests: Sequence[Digest]) -> list[Statement]:
    return [
        Statement(_DROP_TAGS, [scope]),
        Statement(_DROP_LINKS, [scope]),
        _mark_unshared(scope, digests),
        Statement(_DROP_REPOSITORIES, [scope]),
    ]


def _mark_unshared(scope: Row, digests: Sequence[Digest]) -> Statement:
    return Statement(_MARK_UNSHARED, [{**scope, "digest": digest} for digest in digests])


def _scope(location: Location | None) -> Row:
    if location is None:
        return {"upstream": None, "within": None}
    return {"upstream": location.upstream, "within": location.repository}


def _linked(rows: Sequence[sqlite3.Row]) -> list[Linked]:
    return [Linked(Digest(digest), size, bool(is_shared)) for digest, size, is_shared in rows]
