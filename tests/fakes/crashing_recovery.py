"""A child process that starts on a damaged data directory and kills itself at the n-th disk call.

It is forked, since starting Python anew for each of a hundred calls would take minutes.
"""

import asyncio
import os
import traceback
from pathlib import Path

from engine import index_connections, snapshot
from engine.cache import Cache
from tests.fakes.caches import BUSYBOX, read_blob, read_content
from tests.fakes.crashing_pull import Fuse, arm
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
    """Recover in a child that is killed at disk call `number`; return its wait status.

    0 where all was over before that call.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fuse = Fuse(number)
            arm(fuse)
            vars(snapshot)["back_up"] = fuse.wrap(index_connections.back_up)
            asyncio.run(recover(data))
            status = 0
        except BaseException:  # noqa: BLE001  # whatever it is, the child must not return
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]
