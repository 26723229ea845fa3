"""The index read by a tool, beside a server that writes it and without one."""

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import IndexDamaged, IndexTooNew, StorageError
from engine.index import Index
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.index_totals import IndexTotals
from engine.index_views import BlobFilter, Share
from engine.index_writer import Statement
from engine.migrate import load_migrations
from tests.component.index_examples import (
    ELSEWHERE,
    HERE,
    blob_of,
    digest_of,
    link_of,
    manifest_link_of,
    tag_of,
)

pytestmark = pytest.mark.anyio


async def fill(index: Index) -> None:
    """Blobs 1 and 2 of one repository, 2 and 3 of another; 3 is a manifest with a tag."""
    for number, where in ((1, HERE), (2, HERE), (2, ELSEWHERE)):
        await index.commit_blob(where, blob_of(number, now=1000.0 * number), link_of(number))
    manifest = blob_of(3, now=3000.0)
    await index.commit_manifest(ELSEWHERE, manifest, manifest_link_of(3), [], tag_of(3))


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "index.sqlite3"
    index = await Index.open(path)
    await fill(index)
    await index.aclose()
    return path


async def test_sees_what_a_server_commits_while_it_is_open(path: Path) -> None:
    index = await Index.open(path)
    async with ReadOnlyConnections(path) as connections:
        inspection = IndexInspection(connections)
        assert await inspection.find_blob(digest_of(9)) is None
        await index.commit_blob(HERE, blob_of(9), link_of(9))
        assert await inspection.find_blob(digest_of(9)) is not None
    await index.aclose()
    # The tool did not keep the server from folding its WAL into the file.
    assert sorted(os.listdir(path.parent)) == ["index.sqlite3"]


async def test_writes_nothing_whatever_is_asked(path: Path) -> None:
    async with ReadOnlyConnections(path) as connections:
        with pytest.raises(StorageError, match="reading only"):
            await connections.write(Statement("DELETE FROM blob", [{}]))
        with pytest.raises(StorageError, match="readonly"):
            await connections.read("DELETE FROM blob", {})
    with pytest.raises(StorageError, match="closed"):
        await connections.read("SELECT 1", {})


async def test_outlives_an_index_that_is_replaced_under_it(path: Path) -> None:
    async with ReadOnlyConnections(path):
        os.rename(path, path.with_suffix(".old"))
        index = await Index.open(path)
        await index.commit_blob(HERE, blob_of(9), link_of(9))
    # It was the last to close the old file, and must not take the new one's WAL for its own.
    assert os.stat(f"{path}-wal").st_size > 0
    await index.aclose()
    async with ReadOnlyConnections(path) as connections:
        assert await IndexInspection(connections).find_blob(digest_of(9)) is not None


async def test_refuses_a_schema_that_is_not_this_programs(path: Path) -> None:
    known = len(load_migrations())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO migration VALUES (?, 'future', 0)", (known + 1,))
    with pytest.raises(IndexTooNew):
        await ReadOnlyConnections(path).open()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM migration WHERE version >= ?", (known,))
    with pytest.raises(StorageError, match="brings it up to date"):
        await ReadOnlyConnections(path).open()


async def test_says_that_there_is_no_index_or_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    with pytest.raises(StorageError, match="no index"):
        await ReadOnlyConnections(path).open()
    assert not path.exists()
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(IndexDamaged):
        await ReadOnlyConnections(path).open()


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (BlobFilter(), {1, 2, 3}),
        (BlobFilter(larger_than_bytes=11), {2, 3}),
        (BlobFilter(stored_before=2000.0), {1}),
        (BlobFilter(used_before=3000.0), {1, 2}),
        (BlobFilter(upstream="ghcr.io"), {2, 3}),
        (BlobFilter(upstream="docker.io", repository="library/busybox"), {1, 2}),
        (BlobFilter(upstream="docker.io", repository="library/other"), set()),
        (BlobFilter(upstream="ghcr.io", larger_than_bytes=12), {3}),
    ],
)
async def test_blobs_are_filtered(path: Path, wanted: BlobFilter, numbers: set[int]) -> None:
    async with ReadOnlyConnections(path) as connections:
        found = [view.digest async for view in IndexInspection(connections).iter_blobs(wanted)]
    assert found == sorted(digest_of(number) for number in numbers)


async def test_a_repository_tells_what_is_its_alone(path: Path) -> None:
    async with ReadOnlyConnections(path) as connections:
        index = IndexInspection(connections)
        here = await index.describe_repository(HERE)
        elsewhere = await index.describe_repository(ELSEWHERE)
        assert await index.list_locations() == [HERE, ELSEWHERE]
    assert (here.blob_count, here.stored_bytes, here.own_bytes, here.used_at) == (2, 23, 11, 2000.0)
    assert (elsewhere.tag_count, elsewhere.stored_bytes, elsewhere.own_bytes) == (1, 25, 13)


async def test_all_repositories_at_once_are_what_each_is(path: Path) -> None:
    async with ReadOnlyConnections(path) as connections:
        index, totals = IndexInspection(connections), IndexTotals(connections, lambda: None)
        one_by_one = [await index.describe_repository(each) for each in (HERE, ELSEWHERE)]
        assert await totals.describe_repositories(is_own_wanted=True) == one_by_one
        without_own = [replace(each, own_bytes=0) for each in one_by_one]
        assert await totals.describe_repositories(is_own_wanted=False) == without_own


async def test_a_digest_tells_its_links_its_tags_and_its_kind(path: Path) -> None:
    async with ReadOnlyConnections(path) as connections:
        index = IndexInspection(connections)
        blob = await index.find_blob(digest_of(3))
        assert blob is not None
        assert (blob.kind, blob.repository_count, blob.size_bytes) == ("manifest", 1, 13)
        assert [link.upstream for link in await index.list_links(digest_of(2))] == [
            "docker.io",
            "ghcr.io",
        ]
        assert [tag.name for tag in await index.list_meaning(digest_of(3))] == [
            "ghcr.io/library/busybox:1.35"
        ]
        (tag,) = await index.list_tags(ELSEWHERE)
        assert tag.is_stored


async def test_sums_agree_with_each_other(path: Path) -> None:
    steps: list[None] = []
    async with ReadOnlyConnections(path) as connections:
        index = IndexInspection(connections)
        totals = IndexTotals(connections, lambda: steps.append(None))
        sums = await totals.sum_up()
        shares = await totals.share_upstreams()
        young = await index.share_used(2000.0, float("inf"))
        books = await index.read_books()
        assert await index.count_disk_bytes() == books.disk_bytes
    assert (sums.total, sums.leaving_count) == (Share(3, 36), 0)
    assert len(steps) == 2 * IndexTotals.SHARD_COUNT
    assert {name: share.stored_bytes for name, share in shares.items()} == {
        "docker.io": 23,
        "ghcr.io": 25,
    }
    assert (young.blob_count, young.stored_bytes) == (2, 25)
    assert books.blob_count == books.actual_count == 3
    assert books.disk_bytes == books.actual_bytes == 3 * 4096
