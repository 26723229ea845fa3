"""A child that starts on a damaged data directory and kills itself at the n-th disk call."""

from pathlib import Path

from engine import index_connections, snapshot
from engine.cache import Cache
from tests.fakes.caches import BUSYBOX, read_blob, read_content
from tests.fakes.fuse import Fuse, run_until
from tests.fakes.memory_upstream import MemoryUpstream, cache_before, settle_fills
from tests.fakes.upstream_content import Image, make_bytes

LAYERS = (make_bytes(50_000, seed=1), make_bytes(60_000, seed=2), b"small")


def make_upstream() -> tuple[MemoryUpstream, Image]:
    """Make the same upstream in every process."""
    upstream = MemoryUpstream()
    return upstream, upstream.content.add_image(BUSYBOX.repository, "1", LAYERS)


async def pull(cache: Cache, image: Image) -> None:
    """Read everything; every byte must be right."""
    lookup = await cache.get_manifest(BUSYBOX, image.manifest)
    assert lookup.content is not None
    assert read_content(cache, lookup.content) == image.body
    assert await read_blob(cache, BUSYBOX, image.config) == b"{}"
    for digest, data in zip(image.layers, LAYERS, strict=True):
        assert await read_blob(cache, BUSYBOX, digest) == data
    await settle_fills(cache)


async def recover(data: Path) -> None:
    """One run of a mirror."""
    upstream, image = make_upstream()
    async with cache_before(data, upstream) as cache:
        await cache._upkeep._reconciler.run_once()
        await cache._upkeep._snapshots.take_once()
        await pull(cache, image)


def recover_until(data: Path, number: int) -> int:
    """Recover in a child that is killed at disk call `number`; return its wait status."""

    async def work(fuse: Fuse) -> None:
        vars(snapshot)["back_up"] = fuse.wrap(index_connections.back_up)
        await recover(data)

    return run_until(number, work)
