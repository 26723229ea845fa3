"""Who falls out of the window of what is not stored goes round, and gets the same bytes."""

from contextlib import aclosing
from pathlib import Path

import pytest

from engine.errors import BlockMismatch, FellBehind, UpstreamUnavailable
from engine.fill import HELD_BACK_BYTES, MAX_DETOURS
from engine.window import BLOCK_BYTES, MAX_BLOCKS
from tests.fakes.caches import BUSYBOX, mirror_of, read_fill
from tests.fakes.uncached import limit, open_reader, read_part
from tests.fakes.upstream import Fault, ScriptedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

BIG = make_bytes(3 * MAX_BLOCKS * BLOCK_BYTES + 12_345)
REPOSITORY = BUSYBOX.repository


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the fastest wait for nobody."""
    monkeypatch.setattr("engine.grace.MAX_S", 0.0)


async def test_who_falls_out_of_the_window_goes_on_by_a_range_of_its_own(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        slow, fast = await open_reader(cache, digest), await open_reader(cache, digest)
        first = await read_part(slow, 0, 100_000)
        assert await read_fill(fast) == BIG
        assert first + await read_part(slow, 100_000, len(BIG)) == BIG
        slow.close()
        assert slow._fill.detour_count == 0
        ranges = [seen.header("range") for seen in upstream.seen(kind="blob")]
        assert ranges == [None, f"bytes=0-{len(BIG) - HELD_BACK_BYTES - 1}"]


async def test_a_slow_reader_of_a_blob_of_unknown_size_finds_back(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        upstream.fail(Fault(chunked=True), kind="blob")
        slow, fast = await open_reader(cache, digest), await open_reader(cache, digest)
        await read_part(fast, 0, len(BIG) - HELD_BACK_BYTES)
        assert await read_part(slow, 0, len(BIG)) == BIG
        slow.close()
        fast.close()


async def test_a_range_of_its_own_that_breaks_is_resumed(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        slow, fast = await open_reader(cache, digest), await open_reader(cache, digest)
        assert await read_fill(fast) == BIG
        upstream.fail(Fault(truncate_at=1_500_000), kind="blob", times=2)
        assert await read_fill(slow) == BIG
        assert upstream.count(kind="blob") == 4


async def test_a_range_of_its_own_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        slow, fast = await open_reader(cache, digest), await open_reader(cache, digest)
        assert await read_fill(fast) == BIG
        upstream.fail(Fault(truncate_at=0), kind="blob", times=None)
        with pytest.raises(UpstreamUnavailable):
            await read_fill(slow)
        assert slow._fill.detour_count == 0


async def test_no_byte_leaves_of_a_range_that_differs_from_what_was_verified(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        slow, fast = await open_reader(cache, digest), await open_reader(cache, digest)
        assert await read_fill(fast) == BIG
        assert await read_part(slow, 0, BLOCK_BYTES) == BIG[:BLOCK_BYTES]
        upstream.fail(Fault(corrupt_at=5), kind="blob")
        async with aclosing(slow.pieces(BLOCK_BYTES, None)) as pieces:
            with pytest.raises(BlockMismatch):
                await anext(pieces)
        slow.close()


async def test_so_many_may_fall_behind_and_the_next_is_cut(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        limit(cache, 0)
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        slow = [await open_reader(cache, digest) for _ in range(MAX_DETOURS + 1)]
        assert await read_fill(await open_reader(cache, digest)) == BIG
        detours = [reader.pieces(0, None) for reader in slow]
        for detour in detours[:-1]:
            await anext(detour)
        with pytest.raises(FellBehind):
            await anext(detours[-1])
        for reader, detour in zip(slow, detours, strict=True):
            await detour.aclose()
            reader.close()
        assert slow[0]._fill.detour_count == 0
