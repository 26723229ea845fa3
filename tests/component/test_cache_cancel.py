"""A client that leaves at any moment harms neither the cache nor the next client."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.names import Tag
from tests.fakes.caches import BUSYBOX, mirror_of, read_blob, read_content
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

REPOSITORY = BUSYBOX.repository
LAYER = make_bytes(200_000)


async def _cancel_after(turns: int, work: Awaitable[object]) -> bool:
    """Cancel `work` after so many turns of the loop; tell whether it had ended by itself."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    is_done = task.done()
    task.cancel()
    await asyncio.wait({task})
    return is_done


async def _cancel_everywhere(
    tmp_path: Path, work: Callable[[Cache], Awaitable[object]], upstream: ScriptedUpstream
) -> list[Path]:
    """Cancel `work` on a fresh cache after each number of turns; check the cache each time."""
    directories, turns, is_done = [], 0, False
    image = upstream.content.add_image(REPOSITORY, "1", (LAYER,))
    while not is_done:
        directory = tmp_path / str(turns)
        directories.append(directory)
        async with mirror_of(directory, upstream) as cache:
            is_done = await _cancel_after(turns, work(cache))
            lookup = await cache.get_manifest(BUSYBOX, Tag("1"))
            assert lookup.content is not None
            assert read_content(cache, lookup.content) == image.body
            assert await read_blob(cache, BUSYBOX, image.layers[0]) == LAYER
        turns += 1 + turns // 4
    return directories


async def test_a_manifest_request_may_be_cancelled_at_any_await(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        directories = await _cancel_everywhere(
            tmp_path, lambda cache: cache.get_manifest(BUSYBOX, Tag("1")), upstream
        )
    assert len(directories) > 3


async def test_a_reader_may_leave_at_any_await(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        image = upstream.content.add_image(REPOSITORY, "1", (LAYER,))
        directories = await _cancel_everywhere(
            tmp_path, lambda cache: read_blob(cache, BUSYBOX, image.layers[0]), upstream
        )
    assert len(directories) > 3
    for directory in directories:
        assert not list((directory / "partial").iterdir())


async def test_the_cache_may_be_closed_at_any_moment_of_a_fill(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        image = upstream.content.add_image(REPOSITORY, "1", (LAYER,))
        for turns in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256):
            directory = tmp_path / str(turns)
            async with mirror_of(directory, upstream) as cache:
                lookup = await cache.get_blob(BUSYBOX, image.layers[0])
                assert lookup.reader is not None
                lookup.reader.close()
                for _ in range(turns):
                    await asyncio.sleep(0)
            async with mirror_of(directory, upstream) as cache:
                assert await read_blob(cache, BUSYBOX, image.layers[0]) == LAYER
