"""kill -9 before and after every disk call of an eviction: the next start finishes it."""

import asyncio
import shutil
import signal
from itertools import count
from pathlib import Path

import pytest

from tests.fakes.crashing_eviction import BLOB_COUNT, evict_until, make_upstream, pull
from tests.fakes.damage import query
from tests.fakes.small_caches import MIB, disk_bytes, small_cache, stored_digests

pytestmark = pytest.mark.system


async def make_site(data: Path) -> None:
    upstream, _ = make_upstream()
    async with small_cache(data, upstream) as cache:
        await pull(cache)


def test_an_eviction_may_be_killed_at_every_disk_call(tmp_path: Path) -> None:
    template = tmp_path / "template"
    asyncio.run(make_site(template))
    left_counts = set()
    for number in count(1):
        data = tmp_path / str(number)
        shutil.copytree(template, data)
        status = evict_until(data, number)
        assert status in (0, signal.SIGKILL)
        left_counts.add(len(stored_digests(data)))
        asyncio.run(_start_and_check(data))
        shutil.rmtree(data)
        if status == 0:
            break
    # Marks, files and rows: before, in the middle and behind.
    assert left_counts == {5, 4, 3, 2}
    assert number > 15


async def _start_and_check(data: Path) -> None:
    upstream, digests = make_upstream()
    async with small_cache(data, upstream, MIB) as cache:
        # What was marked has gone before anything is served; rows and files agree.
        left = stored_digests(data)
        rows = query(data / "index.sqlite3", "SELECT digest FROM blob WHERE state = 'valid'")
        assert {digest for (digest,) in rows} == left
        assert cache._store.space.used_bytes == disk_bytes(data)
        await pull(cache)
        assert upstream.calls.count("open_blob") == BLOB_COUNT - len(left)
        assert stored_digests(data) == set(digests)
