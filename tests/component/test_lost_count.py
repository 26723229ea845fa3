"""The byte budget holds while a lost index is rebuilt, and nothing goes for want of knowledge."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.layout import Layout
from engine.names import Digest
from engine.reconcile import Reconciler, Tally
from engine.upkeep import Upkeep
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.damage import lose_index
from tests.fakes.memory_upstream import MemoryUpstream, settle_fills
from tests.fakes.small_caches import KIB, MIB, disk_bytes, pull_bytes, small_cache, stored_digests

pytestmark = pytest.mark.anyio

MAXSIZE_BYTES = MIB
NO_WATERMARKS = {"highwatermark_fraction": 1.0, "lowwatermark_fraction": 1.0}


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


class Gates:
    """Hold up the counting of files and reconciling."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = asyncio.Event()
        self.reconcile = asyncio.Event()
        count_files, run_once = Upkeep._count_files, Reconciler.run_once

        async def held_count(upkeep: Upkeep) -> None:
            await self.count.wait()
            await count_files(upkeep)

        async def held_run(reconciler: Reconciler) -> Tally:
            await self.reconcile.wait()
            return await run_once(reconciler)

        monkeypatch.setattr(Upkeep, "_count_files", held_count)
        monkeypatch.setattr(Reconciler, "run_once", held_run)

    def open(self) -> None:
        self.count.set()
        self.reconcile.set()


async def fill_up(path: Path, upstream: MemoryUpstream) -> list[Digest]:
    """Leave a cache that is nearly full: 97 %."""
    async with small_cache(path, upstream, MAXSIZE_BYTES, **NO_WATERMARKS) as cache:
        return [await pull_bytes(cache, upstream, seed) for seed in range(10)]


@asynccontextmanager
async def impatient_cache(path: Path, upstream: MemoryUpstream) -> AsyncIterator[Cache]:
    async with small_cache(path, upstream, MAXSIZE_BYTES) as cache:
        cache._store.room._patience_s = 0.0
        yield cache


async def until(cache: Cache, fact: str) -> None:
    """Wait until the count of blobs `is_known` or `is_settled`."""
    changed = asyncio.Event()
    cache.space.watch(changed.set)
    while not getattr(cache.space.blobs, fact):
        changed.clear()
        await changed.wait()


async def test_a_full_cache_whose_index_is_lost_never_takes_more_than_it_may(
    tmp_path: Path, upstream: MemoryUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(await fill_up(tmp_path, upstream))
    lose_index(tmp_path)
    gates = Gates(monkeypatch)
    try:
        async with impatient_cache(tmp_path, upstream) as cache:
            await pull_bytes(cache, upstream, 100)  # served, but nobody knows whether it fits
            assert stored_digests(tmp_path) == before
            gates.count.set()
            await until(cache, "is_known")
            assert cache.space.blob_bytes == disk_bytes(tmp_path)
            await pull_bytes(cache, upstream, 101)  # there is no room, and nothing to evict
            assert stored_digests(tmp_path) == before
            small = await pull_bytes(cache, upstream, 102, 8 * KIB)
            assert stored_digests(tmp_path) == before | {small}
            assert disk_bytes(tmp_path) <= MAXSIZE_BYTES
            gates.reconcile.set()
            await until(cache, "is_settled")
            assert cache.space.blob_bytes == disk_bytes(tmp_path)
            await cache.evictor.evict_once()
            assert disk_bytes(tmp_path) <= 0.90 * MAXSIZE_BYTES
    finally:
        gates.open()


async def test_what_is_asked_for_is_listed_and_counted_once(
    tmp_path: Path, upstream: MemoryUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await fill_up(tmp_path, upstream)
    lose_index(tmp_path)
    gates = Gates(monkeypatch)
    gates.count.set()
    try:
        async with impatient_cache(tmp_path, upstream) as cache:
            await until(cache, "is_known")
            for digest in before:
                await read_blob(cache, BUSYBOX, digest)
            assert cache.space.blob_bytes == disk_bytes(tmp_path)
            # Listed as they are by now, some of them make room for what would not fit.
            cache._store.room._patience_s = 5.0
            digest = await pull_bytes(cache, upstream, 100)
            stored = stored_digests(tmp_path)
            assert digest in stored
            assert len(stored & set(before)) == len(before) - 1
            assert disk_bytes(tmp_path) <= MAXSIZE_BYTES
    finally:
        gates.open()


async def test_a_cache_whose_index_is_damaged_while_it_runs_keeps_its_count(
    tmp_path: Path, upstream: MemoryUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill_up(tmp_path, upstream)
    (tmp_path / "index.snapshot").unlink()
    gates = Gates(monkeypatch)
    index_path = Layout(tmp_path).index_path
    try:
        async with impatient_cache(tmp_path, upstream) as cache:
            used_bytes = cache.space.blob_bytes
            assert used_bytes == disk_bytes(tmp_path)
            size = index_path.stat().st_size
            with index_path.open("r+b") as file:
                file.seek(4096)
                file.write(bytes([255]) * (size - 4096))
            await pull_bytes(cache, upstream, 100)
            assert any("damaged" in name for name in os.listdir(tmp_path))
            assert disk_bytes(tmp_path) <= MAXSIZE_BYTES
            assert cache.space.blob_bytes == disk_bytes(tmp_path)
            gates.open()
            await until(cache, "is_settled")
            await settle_fills(cache)
            assert cache.space.blob_bytes == disk_bytes(tmp_path)
    finally:
        gates.open()


async def test_an_index_that_an_earlier_run_left_is_believed_at_once(
    tmp_path: Path, upstream: MemoryUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill_up(tmp_path, upstream)
    gates = Gates(monkeypatch)  # nothing waits for them
    try:
        async with impatient_cache(tmp_path, upstream) as cache:
            assert cache.space.blobs.is_known
            assert cache.space.blob_bytes == disk_bytes(tmp_path)
            small = await pull_bytes(cache, upstream, 100, 8 * KIB)
            assert small in stored_digests(tmp_path)
    finally:
        gates.open()
