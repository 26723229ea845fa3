"""kill -9 before and after every call that changes the disk: the next start needs no help."""

import asyncio
import hashlib
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from engine.descriptor import find_named
from engine.names import Digest
from engine.settings import UpstreamSettings
from tests.fakes.caches import BUSYBOX, open_cache, read_blob, read_content
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.system

SIGKILLED = -9


def test_a_pull_may_be_killed_at_every_disk_call(tmp_path: Path) -> None:
    with ThreadedUpstream() as threaded:
        upstream = threaded.upstream
        image = upstream.content.add_image(BUSYBOX.repository, "1", (make_bytes(300_000),))
        for number in count(1):
            data = tmp_path / str(number)
            argv = [sys.executable, "-m", "tests.fakes.crashing_pull"]
            argv += [str(data), upstream.url, image.manifest, str(number)]
            child = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            assert child.returncode in (0, SIGKILLED), child.stderr
            asyncio.run(_pull_and_check(data, upstream.url, image.manifest))
            if child.returncode == 0:
                break
        # Directories, three commits with fsync and rename, and the index's writes: all were tried.
        assert number > 40


async def _pull_and_check(data: Path, url: str, manifest: Digest) -> None:
    """Start on what the crash left: everything arrives right, and what is stored is right."""
    async with open_cache(data, UpstreamSettings("docker.io", url, ("docker.io",))) as cache:
        lookup = await cache.get_manifest(BUSYBOX, manifest)
        assert lookup.content is not None
        body = read_content(cache, lookup.content)
        assert _sha256(body) == manifest
        for named in find_named(body):
            assert _sha256(await read_blob(cache, BUSYBOX, named.digest)) == named.digest
    assert list((data / "partial").iterdir()) == []
    for path in (data / "blobs" / "sha256").glob("*/*"):
        assert _sha256(path.read_bytes()) == f"sha256:{path.name}"


def _sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
