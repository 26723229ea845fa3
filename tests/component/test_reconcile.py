"""Index and files agree after a while, whatever was lost, and nothing foreign is touched."""

import asyncio
import hashlib
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from engine import index_upkeep
from engine.blobdir import BlobDirectory, FoundFile
from engine.index import Index
from engine.index_upkeep import IndexUpkeep
from engine.layout import Layout
from engine.names import Digest
from engine.reconcile import Reconciler, adopt_record
from tests.component.index_examples import HERE, blob_of, digest_of, link_of
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.damage import blob_path, lose_index, query
from tests.fakes.memory_upstream import MemoryUpstream, cache_before
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

MANY = 20_000


class Site:
    """A data directory without a running mirror."""

    def __init__(self, data: Path, index: Index) -> None:
        self.data = data
        self.index = index
        self.directory = BlobDirectory(Layout(data))
        self.upkeep = IndexUpkeep(index.connections)
        self.reconciler = Reconciler(self.upkeep, self.directory)

    async def digests(self) -> set[Digest]:
        """All that the index knows."""
        known: set[Digest] = set()
        for algorithm in ("sha256", "sha512"):
            for number in range(256):
                known |= await self.upkeep.list_shard(algorithm, f"{number:02x}")
        return known


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    layout = Layout(tmp_path)
    index = await Index.open(layout.index_path)
    site = Site(tmp_path, index)
    site.directory.prepare()
    yield site
    await index.aclose()


def write(site: Site, count: int, seed: int = 0) -> set[Digest]:
    """Make blob files, of all algorithms that there are room for."""
    digests = set()
    for number in range(count):
        body = f"{seed} {number}".encode()
        algorithm = "sha512" if number % 7 == 0 else "sha256"
        digest = Digest(f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")
        site.directory.write_blob(digest, body)
        digests.add(digest)
    return digests


@pytest.mark.parametrize("page_rows", [1, 3, 4, 512])
async def test_a_shard_is_listed_whole_whatever_a_page_holds(
    site: Site, monkeypatch: pytest.MonkeyPatch, page_rows: int
) -> None:
    monkeypatch.setattr(index_upkeep, "_PAGE_ROWS", page_rows)
    shard = {Digest(f"sha256:ab{number:062x}") for number in range(12)}
    others = {Digest(f"sha256:{shard}{'f' * 62}") for shard in ("aa", "ac")}
    file = FoundFile(1, 0.0, 0.0)
    await site.upkeep.adopt([adopt_record(digest, file, 0.0) for digest in shard | others])
    assert await site.upkeep.list_shard("sha256", "ab") == shard


async def test_files_without_rows_get_them_untrusted_and_private(site: Site) -> None:
    digests = write(site, 50)
    path = next(iter(digests))
    os.utime(blob_path(site.data, path), (1_000.0, 500.0))
    before = time.time()
    tally = await site.reconciler.run_once()
    assert (tally.file_count, tally.adopted_count, tally.dropped_count) == (50, 50, 0)
    assert await site.digests() == digests
    for digest in digests:
        link, blob = await site.index.find(HERE, digest)
        assert link is None
        assert blob is not None
        assert (blob.xxh3, blob.is_public, blob.is_trusted) == (None, False, False)
        assert blob.size_bytes == blob_path(site.data, digest).stat().st_size
        assert blob.used_at > before - 2 * 24 * 3600
    _, old = await site.index.find(HERE, path)
    assert old is not None
    assert old.stored_at == 500.0


async def test_rows_without_files_go_and_their_links_stay(site: Site) -> None:
    digests = write(site, 5)
    for number in range(20):
        await site.index.commit_blob(HERE, blob_of(number), link_of(number))
    tally = await site.reconciler.run_once()
    assert (tally.adopted_count, tally.dropped_count) == (5, 20)
    assert await site.digests() == digests
    assert await site.index.find(HERE, digest_of(1)) == (link_of(1), None)


async def test_what_agrees_is_left_as_it_is(site: Site) -> None:
    body = b"content"
    digest = Digest(f"sha256:{hashlib.sha256(body).hexdigest()}")
    site.directory.write_blob(digest, body)
    blob = blob_of(1, is_public=True).__class__(digest, len(body), bytes(16), True, 5.0, 6.0)
    await site.index.commit_blob(HERE, blob, link_of(1))
    tally = await site.reconciler.run_once()
    assert (tally.adopted_count, tally.dropped_count) == (0, 0)
    assert (await site.index.find(HERE, digest))[1] == blob


async def test_what_is_being_evicted_is_not_brought_back(site: Site) -> None:
    (digest,) = write(site, 1)
    await site.reconciler.run_once()
    query(site.data / "index.sqlite3", "UPDATE blob SET state = 'evicting'")
    tally = await site.reconciler.run_once()
    assert (tally.adopted_count, tally.dropped_count) == (0, 0)
    assert await site.index.find(HERE, digest) == (None, None)


async def test_foreign_things_are_left_alone_and_logged_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (digest,) = write(site, 1, seed=3)
    shard = blob_path(site.data, digest).parent
    wrong_shard = site.data / "blobs/sha256" / ("00" if shard.name != "00" else "01")
    wrong_shard.mkdir()
    foreign = [
        shard / "notes.txt",
        shard / digest.hex.upper(),
        wrong_shard / digest.hex,
        wrong_shard / (wrong_shard.name + "0" * 62),  # of no bytes: what a power cut may leave
        site.data / "blobs/sha256/README",
        site.data / "blobs/lost+found",
    ]
    for path in foreign[:-1]:
        path.write_bytes(b"" if path is foreign[3] else b"x")
    foreign[-1].mkdir()
    (shard / ("f" * 64)).symlink_to("/dev/zero")
    tally = await site.reconciler.run_once()
    assert sorted(tally.foreign) == sorted(map(str, [*foreign, shard / ("f" * 64)]))
    assert await site.digests() == {digest}
    assert all(path.exists() for path in foreign)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "foreign files left alone count=7" in warning.getMessage()
    assert "reconciled files=2 adopted=1 dropped=0 foreign=7" in caplog.text


async def test_a_pass_while_blobs_come_and_go_harms_neither(site: Site) -> None:
    write(site, 300)

    async def churn() -> None:
        for number in range(100):
            body = f"new {number}".encode()
            digest = Digest(f"sha256:{hashlib.sha256(body).hexdigest()}")
            site.directory.write_blob(digest, body)
            await site.index.commit_blob(
                HERE, blob_of(1).__class__(digest, len(body), None, False, 1.0, 1.0), link_of(1)
            )
            if number % 2:
                await site.index.forget_blob(digest)
                blob_path(site.data, digest).unlink()

    await asyncio.gather(site.reconciler.run_once(), churn())
    await site.reconciler.run_once()
    files = {path.name for path in (site.data / "blobs").rglob("*") if path.is_file()}
    assert {digest.hex for digest in await site.digests()} == files


async def test_twenty_thousand_files_are_rebuilt_and_requests_are_served_meanwhile(
    tmp_path: Path,
) -> None:
    upstream = MemoryUpstream()
    site_layout = Layout(tmp_path)
    directory = BlobDirectory(site_layout)
    directory.prepare()
    for number in range(MANY):
        digest = Digest(f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}")
        path = blob_path(tmp_path, digest)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(str(number).encode())
    async with cache_before(tmp_path, upstream) as cache:
        # It serves before it has looked at a single file.
        digest = upstream.content.add_blob(BUSYBOX.repository, str(MANY - 1).encode())
        assert await read_blob(cache, BUSYBOX, digest) == str(MANY - 1).encode()
        assert upstream.calls == ["head_blob"]
        begun_at = time.perf_counter()
        tally = await cache._upkeep._reconciler.run_once()
        rate = MANY / (time.perf_counter() - begun_at)
        assert tally.file_count == MANY
        assert (await cache._store.index.usage()).blob_count == MANY
    print(f"rebuilt {rate:,.0f} files/s")  # noqa: T201  # for whoever runs it with -s


@pytest.mark.parametrize("sql", ["_LIST_SHARD", "_HAS_ANY", "_PAGE"])
async def test_no_piece_of_upkeep_walks_the_whole_index(site: Site, sql: str) -> None:
    names = ("first", "after", "beyond", "stored_at", "digest", "limit")
    parameters = dict.fromkeys(names, 1)
    with closing(sqlite3.connect(site.data / "index.sqlite3")) as connection:
        statement = f"EXPLAIN QUERY PLAN {getattr(index_upkeep, sql)}"
        plan = [step for *_, step in connection.execute(statement, parameters)]
    assert any(step.startswith("SEARCH blob") for step in plan)
    assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step]


async def test_an_old_snapshot_and_newer_files_are_made_to_agree(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    old = upstream.content.add_blob(BUSYBOX.repository, b"old")
    new = upstream.content.add_blob(BUSYBOX.repository, b"new")
    async with cache_before(tmp_path, upstream) as cache:
        await read_blob(cache, BUSYBOX, old)
    shutil.copy(tmp_path / "index.snapshot", tmp_path / "copy")
    async with cache_before(tmp_path, upstream) as cache:
        await read_blob(cache, BUSYBOX, new)
    lose_index(tmp_path)
    (tmp_path / "copy").rename(tmp_path / "index.snapshot")
    blob_path(tmp_path, old).unlink()
    upstream.calls.clear()
    async with cache_before(tmp_path, upstream) as cache:
        await cache._upkeep._reconciler.run_once()
        assert (await cache._store.index.usage()).blob_count == 1
        assert await read_blob(cache, BUSYBOX, new) == b"new"
        assert upstream.calls == ["head_blob"]
        assert await read_blob(cache, BUSYBOX, old) == b"old"
        assert upstream.calls == ["head_blob", "open_blob"]


async def test_what_power_loss_may_leave_is_put_right_as_it_is_asked_for(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    bodies = [make_bytes(5_000, seed=seed) for seed in range(3)]
    digests = [upstream.content.add_blob(BUSYBOX.repository, body) for body in bodies]
    async with cache_before(tmp_path, upstream) as cache:
        for digest in digests:
            await read_blob(cache, BUSYBOX, digest)
    no_row, no_file, no_bytes = digests
    query(tmp_path / "index.sqlite3", "DELETE FROM blob WHERE digest = ?", no_row)
    blob_path(tmp_path, no_file).unlink()
    os.truncate(blob_path(tmp_path, no_bytes), 0)
    upstream.calls.clear()
    async with cache_before(tmp_path, upstream) as cache:
        for digest, body in zip(digests, bodies, strict=True):
            assert await read_blob(cache, BUSYBOX, digest) == body
    # The row's link was still there, so not even that was asked.
    assert upstream.calls == ["open_blob", "open_blob"]
