"""A budget held while many times as much streams through: small fills and evictions by thousands.

    python -m tests.bench.churn [--fills N] [--share PERCENT]

Everything goes through a real cache on a real disk; only upstream is in memory. A base image is
pulled again all the time. The peak is of what the files take, looked at every half second, and of
what the budget counts, looked at after each pull.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from engine.cache import Cache
from engine.names import Digest
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.memory_upstream import MemoryUpstream, settle_fills
from tests.fakes.small_caches import disk_bytes, small_cache

_CLIENTS = 16
_MEAN_BYTES = 48 * 1024
_BASE_LAYERS = 5
_BASE_EVERY = 20  # pulls


@dataclass(slots=True)
class Peak:
    """The most that was seen."""

    counted_bytes: int = 0
    disk_bytes: int = 0


class Churn:
    """One run of the clients."""

    def __init__(self, cache: Cache, upstream: MemoryUpstream, fill_count: int) -> None:
        self.peak = Peak()
        self.wrong_count = 0
        self._cache = cache
        self._upstream = upstream
        self._dice = random.Random(1)
        self._base = [self._add(_MEAN_BYTES) for _ in range(_BASE_LAYERS)]
        self._numbers: Iterator[int] = iter(range(fill_count))

    async def run(self, path: Path) -> None:
        """Pull it all."""
        watch = asyncio.create_task(self._watch(path))
        await asyncio.gather(*(self._pull() for _ in range(_CLIENTS)))
        await settle_fills(self._cache)
        watch.cancel()
        await asyncio.wait({watch})

    async def _pull(self) -> None:
        blobs = self._upstream.content.holding(BUSYBOX.repository).blobs
        for number in self._numbers:
            digest = self._add(min(16 * _MEAN_BYTES, int(self._dice.expovariate(1 / _MEAN_BYTES))))
            await self._read(digest)
            del blobs[digest]  # it is never asked for again
            if number % _BASE_EVERY == 0:
                for base in self._base:
                    await self._read(base)

    def _add(self, size_bytes: int) -> Digest:
        data = self._dice.randbytes(max(1, size_bytes))
        return self._upstream.content.add_blob(BUSYBOX.repository, data)

    async def _read(self, digest: Digest) -> None:
        expected = self._upstream.content.holding(BUSYBOX.repository).blobs[digest]
        self.wrong_count += await read_blob(self._cache, BUSYBOX, digest) != expected
        self.peak.counted_bytes = max(self.peak.counted_bytes, self._cache.space.used_bytes)

    async def _watch(self, path: Path) -> None:
        while True:
            self.peak.disk_bytes = max(
                self.peak.disk_bytes, await asyncio.to_thread(disk_bytes, path)
            )
            await asyncio.sleep(0.5)


@click.command()
@click.option("--fills", "fill_count", default=20_000, show_default=True)
@click.option("--share", "share_percent", default=5.0, show_default=True, help="of what flows")
def main(fill_count: int, share_percent: float) -> None:
    """Measure whether the budget holds."""
    maxsize_bytes = int(fill_count * _MEAN_BYTES * share_percent / 100)
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as directory:
        asyncio.run(measure(Path(directory), fill_count, maxsize_bytes))


async def measure(path: Path, fill_count: int, maxsize_bytes: int) -> None:
    """Run, and say what came of it."""
    upstream = MemoryUpstream()
    async with small_cache(path, upstream, maxsize_bytes) as cache:
        churn = Churn(cache, upstream, fill_count)
        begun_at = time.monotonic()
        await churn.run(path)
        took_s = time.monotonic() - begun_at
        await cache.evictor.evict_once()  # behind the round that may be under way
        counted_bytes, final_bytes = cache.space.used_bytes, disk_bytes(path)
        fetched_count = upstream.calls.count("open_blob")
        evicted_count = cache.evictor.total.counts.total()
    click.echo(f"budget     {maxsize_bytes:>13,} bytes, {_CLIENTS} clients")
    click.echo(
        f"peak       {churn.peak.disk_bytes:>13,} of files, {churn.peak.counted_bytes:,} counted"
    )
    click.echo(f"final      {final_bytes:>13,} of files, {counted_bytes:,} counted")
    click.echo(f"fetched    {fetched_count:>13,}, evicted {evicted_count:,}")
    click.echo(
        f"{took_s:.0f} s, {60 * fetched_count / took_s:,.0f} fills/min, {churn.wrong_count} wrong"
    )


if __name__ == "__main__":
    main()
