"""What the index's writer promises to writes that meet, fail, or are given up."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.hot import Kind
from engine.index import Index
from engine.index_records import Usage
from engine.index_writer import MAX_GROUP
from tests.component.index_examples import HERE, blob_of, digest_of, link_of, manifest_link_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite3"


@pytest.fixture
async def index(path: Path) -> AsyncIterator[Index]:
    opened = await Index.open(path)
    yield opened
    await opened.aclose()


@pytest.fixture
def write_lock(path: Path, index: Index) -> Iterator[sqlite3.Connection]:
    """Another process' transaction: until it is rolled back, writes wait."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def commit(index: Index, number: int) -> asyncio.Task[None]:
    return asyncio.create_task(index.commit_blob(HERE, blob_of(number), link_of(number)))


async def start(*tasks: asyncio.Task[None]) -> None:
    """Give the tasks their first turn, in which they enqueue their writes."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_many_writes_at_once_are_all_there(index: Index) -> None:
    count = 3 * MAX_GROUP + 1
    await asyncio.gather(*(commit(index, number) for number in range(count)))
    assert await index.usage() == Usage(count, sum(10 + number for number in range(count)))


async def test_writes_that_wait_together_are_committed_together(
    index: Index, path: Path, write_lock: sqlite3.Connection
) -> None:
    first = commit(index, 0)
    await start(first)
    rest = [commit(index, number) for number in range(1, 11)]
    await start(*rest)
    write_lock.execute("ROLLBACK")
    await rest[0]
    # The first of them is told only once all of them are there.
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM blob").fetchone() == (11,)
    await asyncio.gather(first, *rest)


async def test_writes_happen_in_the_order_in_which_they_were_asked_for(index: Index) -> None:
    await asyncio.gather(
        index.commit_blob(HERE, blob_of(1), link_of(1)),
        index.forget_blob(digest_of(1)),
        index.commit_blob(HERE, blob_of(2), link_of(2)),
        index.forget_blob(digest_of(2)),
        index.commit_blob(HERE, blob_of(2), link_of(2)),
    )
    assert await index.find(HERE, digest_of(1)) == (link_of(1), None)
    assert await index.find(HERE, digest_of(2)) == (link_of(2), blob_of(2))


async def test_readers_do_not_wait_for_a_writer(
    index: Index, write_lock: sqlite3.Connection
) -> None:
    waiting = commit(index, 1)
    await start(waiting)
    assert await index.find(HERE, digest_of(1)) == (None, None)
    assert not waiting.done()
    write_lock.execute("ROLLBACK")
    await waiting


async def test_a_write_is_carried_out_though_its_caller_is_cancelled(
    index: Index, write_lock: sqlite3.Connection
) -> None:
    given_up, other = commit(index, 1), commit(index, 2)
    await start(given_up, other)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    write_lock.execute("ROLLBACK")
    await other
    assert await index.find(HERE, digest_of(1)) == (link_of(1), blob_of(1))


@pytest.mark.parametrize(
    ("media_type", "size_bytes"), [("", 2**63), ("", -1), ("\udcff", 1)], ids=repr
)
async def test_a_write_that_cannot_be_stored_fails_alone_and_whole(
    index: Index, write_lock: sqlite3.Connection, media_type: str, size_bytes: int
) -> None:
    good = commit(index, 1)
    bad = asyncio.create_task(index.hold(HERE, digest_of(2), Kind.MANIFEST, media_type, size_bytes))
    also_good = commit(index, 3)
    await start(good, bad, also_good)
    write_lock.execute("ROLLBACK")
    await asyncio.gather(good, also_good)
    with pytest.raises(StorageError):
        await bad
    assert await index.find(HERE, digest_of(2)) == (None, None)
    assert await index.usage() == Usage(2, 11 + 13)


async def test_a_manifest_is_recorded_whole_or_not_at_all(index: Index) -> None:
    too_large = blob_of(2**63)
    with pytest.raises(StorageError):
        await index.commit_manifest(HERE, too_large, manifest_link_of(1), [], None)
    assert await index.find(HERE, digest_of(1)) == (None, None)
    assert await index.list_repositories() == []


async def test_a_failed_write_nobody_waits_for_is_logged(
    index: Index, write_lock: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    bad = asyncio.create_task(index.hold(HERE, digest_of(1), Kind.BLOB, "", -1))
    good = commit(index, 2)
    await start(bad, good)
    bad.cancel()
    write_lock.execute("ROLLBACK")
    await good
    assert "write_failed_unwatched" in caplog.text


async def test_a_disk_that_refuses_fails_all_who_wait_and_later_writes_work(
    index: Index, write_lock: sqlite3.Connection
) -> None:
    # A page limit makes SQLite report a full disk, as SQLITE_FULL.
    assert index.connections._pair is not None
    connection = index.connections._pair.writer._connection
    ((pages,),) = await connection.execute_fetchall("PRAGMA page_count")
    await connection.execute_fetchall(f"PRAGMA max_page_count = {pages}")
    writes = [commit(index, number) for number in range(1_000)]
    await start(*writes)
    write_lock.execute("ROLLBACK")
    results = await asyncio.gather(*writes, return_exceptions=True)
    refused = [result for result in results if result is not None]
    assert refused
    assert all(isinstance(result, StorageError) for result in refused)
    assert len({id(result) for result in refused}) == len(refused)
    await connection.execute_fetchall("PRAGMA max_page_count = 1073741823")
    await commit(index, 1)
    assert await index.find(HERE, digest_of(1)) == (link_of(1), blob_of(1))


async def test_closing_carries_out_what_was_asked_for(path: Path) -> None:
    index = await Index.open(path)
    writes = [commit(index, number) for number in range(10)]
    await start(*writes)
    await index.aclose()
    await asyncio.gather(*writes)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM blob").fetchone() == (10,)


async def test_closing_that_is_cut_short_leaves_nobody_waiting(path: Path) -> None:
    index = await Index.open(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        write = commit(index, 1)
        await start(write)
        closing_task = asyncio.create_task(index.aclose())
        await asyncio.sleep(0)
        closing_task.cancel()
        other.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await closing_task
    with pytest.raises(StorageError, match="ended"):
        await write
