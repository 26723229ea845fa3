"""What has no room is streamed to all who wait, verified, by one download, and not stored."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.errors import BlobUnknown, DigestMismatch, StorageError, UpstreamUnavailable
from engine.fill import HELD_BACK_BYTES
from engine.leftovers import Leftover
from engine.lookup import CacheStatus
from engine.names import Digest, Tag
from engine.reader import Reader
from engine.window import BLOCK_BYTES, MAX_BLOCKS
from engine.windows import MIN_BLOCKS, Windows
from tests.fakes.caches import (
    BUSYBOX,
    mirror_of,
    read_blob,
    read_content,
    read_fill,
    read_lookup,
)
from tests.fakes.uncached import fills_ended, limit, open_reader, read_part
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

WINDOW_BYTES = MAX_BLOCKS * BLOCK_BYTES
BIG = make_bytes(3 * WINDOW_BYTES + 12_345)
MEDIUM = make_bytes(1_000_000)
REPOSITORY = BUSYBOX.repository


def leave_partial(cache: Cache, path: Path, digest: Digest, data: bytes) -> None:
    """Leave a partial as a fill that failed would."""
    (path / "partial" / digest.replace(":", "-")).write_bytes(data)
    cache._store.leftovers.add(Leftover(digest, len(data), 0.0))


def assert_nothing_is_kept(cache: Cache, path: Path) -> None:
    """Fail unless neither file nor account has any trace of a blob."""
    assert cache._store.space.used_bytes == 0
    assert list((path / "partial").iterdir()) == []
    assert [file for file in (path / "blobs").rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("is_size_known", [True, False], ids=["sized", "chunked"])
async def test_twenty_readers_of_a_blob_that_never_fits_share_one_download(
    tmp_path: Path, is_size_known: bool
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, len(BIG) // 2)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        everyone_is_here = Gate()
        upstream.fail(Fault(hold=everyone_is_here, chunked=not is_size_known), kind="blob")
        lookups = [await cache.get_blob(BUSYBOX, digest) for _ in range(20)]
        everyone_is_here.open()
        bodies = await asyncio.gather(*(read_lookup(cache, lookup) for lookup in lookups))
        assert all(body == BIG for body in bodies)
        assert upstream.count(kind="blob") == 1
        await fills_ended(cache)
        assert_nothing_is_kept(cache, tmp_path)


@pytest.mark.parametrize("size", [0, 1, HELD_BACK_BYTES, HELD_BACK_BYTES + 1, BLOCK_BYTES + 1])
async def test_every_size_arrives_whole_without_being_stored(tmp_path: Path, size: int) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG[:size])
        assert await read_blob(cache, BUSYBOX, digest) == BIG[:size]
        await fills_ended(cache)


async def test_a_blob_that_a_manifest_gives_a_size_is_not_begun_on_disk(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (MEDIUM,))
        await cache.get_manifest(BUSYBOX, Tag("1"))
        limit(cache, cache._store.space.used_bytes + len(MEDIUM) // 2)
        reader = await open_reader(cache, image.layers[0])
        assert not reader.is_stored
        assert list((tmp_path / "partial").iterdir()) == []
        assert await read_fill(reader) == MEDIUM


async def test_it_is_known_before_the_first_byte_that_a_blob_will_not_fit(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, len(MEDIUM) // 2)
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        reader = await open_reader(cache, digest)
        assert not reader.is_stored
        assert await read_fill(reader) == MEDIUM


async def test_what_does_not_fit_now_waits_for_eviction_to_make_room(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        space = cache._store.space
        space.resize(2 * len(MEDIUM))
        space.add(len(MEDIUM) + len(MEDIUM) // 2)
        woken = []

        def evict() -> None:
            woken.append(space.above_low_bytes)
            space.remove(len(MEDIUM))

        cache._store.room.wake = evict
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        assert await read_blob(cache, BUSYBOX, digest) == MEDIUM
        await fills_ended(cache)
        assert woken[0] >= len(MEDIUM) // 2, "eviction is told how much is wanted"
        assert (await cache.get_blob(BUSYBOX, digest)).content is not None
        assert space.reserved_bytes == 0


async def test_what_does_not_fit_in_time_is_streamed(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 2 * len(MEDIUM))
        cache._store.space.add(len(MEDIUM) + len(MEDIUM) // 2)
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        reader = await open_reader(cache, digest)
        assert not reader.is_stored
        assert await read_fill(reader) == MEDIUM


async def test_a_blob_of_unknown_size_is_stored_as_far_as_it_fits(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, len(BIG) // 2)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        upstream.fail(Fault(chunked=True), kind="blob")
        reader = await open_reader(cache, digest)
        was_stored = reader.is_stored
        head = await read_part(reader, 0, 1_000_000)
        assert head + await read_part(reader, 1_000_000, len(BIG)) == BIG
        assert (was_stored, reader.is_stored) == (True, False)
        reader.close()
        await fills_ended(cache)
        assert_nothing_is_kept(cache, tmp_path)


async def test_a_manifest_that_does_not_fit_is_served_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 10)
        image = upstream.content.add_image(REPOSITORY, "1")
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                lookup = await cache.get_manifest(BUSYBOX, Tag("1"))
                assert lookup.content is not None
                assert read_content(cache, lookup.content) == image.body
                assert lookup.status is CacheStatus.BYPASS
        assert_nothing_is_kept(cache, tmp_path)
        assert "manifest not stored" in caplog.text
        assert cache._store.space.reserved_bytes == 0


async def test_a_download_that_nobody_reads_waits_and_goes_on_with_its_reader(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        reader = await open_reader(cache, digest)
        fill = reader._fill
        await _until_full(reader)
        assert fill.written_bytes <= WINDOW_BYTES
        assert await read_fill(reader) == BIG
        assert upstream.count(kind="blob") == 1


async def test_all_that_is_not_stored_shares_a_bounded_memory(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        windows = cache._blobs._windows = Windows(max_blocks=12)
        bodies = [make_bytes(7_000_000, seed) for seed in range(3)]  # 14 blocks each
        digests = [upstream.content.add_blob(REPOSITORY, body) for body in bodies]
        readers = [await open_reader(cache, digest) for digest in digests]
        for reader in readers:
            await _until_full(reader)
        assert windows.block_count <= 12 + 2 * MIN_BLOCKS  # for those that find nothing left
        assert await asyncio.gather(*map(read_fill, readers)) == bodies
        assert upstream.count(kind="blob") == 3
        await fills_ended(cache)
        assert windows.block_count == 0


async def test_the_download_stops_when_its_last_reader_leaves(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        reader = await open_reader(cache, digest)
        await read_part(reader, 0, 1_000_000)
        reader.close()
        await fills_ended(cache)
        assert upstream.seen(kind="blob")[0].sent_bytes < len(BIG)
        assert await read_blob(cache, BUSYBOX, digest) == BIG
        assert upstream.count(kind="blob") == 2


async def test_who_comes_when_the_beginning_is_gone_starts_the_next_download(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        first = await open_reader(cache, digest)
        await read_part(first, 0, WINDOW_BYTES + BLOCK_BYTES)
        limit(cache, 2 * len(BIG))
        late = await cache.get_blob(BUSYBOX, digest)
        assert await read_lookup(cache, late) == BIG
        assert (
            await read_part(first, WINDOW_BYTES + BLOCK_BYTES, len(BIG))
            == BIG[WINDOW_BYTES + BLOCK_BYTES :]
        )
        first.close()
        await fills_ended(cache)
        assert upstream.count(kind="blob") == 2
        assert (await cache.get_blob(BUSYBOX, digest)).content is not None, "the second is stored"


async def test_a_corrupt_blob_that_is_not_stored_is_never_completed(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        upstream.fail(Fault(corrupt_at=10), kind="blob", times=None)
        reader = await open_reader(cache, digest)
        head = await read_part(reader, 0, len(MEDIUM) - HELD_BACK_BYTES)
        assert len(head) == len(MEDIUM) - HELD_BACK_BYTES
        with pytest.raises(DigestMismatch):
            await read_part(reader, len(head), len(MEDIUM))
        reader.close()
        await fills_ended(cache)


async def test_a_small_corrupt_blob_is_fetched_anew_without_being_stored(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM[:1000])
        upstream.fail(Fault(corrupt_at=10), kind="blob")
        assert await read_blob(cache, BUSYBOX, digest) == MEDIUM[:1000]
        assert upstream.count(kind="blob") == 2


async def test_a_break_of_what_is_not_stored_is_resumed(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        upstream.fail(Fault(truncate_at=WINDOW_BYTES + 1000), kind="blob")
        assert await read_blob(cache, BUSYBOX, digest) == BIG
        assert upstream.count(kind="blob") == 2


async def test_a_failed_fill_keeps_its_partial_in_the_accounts(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        upstream.fail(Fault(truncate_at=300_000), kind="blob")
        upstream.fail(Fault(truncate_at=0), kind="blob", times=None)
        with pytest.raises(UpstreamUnavailable):
            await read_blob(cache, BUSYBOX, digest)
        await fills_ended(cache)
        (leftover,) = cache._store.leftovers.oldest_first()
        allocated_bytes = os.stat(next((tmp_path / "partial").iterdir())).st_blocks * 512
        assert (leftover.digest, leftover.allocated_bytes) == (digest, allocated_bytes)
        assert cache._store.space.reserved_bytes == 0
        assert cache._store.space.stored_bytes == allocated_bytes
        upstream.heal()
        assert await read_blob(cache, BUSYBOX, digest) == MEDIUM
        await fills_ended(cache)
        assert len(cache._store.leftovers) == 0
        assert cache._store.space.reserved_bytes == 0


async def test_a_leftover_that_there_is_no_room_to_finish_is_served_and_removed(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        leave_partial(cache, tmp_path, digest, MEDIUM[:300_000])
        limit(cache, 400_000)
        assert await read_blob(cache, BUSYBOX, digest) == MEDIUM
        await fills_ended(cache)
        assert upstream.seen(kind="blob")[-1].header("range") == f"bytes=300000-{len(MEDIUM) - 1}"
        assert_nothing_is_kept(cache, tmp_path)


async def test_a_leftover_of_a_blob_that_cannot_be_begun_stays_one(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (MEDIUM,))
        await cache.get_manifest(BUSYBOX, Tag("1"))
        leave_partial(cache, tmp_path, image.layers[0], MEDIUM[:300_000])
        cache._store.room.failed(StorageError("the disk is full"))
        assert await read_blob(cache, BUSYBOX, image.layers[0]) == MEDIUM
        await fills_ended(cache)
        assert upstream.count(kind="blob") == 1
        assert [kept.digest for kept in cache._store.leftovers.oldest_first()] == [image.layers[0]]
        assert cache._store.space.reserved_bytes == 0


async def test_a_blob_takes_no_room_before_upstream_says_that_it_is_there(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (MEDIUM,))
        await cache.get_manifest(BUSYBOX, Tag("1"))
        gate = Gate()
        upstream.fail(Fault(hold=gate, status=404), kind="blob")
        lookup = await cache.get_blob(BUSYBOX, image.layers[0])
        await gate.wait_reached()
        assert cache._store.space.reserved_bytes == 0
        assert list((tmp_path / "partial").iterdir()) == []
        gate.open()
        assert lookup.reader is not None
        with pytest.raises(BlobUnknown):
            await read_fill(lookup.reader)


async def test_a_reader_may_leave_what_is_not_stored_at_any_await(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        turns, is_done = 0, False
        while not is_done:
            task = asyncio.ensure_future(read_blob(cache, BUSYBOX, digest))
            for _ in range(turns):
                await asyncio.sleep(0)
            is_done = task.done()
            task.cancel()
            await asyncio.wait({task})
            await fills_ended(cache)
            assert_nothing_is_kept(cache, tmp_path)
            turns += 1 + turns // 4
        assert await read_blob(cache, BUSYBOX, digest) == MEDIUM


async def test_the_cache_may_be_closed_while_it_streams(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        gate = Gate()
        upstream.fail(Fault(stall_at=500_000, gate=gate), kind="blob")
        async with mirror_of(tmp_path, upstream) as cache:
            limit(cache, 0)
            reader = await open_reader(cache, digest)
            await read_part(reader, 0, 100_000)
        with pytest.raises(UpstreamUnavailable):
            await read_part(reader, 100_000, len(MEDIUM))
        reader.close()
        gate.open()


async def _until_full(reader: Reader) -> None:
    while reader._fill.window is None or reader._fill.window.room_bytes:
        await reader._fill.wait_changed()


async def test_a_fill_that_is_stopped_before_its_first_step_ends_as_well(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        digest = upstream.content.add_blob(REPOSITORY, MEDIUM)
        async with mirror_of(tmp_path, upstream) as cache:
            reader = (await cache.get_blob(BUSYBOX, digest)).reader
            assert reader is not None
        with pytest.raises(UpstreamUnavailable):
            await read_fill(reader)
