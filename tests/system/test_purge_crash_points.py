"""A purge that is killed at any disk call happened, or did not; the next start finishes it."""

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from engine.audit import Audit
from engine.blobdir import BlobDirectory
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.layout import Layout
from tests.fakes.caches import BUSYBOX
from tests.fakes.crashing_purge import purge_until
from tests.fakes.damage import blob_path, iter_blob_files
from tests.fakes.stocked import APP, OTHER, Stock, Upstreams, stock

pytestmark = pytest.mark.system

_CALLS = 60  # more than a purge makes


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return stock(tmp_path_factory.mktemp("stock") / "data")


async def restart_and_look(path: Path) -> tuple[bool, int]:
    """Start a mirror; whether the repository is gone, and how many files are left."""
    async with Upstreams().cache(path) as cache:
        is_gone = BUSYBOX not in await cache.list_repositories()
        assert {OTHER, APP} <= set(await cache.list_repositories())
    async with ReadOnlyConnections(Layout(path).index_path) as connections:
        audit = Audit(IndexInspection(connections), BlobDirectory(Layout(path)))
        assert await audit.run() == []
    return is_gone, sum(1 for _ in iter_blob_files(path))


def test_killed_at_any_disk_call_it_is_whole_or_not_at_all(stocked: Stock, tmp_path: Path) -> None:
    everything = len(stocked.all_digests())
    outcomes = set()
    for number in range(1, _CALLS):
        path = tmp_path / str(number)
        shutil.copytree(stocked.path, path)
        status = purge_until(path, number)
        outcome = asyncio.run(restart_and_look(path))
        assert outcome in ((False, everything), (True, everything - 6))
        outcomes.add(outcome)
        shared = stocked.images["ghcr.io/org/app:v1"].layers[0]
        assert blob_path(path, shared).exists()
        shutil.rmtree(path)
        if status == 0:
            break
        assert status == signal.SIGKILL
    else:
        pytest.fail("the purge never came to its end")
    assert len(outcomes) == 2
