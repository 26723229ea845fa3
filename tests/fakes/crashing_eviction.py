"""A child process that evicts and kills itself at the n-th disk call."""

import time
from pathlib import Path

from engine.cache import Cache
from engine.eviction import IN_USE_S
from engine.names import Digest
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.fuse import run_until
from tests.fakes.memory_upstream import MemoryUpstream, settle_fills
from tests.fakes.small_caches import KIB, small_cache
from tests.fakes.upstream_content import make_bytes

BLOB_COUNT = 5
BUDGET_BYTES = 300 * KIB  # of 500 KiB that are stored; the low watermark leaves two
_BLOBS = [make_bytes(100 * KIB, seed) for seed in range(BLOB_COUNT)]


def make_upstream() -> tuple[MemoryUpstream, list[Digest]]:
    """Make the same upstream in every process."""
    upstream = MemoryUpstream()
    return upstream, [upstream.content.add_blob(BUSYBOX.repository, data) for data in _BLOBS]


async def pull(cache: Cache) -> None:
    """Read everything; every byte must be right."""
    _, digests = make_upstream()
    for digest, data in zip(digests, _BLOBS, strict=True):
        assert await read_blob(cache, BUSYBOX, digest) == data
    await settle_fills(cache)


async def evict(data: Path) -> None:
    """One run of a mirror whose budget has shrunk."""
    upstream, _ = make_upstream()
    async with small_cache(data, upstream, BUDGET_BYTES) as cache:
        # At a time when nothing is in use any more.
        await cache.evictor.evict_once(time.time() + IN_USE_S + 1)


def evict_until(data: Path, number: int) -> int:
    """Evict in a child that is killed at disk call `number`; return its wait status."""
    return run_until(number, lambda _: evict(data))
