"""The evictor on real files and a real index: what goes, what stays, what is counted."""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.budget import make_ttls
from engine.cache import Cache
from engine.capacity import FileSystem
from engine.errors import StorageError
from engine.eviction import IN_USE_S, PARTIAL_TTL_S, Reason
from engine.evictor import Measured
from engine.names import Digest, Location, Repository, Tag
from engine.settings import EngineSettings, UpstreamSettings
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.memory_upstream import SETTINGS, MemoryUpstream, settle_fills
from tests.fakes.small_caches import (
    KIB,
    MIB,
    disk_bytes,
    pull_bytes,
    small_cache,
    stored_digests,
)
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

PYTHON = Location("docker.io", Repository("library/python"))


def later(seconds: float = IN_USE_S + 1) -> float:
    """A moment at which what is used now is not in use any more."""
    return time.time() + seconds


async def assert_counted(cache: Cache, path: Path) -> None:
    """What the budget counts is what is on disk."""
    await settle_fills(cache)
    assert cache._store.space.used_bytes == disk_bytes(path)


async def test_the_budget_is_held_while_content_streams_through(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream) as cache:
        peak_bytes = 0
        for seed in range(40):
            await pull_bytes(cache, upstream, seed)
            peak_bytes = max(peak_bytes, disk_bytes(tmp_path))
        assert peak_bytes <= MIB
        assert cache.evictor.total.counts[Reason.BUDGET] >= 30
        await assert_counted(cache, tmp_path)
        assert upstream.calls.count("open_blob") == 40


async def test_nothing_goes_while_there_is_room(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream) as cache:
        digests = {await pull_bytes(cache, upstream, seed) for seed in range(9)}
        tally = await cache.evictor.evict_once(later())
        assert tally.counts.total() == 0
        assert stored_digests(tmp_path) == digests


async def test_goes_down_to_the_low_watermark_and_what_is_evicted_is_fetched_anew(
    tmp_path: Path,
) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream, policy="lru", maxsize_bytes=4 * MIB) as cache:
        digests = [await pull_bytes(cache, upstream, seed) for seed in range(30)]
        cache._store.space.resize(2 * MIB)
        cache.evictor.settings = replace(cache.evictor.settings, maxsize_bytes=2 * MIB)
        await cache.evictor.evict_once(later())
        assert 0.85 * 2 * MIB < disk_bytes(tmp_path) <= 0.9 * 2 * MIB
        assert stored_digests(tmp_path) == set(digests[-18:])
        upstream.calls.clear()
        await read_blob(cache, BUSYBOX, digests[0])
        await read_blob(cache, BUSYBOX, digests[-1])
        assert upstream.calls.count("open_blob") == 1


async def test_what_was_used_last_stays_even_if_only_memory_knows(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream, policy="lru") as cache:
        digests = [await pull_bytes(cache, upstream, seed) for seed in range(9)]
        await read_blob(cache, BUSYBOX, digests[0])
        await shrink(cache, 200 * KIB)
        await cache.evictor.evict_once(later())
        assert stored_digests(tmp_path) == {digests[0]}


async def shrink(cache: Cache, maxsize_bytes: int) -> None:
    """Have less room from now on."""
    cache.evictor.settings = replace(cache.evictor.settings, maxsize_bytes=maxsize_bytes)
    await cache.evictor.adjust()


async def test_what_is_used_between_the_plan_and_the_act_stays(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream, policy="lru") as cache:
        digests = [await pull_bytes(cache, upstream, seed) for seed in range(9)]
        removal = cache.evictor._parts.removal
        remove = removal.remove

        async def use_and_remove(victims: object) -> object:
            await read_blob(cache, BUSYBOX, digests[0])
            return await remove(victims)  # type: ignore[arg-type]  # passed on

        removal.remove = use_and_remove  # type: ignore[assignment]  # wrapped
        await shrink(cache, 850 * KIB)
        await cache.evictor.evict_once(later())
        assert stored_digests(tmp_path) == {digests[0], *digests[3:]}


async def test_what_a_client_is_being_sent_stays_and_arrives(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream) as cache:
        digest = await pull_bytes(cache, upstream, 1)
        lookup = await cache.get_blob(BUSYBOX, digest)
        assert lookup.content is not None
        file = cache.open_file(lookup.content)
        await shrink(cache, 1)
        await cache.evictor.evict_once(later())
        assert stored_digests(tmp_path) == {digest}
        assert os.pread(file.fd, MIB, 0) == make_bytes(100 * KIB, 1)
        file.release()
        await cache.evictor.evict_once(later())
        assert stored_digests(tmp_path) == set()


async def test_what_is_in_use_goes_when_nothing_else_is_left(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream) as cache:
        await pull_bytes(cache, upstream, 1)
        await shrink(cache, 1)
        tally = await cache.evictor.evict_once()
        assert tally.counts == {Reason.BUDGET: 1}
        assert disk_bytes(tmp_path) == 0


async def test_layers_of_a_manifest_that_was_just_served_outlast_others(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    layers = tuple(make_bytes(100 * KIB, seed) for seed in (1, 2))
    image = upstream.content.add_image(BUSYBOX.repository, "1", layers)
    nested = upstream.content.add_image_index(BUSYBOX.repository, "all", [image.body])
    async with small_cache(tmp_path, upstream, policy="lru") as cache:
        await cache.get_manifest(BUSYBOX, image.manifest)
        for digest in image.layers:
            await read_blob(cache, BUSYBOX, digest)
        others = {await pull_bytes(cache, upstream, seed) for seed in (3, 4)}
        # A minute later only the image index is asked for; it names the manifest, which names them.
        await cache.evictor._parts.flush_uses()
        cache._store.touch.note(others.copy().pop(), time.time())
        await cache.get_manifest(BUSYBOX, Tag("all"))
        cache._store.touch.note(nested, later())
        await shrink(cache, 230 * KIB)
        await cache.evictor.evict_once(later())
        assert stored_digests(tmp_path) >= set(image.layers)
        assert not stored_digests(tmp_path) & others


async def test_what_a_pinned_tag_means_never_goes(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    image = upstream.content.add_image(BUSYBOX.repository, "1.35", (make_bytes(100 * KIB, 1),))
    pins = ("docker.io/library/busy*:1.3[5-9]",)
    async with small_cache(tmp_path, upstream, pins=pins) as cache:
        await cache.get_manifest(BUSYBOX, Tag("1.35"))
        for digest in (*image.layers, image.config):
            await read_blob(cache, BUSYBOX, digest)
        await pull_bytes(cache, upstream, 2)
        await settle_fills(cache)
        await shrink(cache, 1)
        await cache.evictor.evict_once(later(365 * 24 * 3600.0))
        assert stored_digests(tmp_path) == {image.manifest, image.config, *image.layers}


async def test_what_nobody_used_for_the_ttl_goes_though_there_is_room(tmp_path: Path) -> None:
    upstream = MemoryUpstream(replace(SETTINGS, ttl_s=3600.0))
    async with small_cache(tmp_path, upstream) as cache:
        old, used = [await pull_bytes(cache, upstream, seed) for seed in (1, 2)]
        cache._store.touch.note(used, later(1800))
        tally = await cache.evictor.evict_once(later(3600))
        assert (tally.counts, tally.sizes_bytes) == (
            {Reason.EXPIRED: 1},
            {Reason.EXPIRED: 100 * KIB},
        )
        assert stored_digests(tmp_path) == {used}
        assert old not in stored_digests(tmp_path)


@pytest.mark.parametrize("ttl_s", [0.0, 7200.0])
async def test_what_may_stay_longer_does(tmp_path: Path, ttl_s: float) -> None:
    upstream = MemoryUpstream(replace(SETTINGS, ttl_s=ttl_s))
    async with small_cache(tmp_path, upstream) as cache:
        digest = await pull_bytes(cache, upstream, 1)
        await cache.evictor.evict_once(later(3600))
        assert stored_digests(tmp_path) == {digest}


async def test_a_blob_of_several_repositories_is_counted_once(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    data = make_bytes(100 * KIB, 1)
    for location in (BUSYBOX, PYTHON):
        upstream.content.add_blob(location.repository, data)
    async with small_cache(tmp_path, upstream) as cache:
        digest = await pull_bytes(cache, upstream, 1)
        assert await read_blob(cache, PYTHON, digest) == data
        await settle_fills(cache)
        assert cache._store.space.used_bytes == 100 * KIB
        await shrink(cache, 1)
        await cache.evictor.evict_once(later())
        assert cache._store.space.used_bytes == disk_bytes(tmp_path) == 0
        # Both may have it still: its links stayed.
        assert (await cache.head_blob(PYTHON, digest)).size_bytes == len(data)


async def test_what_is_there_at_the_start_is_counted(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream) as cache:
        for seed in range(3):
            await pull_bytes(cache, upstream, seed, 10 * KIB + seed)
    leave_partial(tmp_path, seed=9, age_s=0)
    kept = tmp_path / "quarantine" / f"sha256-{'0' * 64}.{int(time.time())}"
    kept.write_bytes(bytes(5 * KIB))
    async with small_cache(tmp_path, upstream) as cache:
        assert cache._store.space.used_bytes == disk_bytes(tmp_path) > 3 * 10 * KIB


def leave_partial(path: Path, seed: int, age_s: float) -> Digest:
    """Leave what a fill of an earlier run had written."""
    data = make_bytes(20 * KIB, seed)
    digest = MemoryUpstream().content.add_blob(BUSYBOX.repository, data)
    partial = path / "partial" / digest.replace(":", "-")
    partial.write_bytes(data[: 10 * KIB])
    left_at = time.time() - age_s
    os.utime(partial, (left_at, left_at))
    return digest


async def test_partials_that_nobody_continues_go_first_or_after_a_day(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream) as cache:
        blob = await pull_bytes(cache, upstream, 1)
    leave_partial(tmp_path, 2, PARTIAL_TTL_S + 60)
    young = leave_partial(tmp_path, 3, 60)
    async with small_cache(tmp_path, upstream) as cache:
        assert (await cache.evictor.evict_once()).counts == {Reason.PARTIAL: 1}
        (left,) = (tmp_path / "partial").iterdir()
        assert left.name == young.replace(":", "-")
        await shrink(cache, 100 * KIB + 12 * KIB)
        assert (await cache.evictor.evict_once(later())).counts == {Reason.PARTIAL: 1}
        assert stored_digests(tmp_path) == {blob}
        assert cache._store.space.used_bytes == disk_bytes(tmp_path) == 100 * KIB


def pretend(cache: Cache, free_bytes: int, total_bytes: int = 100 * MIB) -> None:
    """Have the file system say that so much is free."""
    measured = Measured(FileSystem(total_bytes, free_bytes, 4096), 0)
    cache.evictor._parts = replace(cache.evictor._parts, measure=lambda: measured)


async def test_gives_way_where_others_fill_the_disk_down_to_half_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream, minfree_bytes=10 * MIB) as cache:
        for seed in range(9):
            await pull_bytes(cache, upstream, seed)
        pretend(cache, 10 * MIB - 200 * KIB)
        tally = await cache.evictor.evict_once(later())
        assert set(tally.counts) == {Reason.MINFREE}
        assert 512 * KIB < disk_bytes(tmp_path) <= 700 * KIB
        assert "filled by others" not in caplog.text
        pretend(cache, 0)
        for _ in range(3):
            await cache.evictor.evict_once(later())
        assert 0.85 * 512 * KIB - 100 * KIB < disk_bytes(tmp_path) <= 512 * KIB
        assert caplog.text.count("filled by others") == 1
        pretend(cache, 50 * MIB)
        await cache.evictor.evict_once(later())
        assert cache._store.space.capacity_bytes == MIB


async def test_a_fill_that_needs_room_wakes_the_evictor_and_is_stored(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream) as cache:
        await pull_bytes(cache, upstream, 1, 900 * KIB)
        large = await pull_bytes(cache, upstream, 2, 800 * KIB)
        assert stored_digests(tmp_path) == {large}
        await assert_counted(cache, tmp_path)


async def test_a_failing_disk_or_index_does_not_end_the_loop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream, interval_s=0.001) as cache:
        measure, failed = cache.evictor._parts.measure, asyncio.Event()
        loop = asyncio.get_running_loop()

        def fail() -> Measured:
            loop.call_soon_threadsafe(failed.set)
            raise StorageError("the disk is gone")

        cache.evictor._parts = replace(cache.evictor._parts, measure=fail)
        await failed.wait()
        cache.evictor._parts = replace(cache.evictor._parts, measure=measure)
        await pull_bytes(cache, upstream, 1, 900 * KIB)
        large = await pull_bytes(cache, upstream, 2, 800 * KIB)
        assert stored_digests(tmp_path) == {large}
    assert "eviction failed" in caplog.text


async def test_a_full_disk_that_takes_no_write_of_the_index_is_freed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream) as cache:
        for seed in range(5):
            await pull_bytes(cache, upstream, seed)
        await cache._store.flush_uses()
        await shrink(cache, 1)

        async def refuse(*_: object) -> None:
            raise StorageError("index: writing failed: database or disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(cache._store.index.connections, "write", refuse)
            with pytest.raises(StorageError, match="disk is full"):
                await cache.evictor.evict_once(later())
        assert stored_digests(tmp_path) == set()
        # The rows follow when the index can be written again.
        await cache.evictor.evict_once(later())
        assert cache._store.space.used_bytes == 0


async def test_what_the_index_cannot_take_is_not_left_uncounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = MemoryUpstream()
    image = upstream.content.add_image(BUSYBOX.repository, "1", (make_bytes(100 * KIB, 1),))
    async with small_cache(tmp_path, upstream) as cache:

        async def refuse(*_: object) -> None:
            raise StorageError("index: writing failed: database or disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(cache._store.index.connections, "write", refuse)
            lookup = await cache.get_manifest(BUSYBOX, image.manifest)
            assert lookup.content is not None
            assert lookup.content.body == image.body
            assert len(await read_blob(cache, BUSYBOX, image.layers[0])) == 100 * KIB
            await settle_fills(cache)
        assert disk_bytes(tmp_path) == cache._store.space.used_bytes == 0


async def test_a_round_may_be_cancelled_anywhere(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream, policy="lru") as cache:
        for seed in range(5):
            await pull_bytes(cache, upstream, seed)
        await shrink(cache, 1)
        cancelled_count = 0
        for turns in range(100):
            task = asyncio.create_task(cache.evictor.evict_once(later()))
            await pass_turns(turns)
            cancelled_count += task.cancel()
            await asyncio.wait({task})
        assert cancelled_count > 10
        await cache.evictor.evict_once(later())
        assert stored_digests(tmp_path) == set()
        await assert_counted(cache, tmp_path)


async def pass_turns(count: int) -> None:
    """Let the loop and its threads go on for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("policy", ["lru", "used-once-first", "sieve", "s3-fifo"])
async def test_each_policy_keeps_the_budget(tmp_path: Path, policy: str) -> None:
    upstream = MemoryUpstream()
    async with small_cache(tmp_path, upstream, policy=policy) as cache:
        base = await pull_bytes(cache, upstream, 0)
        for seed in range(1, 25):
            await pull_bytes(cache, upstream, seed)
            cache._store.touch.note(base, later(seed * 60))
        await cache.evictor.evict_once(later(3600))
        assert disk_bytes(tmp_path) <= 0.95 * MIB
        await assert_counted(cache, tmp_path)
        assert base in stored_digests(tmp_path)


def test_unconfigured_upstreams_live_as_the_default_one() -> None:
    others = UpstreamSettings("ghcr.io", "https://ghcr.io", ("ghcr.io",), ttl_s=5.0)
    ttls = make_ttls(EngineSettings(Path(), (SETTINGS, others)))
    assert ttls.expires_at(0.0, ["ghcr.io"]) == 5.0
    assert ttls.expires_at(0.0, ["gone.example"]) == SETTINGS.ttl_s
