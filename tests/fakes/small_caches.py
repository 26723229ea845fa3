"""A cache with a small budget in front of an upstream in memory, and what it holds on disk."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from engine.cache import Cache
from engine.names import Digest
from engine.settings import EngineSettings, EvictionSettings
from tests.fakes.caches import BUSYBOX, QUICK, read_blob
from tests.fakes.memory_upstream import NO_SCRUB, MemoryUpstream, settle_fills
from tests.fakes.upstream_content import make_bytes

KIB = 1024
MIB = 1024 * KIB
# Of the file system that the tests run on, nothing is asked.
NO_MINFREE = EvictionSettings(minfree_bytes=0, minfree_fraction=None, interval_s=3600.0)


@asynccontextmanager
async def small_cache(
    path: Path, upstream: MemoryUpstream, maxsize_bytes: int = MIB, **eviction: object
) -> AsyncIterator[Cache]:
    """Open a cache of `maxsize_bytes`; other settings of eviction by keyword."""
    settings = replace(NO_MINFREE, maxsize_bytes=maxsize_bytes, maxsize_fraction=None)
    settings = replace(settings, **eviction)  # type: ignore[arg-type]  # by keyword
    cache = await Cache.open(
        EngineSettings(path, (upstream.settings,), settings, NO_SCRUB),
        connect=upstream.connect,
        patience=QUICK,
    )
    try:
        yield cache
    finally:
        await cache.aclose()


async def pull_bytes(
    cache: Cache, upstream: MemoryUpstream, seed: int, size_bytes: int = 100 * KIB
) -> Digest:
    """Add a blob to upstream and pull it, to its commit."""
    data = make_bytes(size_bytes, seed)
    digest = upstream.content.add_blob(BUSYBOX.repository, data)
    assert await read_blob(cache, BUSYBOX, digest) == data
    await settle_fills(cache)
    return digest


def disk_bytes(path: Path) -> int:
    """What the files of a data directory take, but for the index.

    Files may go and be renamed meanwhile, and none counts twice.
    """
    roots = [str(path / name) for name in ("blobs", "partial", "quarantine")]
    files: dict[int, int] = {}
    while roots:
        with os.scandir(roots.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    roots.append(entry.path)
                    continue
                with suppress(FileNotFoundError):
                    files[entry.inode()] = entry.stat().st_blocks * 512
    return sum(files.values())


def stored_digests(path: Path) -> set[Digest]:
    """The blobs that have a file."""
    return {Digest(f"sha256:{file.name}") for file in (path / "blobs/sha256").glob("*/*")}
