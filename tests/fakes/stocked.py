"""A stopped cache with two upstreams' images in it, as tools find it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine.cache import Cache
from engine.names import Digest, Location, Repository, Tag
from engine.settings import EngineSettings, UpstreamSettings
from tests.fakes.caches import BUSYBOX, QUICK, read_blob
from tests.fakes.memory_upstream import NO_SCRUB, SETTINGS, MemoryUpstream, settle_fills
from tests.fakes.small_caches import NO_MINFREE
from tests.fakes.upstream_content import Image, make_bytes

OTHER = Location("docker.io", Repository("library/other"))
APP = Location("ghcr.io", Repository("org/app"))
BASE = make_bytes(30_000, seed=1)  # a layer that all images share
_GHCR = UpstreamSettings("ghcr.io", "http://127.0.0.1:1", ("ghcr.io",))


@dataclass(frozen=True, slots=True)
class Stock:
    """A data directory and the images in it, by the name that a client pulls them by."""

    path: Path
    images: dict[str, Image]

    def all_digests(self) -> set[Digest]:
        """Everything that was stored."""
        return {
            digest
            for image in self.images.values()
            for digest in (image.manifest, image.config, *image.layers)
        }


class Upstreams:
    """Both upstreams, in memory."""

    def __init__(self) -> None:
        self.by_name = {
            settings.namespace: MemoryUpstream(settings) for settings in (SETTINGS, _GHCR)
        }

    def connect(self, settings: UpstreamSettings) -> MemoryUpstream:
        """Be the upstreams that a cache connects to."""
        return self.by_name[settings.namespace]

    @asynccontextmanager
    async def cache(self, path: Path, maxsize_bytes: int = 10**9) -> AsyncIterator[Cache]:
        """Open the cache."""
        eviction = replace(NO_MINFREE, maxsize_bytes=maxsize_bytes, maxsize_fraction=None)
        settings = EngineSettings(path, (SETTINGS, _GHCR), eviction, NO_SCRUB)
        cache = await Cache.open(settings, connect=self.connect, patience=QUICK)
        try:
            yield cache
        finally:
            await cache.aclose()


async def pull_image(cache: Cache, upstreams: Upstreams, where: Location, tag: str) -> Image:
    """Add an image with the base layer and one of its own; pull it, to its last commit."""
    own = f"{where}:{tag}".encode() * 500
    upstream = upstreams.by_name[where.upstream]
    config = b'{"of": "%b"}' % own[:30]
    image = upstream.content.add_image(where.repository, tag, (BASE, own), config)
    await cache.get_manifest(where, Tag(tag))
    for digest in (image.config, *image.layers):
        await read_blob(cache, where, digest)
    await settle_fills(cache)
    return image


def stock(path: Path) -> Stock:
    """Fill a cache in `path`, and close it."""
    return asyncio.run(_stock(path))


async def _stock(path: Path) -> Stock:
    upstreams, images = Upstreams(), {}
    async with upstreams.cache(path) as cache:
        for where, tag in ((BUSYBOX, "1.34"), (BUSYBOX, "1.35"), (OTHER, "1"), (APP, "v1")):
            images[f"{where}:{tag}"] = await pull_image(cache, upstreams, where, tag)
    return Stock(path, images)
