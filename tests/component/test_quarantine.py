"""Damaged blobs are set apart, for a while, and none of it is served."""

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from engine import quarantine
from engine.errors import StorageError
from engine.hot import Kind
from engine.layout import Layout
from engine.lookup import CacheStatus
from engine.quarantine import Quarantine
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.damage import blob_path, iter_blob_files, kept_in_quarantine, query
from tests.fakes.memory_upstream import MemoryUpstream, cache_before, settle_fills
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

BODY = make_bytes(100_000)


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


async def test_what_is_set_apart_is_at_once_served_no_more_and_fetched_anew(
    tmp_path: Path, upstream: MemoryUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    digest = upstream.content.add_blob(BUSYBOX.repository, BODY)
    async with cache_before(tmp_path, upstream) as cache:
        await read_blob(cache, BUSYBOX, digest)
        await settle_fills(cache)
        await read_blob(cache, BUSYBOX, digest)
        assert cache.find(Kind.BLOB, BUSYBOX, digest) is not None
        setting = asyncio.ensure_future(cache._store.quarantine(digest, "said the operator"))
        await asyncio.sleep(0)
        assert cache.find(Kind.BLOB, BUSYBOX, digest) is None
        path = await setting
        assert path is not None
        assert path.read_bytes() == BODY
        assert f"path={path} cause=said the operator" in caplog.text
        lookup = await cache.get_blob(BUSYBOX, digest)
        assert lookup.status is CacheStatus.MISS
        assert lookup.reader is not None
        lookup.reader.close()
        assert cache.space.stored_bytes >= len(BODY)  # it counts, since it is still there
    assert kept_in_quarantine(tmp_path) == [f"sha256-{digest.hex}"]


async def test_what_is_not_there_cannot_be_set_apart_and_its_row_goes(
    tmp_path: Path, upstream: MemoryUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    digest = upstream.content.add_blob(BUSYBOX.repository, BODY)
    async with cache_before(tmp_path, upstream) as cache:
        await read_blob(cache, BUSYBOX, digest)
        await settle_fills(cache)
        blob_path(tmp_path, digest).unlink()
        assert await cache._store.quarantine(digest, "x") is None
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert query(tmp_path / "index.sqlite3", "SELECT count(*) FROM blob") == [(0,)]


async def test_a_fill_that_replaced_the_damaged_file_meanwhile_is_left_alone(
    tmp_path: Path, upstream: MemoryUpstream
) -> None:
    digest = upstream.content.add_blob(BUSYBOX.repository, BODY)
    async with cache_before(tmp_path, upstream) as cache:
        await read_blob(cache, BUSYBOX, digest)
        await settle_fills(cache)
        custody = cache._store.custody
        fd = os.open(blob_path(tmp_path, digest), os.O_RDONLY)
        try:
            cache._store.blob_directory.write_blob(digest, BODY)
            assert await custody.quarantine(digest, "its old file is damaged", fd) is None
            assert kept_in_quarantine(tmp_path) == []
            assert (await cache.get_blob(BUSYBOX, digest)).content is not None
        finally:
            os.close(fd)


async def test_a_file_that_cannot_be_moved_is_removed(
    tmp_path: Path, upstream: MemoryUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = upstream.content.add_blob(BUSYBOX.repository, BODY)

    def refuse(*_: object) -> None:
        raise StorageError("read-only file system")

    async with cache_before(tmp_path, upstream) as cache:
        await read_blob(cache, BUSYBOX, digest)
        await settle_fills(cache)
        await read_blob(cache, BUSYBOX, digest)
        monkeypatch.setattr(Quarantine, "take", refuse)
        assert await cache._store.quarantine(digest, "x") is None
        assert cache.find(Kind.BLOB, BUSYBOX, digest) is None
        assert (await cache.head_blob(BUSYBOX, digest)).stored_at is None
    assert list(iter_blob_files(tmp_path)) == []


async def test_where_somebody_removed_all_of_it_eviction_goes_on(
    tmp_path: Path, upstream: MemoryUpstream
) -> None:
    digest = upstream.content.add_blob(BUSYBOX.repository, BODY)
    async with cache_before(tmp_path, upstream) as cache:
        await read_blob(cache, BUSYBOX, digest)
        await settle_fills(cache)
        (tmp_path / "quarantine").rmdir()
        await cache.evictor.evict_once(time.time() + 2 * upstream.settings.ttl_s)
        assert list(iter_blob_files(tmp_path)) == []


def test_it_stays_within_its_bytes_and_its_age_and_leaves_foreign_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "MAX_BYTES", 3 * 65536)
    directory = tmp_path / "quarantine"
    directory.mkdir()
    for since in range(10):
        (directory / f"sha256-{since}{since}.{1000 + since}").write_bytes(make_bytes(65536))
    (directory / "note to self.txt").write_text("ask about that disk")
    kept = Quarantine(Layout(tmp_path))
    assert kept.prune(1010.0) == 3 * 65536
    names = sorted(path.name for path in directory.iterdir())
    expected = [f"sha256-{n}{n}.{1000 + n}" for n in (7, 8, 9)]
    assert names == ["note to self.txt", *expected]
    kept.prune(1008.5 + quarantine.MAX_AGE_S)
    assert [path.path.name for path in kept.list_kept()] == ["sha256-99.1009"]
