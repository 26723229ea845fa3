"""A child process that pulls an image through a cache and kills itself at the n-th disk call.

    python -m tests.fakes.crashing_pull DATA UPSTREAM_URL MANIFEST_DIGEST N

Every call that changes a file, a directory or the index counts twice: once before and once after
it. Exits 0 where the pull was over before the n-th.
"""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.descriptor import find_named
from engine.index_writer import WriterConnection
from engine.names import Digest
from engine.settings import UpstreamSettings
from tests.fakes.caches import BUSYBOX, open_cache, read_blob, read_content


class Fuse:
    """Kills the process when it has been passed so many times."""

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining

    def burn(self) -> None:
        """Pass once."""
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Burn before and after each call."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.burn()
            result = call(*args, **kwargs)
            self.burn()
            return result

        return wrapped


def arm(fuse: Fuse) -> None:
    """Put the fuse into every door to the disk."""
    for name in ("pwrite", "fsync", "fchmod", "ftruncate"):
        setattr(os, name, fuse.wrap(getattr(os, name)))
    for name in ("mkdir", "unlink", "rename"):
        setattr(Path, name, fuse.wrap(getattr(Path, name)))
    tempfile.mkstemp = fuse.wrap(tempfile.mkstemp)
    # A group of index writes, in the writer's thread.
    WriterConnection._apply = fuse.wrap(WriterConnection._apply)  # type: ignore[method-assign]  # wrapped


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
