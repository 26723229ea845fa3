"""A child process that pulls an image through a cache and kills itself at the n-th disk call.

    python -m tests.fakes.crashing_pull DATA UPSTREAM_URL MANIFEST_DIGEST N

Exits 0 where the pull was over before the n-th.
"""

import asyncio
import sys
from pathlib import Path

from engine.descriptor import find_named
from engine.names import Digest
from engine.settings import UpstreamSettings
from tests.fakes.caches import BUSYBOX, open_cache, read_blob, read_content
from tests.fakes.fuse import Fuse, arm


async def pull(data: Path, url: str, manifest: Digest) -> None:
    """Pull the manifest and every blob that it names."""
    settings = UpstreamSettings("docker.io", url, ("docker.io",))
    async with open_cache(data, settings) as cache:
        lookup = await cache.get_manifest(BUSYBOX, manifest)
        assert lookup.content is not None
        for named in find_named(read_content(cache, lookup.content)):
            await read_blob(cache, BUSYBOX, named.digest)


if __name__ == "__main__":
    arm(Fuse(int(sys.argv[4])))
    asyncio.run(pull(Path(sys.argv[1]), sys.argv[2], Digest(sys.argv[3])))
