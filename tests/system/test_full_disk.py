"""A file system that is really full: pulls go on, and storing begins again when there is room."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.names import Digest, Tag
from engine.settings import UpstreamSettings
from tests.fakes.caches import BUSYBOX, open_cache, read_blob, read_content
from tests.fakes.uncached import fills_ended
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import Image, make_bytes

pytestmark = pytest.mark.system

MIB = 1024 * 1024
DISK_BYTES = 24 * MIB
# More than SQLite needs for its own files, less than a layer.
LEFT_BYTES = MIB
LAYERS = (make_bytes(2 * MIB, 1), make_bytes(3 * MIB, 2))
READERS = 5


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("not run: a full disk (only root may mount one)")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill_up(disk: Path, left_bytes: int) -> Path:
    """Have others take all but so much."""
    junk = disk / "junk"
    found = os.statvfs(disk)
    with junk.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - left_bytes)
    return junk


async def pull(cache: Cache, image: Image) -> None:
    """Pull as several clients at once; every byte must be right."""
    lookup = await cache.get_manifest(BUSYBOX, Tag("1"))
    assert lookup.content is not None
    assert read_content(cache, lookup.content) == image.body
    for digest, data in zip(image.layers, LAYERS, strict=True):
        reads = (read_blob(cache, BUSYBOX, digest) for _ in range(READERS))
        assert await asyncio.gather(*reads) == [data] * READERS


async def is_stored(cache: Cache, digest: Digest) -> bool:
    """Whether a blob is here, once no fill is under way."""
    await fills_ended(cache)
    lookup = await cache.get_blob(BUSYBOX, digest)
    if lookup.reader is not None:
        lookup.reader.close()
    return lookup.content is not None


@pytest.mark.parametrize("left_bytes", [LEFT_BYTES, 0], ids=["almost full", "full"])
def test_a_full_disk_costs_no_pull_and_needs_no_hand(
    disk: Path, left_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.disk_health.PAUSE_S", 0.0)

    async def run(upstream_url: str) -> None:
        settings = UpstreamSettings("docker.io", upstream_url, ("docker.io",))
        async with open_cache(disk / "data", settings) as cache:
            junk = fill_up(disk, left_bytes)
            await pull(cache, image)
            assert not await is_stored(cache, image.layers[1])
            assert cache._store.space.reserved_bytes == 0
            junk.unlink()
            await pull(cache, image)
            assert await is_stored(cache, image.layers[1])
        async with open_cache(disk / "data", settings) as cache:
            assert await read_blob(cache, BUSYBOX, image.layers[1]) == LAYERS[1]

    with ThreadedUpstream() as threaded:
        image = threaded.upstream.content.add_image(BUSYBOX.repository, "1", LAYERS)
        asyncio.run(run(threaded.upstream.url))


def test_the_mirror_starts_on_a_full_disk(disk: Path) -> None:
    async def run(upstream_url: str) -> None:
        settings = UpstreamSettings("docker.io", upstream_url, ("docker.io",))
        async with open_cache(disk / "data", settings) as cache:
            await pull(cache, image)
            assert await is_stored(cache, image.layers[1])
        fill_up(disk, 0)
        async with open_cache(disk / "data", settings) as cache:
            await pull(cache, image)

    with ThreadedUpstream() as threaded:
        image = threaded.upstream.content.add_image(BUSYBOX.repository, "1", LAYERS)
        asyncio.run(run(threaded.upstream.url))
