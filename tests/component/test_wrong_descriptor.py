"""A manifest that names a wrong size costs nobody anything: the digest is the truth."""

import json
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.errors import DigestMismatch, SizeMismatch
from engine.lookup import CacheStatus
from engine.names import Digest
from tests.fakes.caches import BUSYBOX, mirror_of, read_blob, read_lookup
from tests.fakes.memory_upstream import settle_fills
from tests.fakes.uncached import limit
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_content import CONFIG, LAYER, MANIFEST, descriptor, make_bytes

pytestmark = pytest.mark.anyio

BIG = make_bytes(1_000_000)
REPOSITORY = BUSYBOX.repository
WRONG_SIZES = [0, 1, 600_000, len(BIG) - 1, len(BIG) + 1, 10**15]


def add_lie(upstream: ScriptedUpstream, size_bytes: int) -> tuple[Digest, Digest]:
    """Add BIG, and a manifest that gives it another size; give the manifest's digest and its."""
    digest = upstream.content.add_blob(REPOSITORY, BIG)
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, b"{}"),
        "layers": [{**descriptor(LAYER, BIG), "size": size_bytes}],
    }
    return upstream.content.add_manifest(REPOSITORY, json.dumps(body).encode()), digest


@pytest.mark.parametrize("size_bytes", WRONG_SIZES)
async def test_all_who_join_get_the_blob_and_it_is_stored(tmp_path: Path, size_bytes: int) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        manifest, digest = add_lie(upstream, size_bytes)
        await cache.get_manifest(BUSYBOX, manifest)
        lookups = [await cache.get_blob(BUSYBOX, digest) for _ in range(3)]
        for lookup in lookups:
            assert lookup.reader is not None
            assert await lookup.reader.wait_open() == len(BIG)
            assert await read_lookup(cache, lookup) == BIG
        await settle_fills(cache)
        head = await cache.head_blob(BUSYBOX, digest)
        assert (head.status, head.size_bytes) == (CacheStatus.HIT, len(BIG))
        # Upstream's second answer counts more than the manifest.
        assert upstream.count(kind="blob") == 2


async def test_a_size_that_nobody_confirms_neither_reserves_nor_refuses(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        manifest, digest = add_lie(upstream, 10**15)
        await cache.get_manifest(BUSYBOX, manifest)
        limit(cache, 10 * len(BIG))
        upstream.fail(Fault(chunked=True), kind="blob")
        assert await read_blob(cache, BUSYBOX, digest) == BIG
        await settle_fills(cache)
        assert (await cache.get_blob(BUSYBOX, digest)).status is CacheStatus.HIT


async def leave_partial(cache: Cache, upstream: ScriptedUpstream, digest: Digest) -> None:
    """Begin to fetch BIG, and leave what has come."""
    upstream.fail(Fault(stall_at=500_000, gate=Gate()), kind="blob", times=2)
    reader = (await cache.get_blob(BUSYBOX, digest)).reader
    assert reader is not None
    await reader.wait_past(400_000)
    reader.close()


@pytest.mark.parametrize("size_bytes", WRONG_SIZES)
async def test_what_an_earlier_run_left_is_resumed(tmp_path: Path, size_bytes: int) -> None:
    async with ScriptedUpstream() as upstream:
        manifest, digest = add_lie(upstream, size_bytes)
        async with mirror_of(tmp_path, upstream) as cache:
            await cache.get_manifest(BUSYBOX, manifest)
            await leave_partial(cache, upstream, digest)
        async with mirror_of(tmp_path, upstream) as cache:
            limit(cache, 10 * len(BIG))
            assert await read_blob(cache, BUSYBOX, digest) == BIG
            await settle_fills(cache)
            assert (await cache.get_blob(BUSYBOX, digest)).status is CacheStatus.HIT
        gets = [seen for seen in upstream.seen(kind="blob") if seen.method == "GET"]
        # Two before the restart, since the manifest contradicts upstream; then the rest.
        assert [seen.header("range") is None for seen in gets[:3]] == [True, True, False]


async def test_what_an_earlier_run_left_whole_is_fetched_anew_if_nothing_follows_it(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        manifest, digest = add_lie(upstream, 10**9)
        await cache.get_manifest(BUSYBOX, manifest)
    path = tmp_path / "partial" / digest.replace(":", "-")
    path.write_bytes(BIG)
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        add_lie(upstream, 10**9)
        assert await read_blob(cache, BUSYBOX, digest) == BIG
        await settle_fills(cache)
        assert (await cache.get_blob(BUSYBOX, digest)).status is CacheStatus.HIT


async def test_a_head_says_what_a_fill_under_way_knows(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        manifest, digest = add_lie(upstream, 7)
        await cache.get_manifest(BUSYBOX, manifest)
        assert (await cache.head_blob(BUSYBOX, digest)).size_bytes == 7
        gate = Gate()
        upstream.fail(Fault(stall_at=500_000, gate=gate), kind="blob", times=2)
        lookup = await cache.get_blob(BUSYBOX, digest)
        assert lookup.reader is not None
        await lookup.reader.wait_open()
        assert (await cache.head_blob(BUSYBOX, digest)).size_bytes == len(BIG)
        gate.open()
        assert await read_lookup(cache, lookup) == BIG


async def test_an_upstream_is_held_to_the_size_that_it_said_first(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        gate = Gate()
        upstream.fail(Fault(stall_at=500_000, gate=gate, reset_at=500_001), kind="blob")
        lookup = await cache.get_blob(BUSYBOX, digest)
        assert lookup.reader is not None
        await lookup.reader.wait_open()
        lookup.reader.expose()
        upstream.content.holding(REPOSITORY).blobs[digest] = BIG + b"more"
        gate.open()
        with pytest.raises(SizeMismatch):
            await lookup.reader.wait_end()
        lookup.reader.close()


async def test_a_body_that_upstream_cut_short_is_found_by_its_digest(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (BIG,))
        await cache.get_manifest(BUSYBOX, image.manifest)
        upstream.fail(Fault(body=BIG[:-1]), kind="blob", times=None)
        with pytest.raises(DigestMismatch):
            await read_blob(cache, BUSYBOX, image.layers[0])


async def test_what_came_first_does_not_say_where_the_blob_is_kept(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        upstream.fail(Fault(body=b"<h1>Log in</h1>"), kind="blob")
        gate = Gate()
        upstream.fail(Fault(stall_at=500_000, gate=gate), kind="blob")
        lookup = await cache.get_blob(BUSYBOX, digest)
        assert lookup.reader is not None
        await lookup.reader.wait_past(400_000)
        (partial,) = (tmp_path / "partial").iterdir()
        assert partial.stat().st_size > 400_000
        gate.open()
        assert await read_lookup(cache, lookup) == BIG
        await settle_fills(cache)
        assert (await cache.get_blob(BUSYBOX, digest)).status is CacheStatus.HIT
        assert cache._store.space.reserved_bytes == 0
