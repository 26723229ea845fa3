"""What the index promises to those who ask it, on a real SQLite file."""

import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import engine.index
from engine.descriptor import Descriptor
from engine.errors import IndexTooNew, StorageError
from engine.hot import Kind
from engine.index import Index
from engine.index_records import LinkRecord, LinkState, Usage
from engine.migrate import load_migrations
from engine.names import Location, Repository, Tag
from tests.component.index_examples import (
    ELSEWHERE,
    HERE,
    MANIFEST_TYPE,
    blob_of,
    digest_of,
    link_of,
    manifest_link_of,
    tag_of,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite3"


@pytest.fixture
async def index(path: Path) -> AsyncIterator[Index]:
    opened = await Index.open(path)
    yield opened
    await opened.aclose()


def execute(path: Path, sql: str, *parameters: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql, parameters).fetchall()


def dump(path: Path) -> bytes:
    return path.read_bytes()


def write_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def test_knows_nothing_of_what_was_never_recorded(index: Index) -> None:
    assert await index.find(HERE, digest_of(1)) == (None, None)
    assert await index.find_tag(HERE, Tag("latest")) is None
    assert await index.list_tags(HERE) == []
    assert await index.list_repositories() == []
    assert await index.usage() == Usage(0, 0)


async def test_gives_back_a_blob_as_it_was_committed(index: Index) -> None:
    blob = blob_of(1, is_public=True)
    await index.commit_blob(HERE, blob, link_of(1))
    assert await index.find(HERE, blob.digest) == (link_of(1), blob)


async def test_gives_back_a_blob_whose_xxh3_is_not_known(index: Index) -> None:
    blob = replace(blob_of(1), xxh3=None)
    await index.commit_blob(HERE, blob, link_of(1))
    assert await index.find(HERE, blob.digest) == (link_of(1), blob)


async def test_shows_a_blob_to_all_but_its_link_to_its_repository_only(index: Index) -> None:
    await index.commit_blob(HERE, blob_of(1), link_of(1))
    assert await index.find(ELSEWHERE, digest_of(1)) == (None, blob_of(1))


async def test_keeps_everything_when_closed_and_opened(path: Path) -> None:
    index = await Index.open(path)
    await index.commit_manifest(HERE, blob_of(1), manifest_link_of(1), [], tag_of(1))
    await index.aclose()
    index = await Index.open(path)
    try:
        stored = replace(blob_of(1), is_trusted=False)
        assert await index.find(HERE, digest_of(1)) == (manifest_link_of(1), stored)
        assert await index.find_tag(HERE, Tag("1.35")) == tag_of(1)
    finally:
        await index.aclose()


async def test_leaves_one_file_when_closed(path: Path) -> None:
    index = await Index.open(path)
    await index.commit_blob(HERE, blob_of(1), link_of(1))
    await index.aclose()
    assert list(path.parent.iterdir()) == [path]


async def test_links_what_a_manifest_names(index: Index) -> None:
    layer = Descriptor(digest_of(2), 12, "application/x-layer", is_manifest=False)
    child = Descriptor(digest_of(3), 13, MANIFEST_TYPE, is_manifest=True)
    await index.commit_manifest(HERE, blob_of(1), manifest_link_of(1), [layer, child], None)
    assert await index.find(HERE, digest_of(1)) == (manifest_link_of(1), blob_of(1))
    assert await index.find(HERE, digest_of(2)) == (link_of(2, LinkState.NAMED), None)
    assert await index.find(HERE, digest_of(3)) == (manifest_link_of(3, LinkState.NAMED), None)
    assert await index.find(ELSEWHERE, digest_of(2)) == (None, None)


async def test_a_held_link_is_not_changed_by_a_manifest_that_names_it(index: Index) -> None:
    await index.commit_blob(HERE, blob_of(2), link_of(2))
    lie = Descriptor(digest_of(2), 999, "application/x-lie", is_manifest=True)
    await index.commit_manifest(HERE, blob_of(1), manifest_link_of(1), [lie], None)
    assert await index.find(HERE, digest_of(2)) == (link_of(2), blob_of(2))


async def test_a_named_link_becomes_held(index: Index) -> None:
    named = Descriptor(digest_of(2), 999, "", is_manifest=False)
    await index.commit_manifest(HERE, blob_of(1), manifest_link_of(1), [named], None)
    await index.hold(HERE, digest_of(2), Kind.BLOB, "", 12)
    assert await index.find(HERE, digest_of(2)) == (link_of(2), None)


async def test_a_manifest_stays_one_when_it_is_asked_for_as_a_blob(index: Index) -> None:
    await index.hold(HERE, digest_of(1), Kind.MANIFEST, MANIFEST_TYPE, 11)
    await index.hold(HERE, digest_of(1), Kind.BLOB, "", None)
    assert await index.find(HERE, digest_of(1)) == (manifest_link_of(1), None)


async def test_a_blob_becomes_a_manifest_when_it_proves_to_be_one(index: Index) -> None:
    await index.hold(HERE, digest_of(1), Kind.BLOB, "", 11)
    await index.hold(HERE, digest_of(1), Kind.MANIFEST, MANIFEST_TYPE, 11)
    assert await index.find(HERE, digest_of(1)) == (manifest_link_of(1), None)


async def test_a_held_link_may_lack_a_size_until_upstream_says_it(index: Index) -> None:
    await index.hold(HERE, digest_of(1), Kind.BLOB, "", None)
    unsized = LinkRecord(digest_of(1), Kind.BLOB, LinkState.HELD, "", None)
    assert await index.find(HERE, digest_of(1)) == (unsized, None)
    await index.hold(HERE, digest_of(1), Kind.BLOB, "", 11)
    assert await index.find(HERE, digest_of(1)) == (link_of(1), None)


async def test_a_public_blob_stays_public(index: Index) -> None:
    await index.commit_blob(HERE, blob_of(1, is_public=True), link_of(1))
    await index.commit_blob(ELSEWHERE, blob_of(1, is_public=False), link_of(1))
    _, blob = await index.find(HERE, digest_of(1))
    assert blob == blob_of(1, is_public=True)


async def test_a_forgotten_blob_leaves_its_link(index: Index) -> None:
    await index.commit_blob(HERE, blob_of(1), link_of(1))
    await index.forget_blob(digest_of(1))
    assert await index.find(HERE, digest_of(1)) == (link_of(1), None)
    assert await index.usage() == Usage(0, 0)


async def test_a_blob_being_evicted_is_not_shown_but_counts_until_it_is_gone(
    index: Index, path: Path
) -> None:
    await index.commit_blob(HERE, blob_of(1), link_of(1))
    execute(path, "UPDATE blob SET state = 'evicting'")
    assert await index.find(HERE, digest_of(1)) == (link_of(1), None)
    assert await index.usage() == Usage(1, 11)
    await index.commit_blob(HERE, blob_of(1), link_of(1))
    assert await index.find(HERE, digest_of(1)) == (link_of(1), blob_of(1))


async def test_uses_move_forward_and_are_counted_once_a_batch(index: Index) -> None:
    await index.commit_blob(HERE, blob_of(1, now=50.0), link_of(1))
    await index.record_uses({digest_of(1): 90.0, digest_of(404): 90.0})
    await index.record_uses({digest_of(1): 70.0})
    _, blob = await index.find(HERE, digest_of(1))
    assert blob == replace(blob_of(1, now=50.0), used_at=90.0, use_count=2)
    assert await index.usage() == Usage(1, 11)


async def test_a_blob_committed_again_keeps_its_uses(index: Index) -> None:
    await index.commit_blob(HERE, blob_of(1, now=50.0), link_of(1))
    await index.record_uses({digest_of(1): 90.0})
    await index.commit_blob(HERE, replace(blob_of(1, now=60.0), xxh3=None), link_of(1))
    _, blob = await index.find(HERE, digest_of(1))
    assert blob == replace(blob_of(1), stored_at=60.0, used_at=90.0, use_count=1)


async def test_a_tag_that_is_checked_again_remembers_since_when_it_is_so(index: Index) -> None:
    await index.record_tag(HERE, tag_of(1, now=100.0))
    await index.record_tag(HERE, replace(tag_of(1, now=200.0), etag=None))
    expected = replace(tag_of(1, now=200.0), etag=None, changed_at=100.0)
    assert await index.find_tag(HERE, Tag("1.35")) == expected


async def test_a_tag_that_moves_is_seen_moved(index: Index) -> None:
    await index.record_tag(HERE, tag_of(1, now=100.0))
    await index.commit_manifest(HERE, blob_of(2), manifest_link_of(2), [], tag_of(2, now=200.0))
    assert await index.find_tag(HERE, Tag("1.35")) == tag_of(2, now=200.0)


async def test_a_slow_answer_does_not_undo_a_later_one(index: Index) -> None:
    later = tag_of(2, now=200.0)
    await index.record_tag(HERE, later)
    await index.record_tag(HERE, tag_of(1, now=100.0))
    await index.commit_manifest(HERE, blob_of(1), manifest_link_of(1), [], tag_of(1, now=199.0))
    await index.drop_tag(HERE, Tag("1.35"), 199.0)
    assert await index.find_tag(HERE, Tag("1.35")) == later
    await index.drop_tag(HERE, Tag("1.35"), 200.0)
    assert await index.find_tag(HERE, Tag("1.35")) is None


async def test_a_clock_that_was_set_back_holds_up_no_tag(index: Index) -> None:
    await index.record_tag(HERE, tag_of(1, now=time.time() + 3600))
    now = tag_of(2, now=time.time())
    await index.record_tag(HERE, now)
    assert await index.find_tag(HERE, Tag("1.35")) == now


async def test_a_dropped_tag_is_gone_in_its_repository_only(index: Index) -> None:
    await index.record_tag(HERE, tag_of(1))
    await index.record_tag(ELSEWHERE, tag_of(1))
    await index.drop_tag(HERE, Tag("1.35"), tag_of(1).checked_at)
    assert await index.find_tag(HERE, Tag("1.35")) is None
    assert await index.find_tag(ELSEWHERE, Tag("1.35")) == tag_of(1)


async def test_lists_tags_in_lexical_order(index: Index) -> None:
    for tag in ("latest", "1.9", "1.10", "Z", "_"):
        await index.record_tag(HERE, tag_of(1, tag))
    await index.record_tag(ELSEWHERE, tag_of(1, "foreign"))
    assert await index.list_tags(HERE) == ["1.10", "1.9", "Z", "_", "latest"]


async def test_lists_repositories_in_the_order_of_their_full_names(index: Index) -> None:
    # '-' sorts before '/', so the upstreams' own order would be another.
    locations = [Location(upstream, Repository("x")) for upstream in ("a", "a-b")]
    for location in locations:
        await index.hold(location, digest_of(1), Kind.BLOB, "", None)
    assert [str(found) for found in await index.list_repositories()] == ["a-b/x", "a/x"]


async def test_counts_each_blob_once_however_many_repositories_link_it(index: Index) -> None:
    for location in (HERE, ELSEWHERE):
        await index.commit_blob(location, blob_of(1), link_of(1))
        await index.commit_blob(location, blob_of(2), link_of(2))
    assert await index.usage() == Usage(2, 11 + 12)


async def test_refuses_an_index_of_a_newer_program_and_leaves_it_alone(path: Path) -> None:
    await (await Index.open(path)).aclose()
    execute(path, "INSERT INTO migration VALUES (9999, 'of_the_future', 0.0)")
    before = dump(path)
    with pytest.raises(IndexTooNew) as caught:
        await Index.open(path)
    assert (caught.value.found, caught.value.known) == (9999, len(load_migrations()))
    assert dump(path) == before


async def test_refuses_a_file_that_is_not_an_index(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a database"):
        await Index.open(write_text(tmp_path / "index.sqlite3", "not a database at all\n" * 100))


async def test_refuses_a_directory_that_is_not_there(path: Path) -> None:
    with pytest.raises(StorageError):
        await Index.open(path.parent / "absent" / path.name)


async def test_a_closed_index_says_so(path: Path) -> None:
    index = await Index.open(path)
    await index.aclose()
    await index.aclose()
    with pytest.raises(StorageError, match="closed"):
        await index.find(HERE, digest_of(1))
    with pytest.raises(StorageError, match="closed"):
        await index.forget_blob(digest_of(1))


@pytest.mark.parametrize(
    "sql", ["_FIND", "_FIND_TAG", "_LIST_TAGS", "_USAGE", "_DROP_TAG", "_RECORD_USE"]
)
async def test_no_lookup_walks_a_whole_table(index: Index, path: Path, sql: str) -> None:
    names = ("upstream", "repository", "digest", "tag", "used_at", "asked_at", "run")
    parameters = dict.fromkeys(names, "x")
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN {getattr(engine.index, sql)}", parameters
        ).fetchall()
    steps = [step for *_, step in plan]
    assert any(step.startswith(("SEARCH", "SCAN")) for step in steps)
    walks = re.compile(r"SCAN (blob|link|repository|tag)\b(?!.* COVERING INDEX)")
    assert not [step for step in steps if walks.match(step)]
