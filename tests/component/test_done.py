"""What the engine did is counted where it happens, and told by `Cache.look`."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.errors import BlobUnknown, CacheError, StorageError
from engine.index import Index
from engine.live_views import DoneView, UpstreamView, Weight
from engine.names import Digest
from engine.scrub import Scrub
from engine.settings import VerifySettings
from engine.subject import DigestSubject
from tests.component.index_examples import HERE, blob_of, link_of
from tests.fakes.caches import BUSYBOX, mirror_of, read_blob
from tests.fakes.damage import blob_path, flip_bit, query
from tests.fakes.uncached import limit
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

BIG = make_bytes(1_000_000)
REPOSITORY = BUSYBOX.repository


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def cache(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Cache]:
    async with mirror_of(tmp_path, upstream) as cache:
        yield cache


async def pull(cache: Cache, digest: Digest) -> DoneView:
    """Read a blob until its fill has ended; tell what was done then."""
    assert await read_blob(cache, BUSYBOX, digest)
    await cache.settle(digest)
    return cache.look().done


def upstream_of(cache: Cache) -> UpstreamView:
    (found,) = cache.look().upstreams
    return found


async def test_before_anything_is_done_every_count_is_there(cache: Cache) -> None:
    done = cache.look().done
    assert set(done.fills_ended) == {"done", "not_found", "retryable", "mismatch", "dangling"}
    assert set(done.evicted) == {"partial", "expired", "budget", "minfree", "purge"}
    assert not any(done.fills_ended.values())


async def test_a_fill_is_counted_once_and_its_bytes_as_they_came(
    cache: Cache, upstream: ScriptedUpstream
) -> None:
    image = upstream.content.add_image(REPOSITORY, "1", (BIG,))
    await cache.get_manifest(BUSYBOX, image.manifest)
    done = await pull(cache, image.layers[0])
    assert (await pull(cache, image.layers[0])) == done
    assert done.fills_ended["done"] == 1
    counts = upstream_of(cache).counts
    assert (counts.blob_bytes, counts.billable_manifest_gets) == (len(BIG), 1)
    assert counts.manifest_bytes > 100


async def test_breaks_that_were_gone_on_with_are_counted(
    cache: Cache, upstream: ScriptedUpstream
) -> None:
    digest = upstream.content.add_blob(REPOSITORY, BIG)
    upstream.fail(Fault(truncate_at=300_000), kind="blob", times=2)
    done = await pull(cache, digest)
    assert (done.fills_resumed_count, done.fills_ended["done"]) == (2, 1)


async def test_wrong_bytes_are_counted_whether_they_heal_or_not(
    cache: Cache, upstream: ScriptedUpstream
) -> None:
    heals = upstream.content.add_blob(REPOSITORY, make_bytes(1_000))
    upstream.fail(Fault(corrupt_at=10), kind="blob")
    done = await pull(cache, heals)
    assert (done.fills_retried_count, done.fills_ended["mismatch"]) == (1, 0)
    stays = upstream.content.add_blob(REPOSITORY, make_bytes(1_000, seed=1))
    upstream.fail(Fault(corrupt_at=10), kind="blob", times=None)
    with pytest.raises(CacheError):
        await pull(cache, stays)
    await cache.settle(stays)
    done = cache.look().done
    assert (done.fills_retried_count, done.fills_ended["mismatch"]) == (2, 1)


async def test_what_is_not_there_and_what_fails_are_told_apart(
    cache: Cache, upstream: ScriptedUpstream
) -> None:
    with pytest.raises(BlobUnknown):
        await pull(cache, Digest("sha256:" + "0" * 64))
    failing = upstream.content.add_blob(REPOSITORY, BIG)
    upstream.fail(Fault(status=403), kind="blob", times=None)
    with pytest.raises(CacheError):
        await pull(cache, failing)
    await cache.settle(failing)
    ended = cache.look().done.fills_ended
    assert (ended["not_found"], ended["retryable"]) == (1, 1)


async def test_a_partial_that_was_gone_on_with_is_counted(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    image = upstream.content.add_image(REPOSITORY, "1", (BIG,))
    async with mirror_of(tmp_path, upstream) as cache:
        await cache.get_manifest(BUSYBOX, image.manifest)
        upstream.fail(Fault(stall_at=500_000, gate=Gate()), kind="blob")
        lookup = await cache.get_blob(BUSYBOX, image.layers[0])
        assert lookup.reader is not None
        await lookup.reader.wait_open()
        await lookup.reader.wait_past(400_000)
        lookup.reader.close()
    async with mirror_of(tmp_path, upstream) as cache:
        assert (await pull(cache, image.layers[0])).fills_adopted_count == 1


async def test_what_was_passed_on_without_being_stored_is_counted(
    cache: Cache, upstream: ScriptedUpstream
) -> None:
    limit(cache, len(BIG) // 2)
    done = await pull(cache, upstream.content.add_blob(REPOSITORY, BIG))
    assert (done.fills_unstored_count, done.fills_ended["done"]) == (1, 1)


async def test_damage_is_counted_and_so_is_all_that_was_scrubbed(
    cache: Cache, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    bodies = [make_bytes(10_000, seed=seed) for seed in range(3)]
    digests = [upstream.content.add_blob(REPOSITORY, body) for body in bodies]
    for digest in digests:
        await pull(cache, digest)
    flip_bit(blob_path(tmp_path, digests[0]))
    query(tmp_path / "index.sqlite3", "UPDATE blob SET verified_at = NULL")
    custody, settings = cache._store.custody, VerifySettings(rate_bytes_s=10**9)
    scrub = Scrub(custody.upkeep, cache._store.blob_directory.open_blob, custody, settings)
    await scrub.run_once()
    assert scrub.total == Weight(3, 30_000)
    assert cache.look().done.damaged_count == 1
    await scrub.run_once()
    assert scrub.total == Weight(3, 30_000)


async def test_failed_index_writes_are_counted(tmp_path: Path) -> None:
    index = await Index.open(tmp_path / "index.sqlite3")
    await index.commit_blob(HERE, blob_of(1), link_of(1))
    assert index.connections.failed_write_count == 0
    await index.aclose()
    with pytest.raises(StorageError):
        await index.commit_blob(HERE, blob_of(2), link_of(2))
    assert index.connections.failed_write_count == 1


async def test_what_went_is_counted_by_reason(cache: Cache, upstream: ScriptedUpstream) -> None:
    purged = upstream.content.add_blob(REPOSITORY, make_bytes(10_000))
    for digest in (purged, upstream.content.add_blob(REPOSITORY, BIG)):
        await pull(cache, digest)
    await cache.acts.purge(DigestSubject(purged))
    assert cache.look().done.evicted["purge"].count == 1
    a_year_later = time.time() + 366 * 24 * 3600
    await cache.evictor.evict_once(a_year_later)
    evicted = cache.look().done.evicted
    assert (evicted["expired"].count, evicted["budget"].count) == (1, 0)
    assert evicted["expired"].size_bytes >= len(BIG)
