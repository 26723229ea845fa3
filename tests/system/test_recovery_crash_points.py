"""kill -9 before and after every disk call of a recovery: the next start finishes it."""

import asyncio
import os
import shutil
import signal
from itertools import count
from pathlib import Path

import pytest

from engine.index_connections import find_damage
from tests.fakes.crashing_recovery import LAYERS, make_upstream, pull, recover_until
from tests.fakes.damage import blob_path, flip_bit, iter_blob_files, query
from tests.fakes.memory_upstream import cache_before
from tests.fakes.upstream_content import digest_of

pytestmark = pytest.mark.system


async def make_site(data: Path) -> None:
    """A mirror that held the image, after all that can happen to it at once."""
    upstream, image = make_upstream()
    async with cache_before(data, upstream) as cache:
        await pull(cache, image)
    (data / "index.sqlite3-wal").write_bytes(b"of another time")
    os.truncate(data / "index.sqlite3", 6_000)
    # The snapshot lacks a row, and has one whose file is gone; and there is rot.
    query(data / "index.snapshot", "DELETE FROM blob WHERE digest = ?", image.config)
    blob_path(data, image.layers[1]).unlink()
    flip_bit(blob_path(data, image.layers[0]), 30_000)


@pytest.mark.parametrize("has_snapshot", [True, False], ids=["snapshot", "no snapshot"])
def test_a_recovery_may_be_killed_at_every_disk_call(tmp_path: Path, has_snapshot: bool) -> None:
    template = tmp_path / "template"
    asyncio.run(make_site(template))
    if not has_snapshot:
        (template / "index.snapshot").unlink()
    for number in count(1):
        data = tmp_path / str(number)
        shutil.copytree(template, data)
        status = recover_until(data, number)
        assert status in (0, signal.SIGKILL)
        asyncio.run(_start_and_check(data))
        shutil.rmtree(data)
        if status == 0:
            break
    # Setting aside, restoring, rows, quarantine, two fills, two snapshots: all were tried.
    assert number > 40


async def _start_and_check(data: Path) -> None:
    upstream, image = make_upstream()
    async with cache_before(data, upstream) as cache:
        await cache._upkeep._reconciler.run_once()
        await pull(cache, image)
    # Nothing that is here and right is downloaded.
    assert upstream.calls.count("open_blob") <= 2
    assert "get_manifest" not in upstream.calls
    index = data / "index.sqlite3"
    assert find_damage(index, is_closed=True) is None
    assert find_damage(data / "index.snapshot", is_closed=True) is None
    files = {path.name for path in iter_blob_files(data)}
    rows = {str(digest).partition(":")[2] for (digest,) in query(index, "SELECT digest FROM blob")}
    assert files == rows == {image.manifest.hex, *(digest_of(b).hex for b in (*LAYERS, b"{}"))}
    assert list((data / "partial").iterdir()) == []
