"""What a running cache tells of itself: fills, upstreams, upkeep."""

import asyncio
from pathlib import Path

import pytest

from engine.errors import UpstreamRateLimited, UpstreamUnavailable
from engine.names import Repository, Tag
from engine.upstream.limits import Limits
from engine.upstream.registry import Registry
from tests.fakes.caches import BUSYBOX, mirror_of, read_fill
from tests.fakes.memory_upstream import MemoryUpstream, cache_before, settle_fills
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio


def _soon() -> float:
    return asyncio.get_running_loop().time() + 0.5


async def test_a_fill_is_seen_with_its_progress_and_is_gone_when_it_is_committed(
    tmp_path: Path,
) -> None:
    layer = make_bytes(300_000, seed=1)
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(BUSYBOX.repository, "1", (layer,))
        await cache.get_manifest(BUSYBOX, Tag("1"))
        gate = Gate()
        upstream.fail(Fault(stall_at=200_000, gate=gate), kind="blob")
        lookup = await cache.get_blob(BUSYBOX, image.layers[0])
        assert lookup.reader is not None
        await lookup.reader.wait_past(100_000)
        (fill,) = cache.look().fills
        assert (fill.digest, fill.location, fill.size_bytes) == (
            image.layers[0],
            BUSYBOX,
            len(layer),
        )
        assert 100_000 < fill.written_bytes <= 200_000
        assert (fill.reader_count, fill.is_stored) == (1, True)
        gate.open()
        assert await read_fill(lookup.reader) == layer
        await cache.settle(image.layers[0])
        assert cache.look().fills == ()
        assert (await cache.get_blob(BUSYBOX, image.layers[0])).content is not None


async def test_an_upstream_that_fails_or_limits_is_seen_with_its_cause() -> None:
    quick = Limits(breaker_after_s=0.0, backoff_first_s=0.001)
    async with ScriptedUpstream() as upstream:
        upstream.content.add_image("library/busybox", "1", (b"layer",))
        registry = Registry(upstream.settings(), quick)
        try:
            assert [lane.is_open for lane in registry.look().lanes] == [False, False]
            upstream.fail(Fault(status=503), kind="manifest", times=100)
            name = Repository("library/busybox")
            with pytest.raises(UpstreamUnavailable):
                await registry.get_manifest(name, Tag("1"), deadline=_soon())
            (control, blob) = registry.look().lanes
            assert (control.name, control.is_open, blob.is_open) == ("control", True, False)
            assert "503" in control.cause
            assert control.wait_s > 0
        finally:
            await registry.aclose()


async def test_a_pause_after_a_429_is_seen_by_its_kind() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.content.add_image("library/busybox", "1", (b"layer",))
        upstream.fail(Fault(status=429), kind="manifest")
        registry = Registry(upstream.settings())
        try:
            with pytest.raises(UpstreamRateLimited):
                await registry.get_manifest(
                    Repository("library/busybox"), Tag("1"), deadline=_soon()
                )
            (pause,) = registry.look().pauses
            assert pause.kind == "manifest"
            assert 0 < pause.left_s <= 60
        finally:
            await registry.aclose()


async def test_upkeep_tells_what_it_went_through(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    async with cache_before(tmp_path, upstream) as cache:
        image = upstream.content.add_image(BUSYBOX.repository, "1", (b"layer",))
        await cache.get_manifest(BUSYBOX, Tag("1"))
        await cache.get_blob(BUSYBOX, image.layers[0])
        await settle_fills(cache)
        await cache._upkeep._reconciler.run_once()
        await cache._upkeep._scrub.run_once()
        view = cache.look()
    assert not view.reconcile.is_running
    assert view.reconcile.file_count == 2
    assert view.reconcile.finished_at is not None
    assert (view.scrub.is_running, view.scrub.checked_count) == (False, 2)
    assert view.scrub.damaged_count == 0
    assert view.scrub.finished_at is not None
