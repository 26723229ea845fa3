"""What eviction asks of the index, on real files."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from engine.index import Index
from engine.index_eviction import IndexEviction
from engine.index_upkeep import IndexUpkeep
from engine.migrate import load_migrations, migrate
from engine.names import Digest
from engine.policies import FIRST, Move, Order, Queue
from tests.component.index_examples import (
    ELSEWHERE,
    HERE,
    blob_of,
    digest_of,
    link_of,
    manifest_link_of,
    tag_of,
)

pytestmark = pytest.mark.anyio

BLOCK = 4096


@asynccontextmanager
async def open_index(tmp_path: Path) -> AsyncIterator[tuple[Index, IndexEviction]]:
    index = await Index.open(tmp_path / "index.sqlite3")
    try:
        yield index, IndexEviction(index.connections)
    finally:
        await index.aclose()


async def store(index: Index, number: int, *, size_bytes: int = 10, now: float = 1_000.0) -> Digest:
    blob = replace(blob_of(number, now=now), size_bytes=size_bytes)
    await index.commit_blob(HERE, blob, link_of(number))
    return blob.digest


async def test_pages_follow_each_order_and_show_every_valid_blob_once(tmp_path: Path) -> None:
    async with open_index(tmp_path) as (index, eviction):
        digests = [await store(index, number, now=1_000 + number // 2) for number in range(6)]
        await index.record_uses({digests[0]: 5_000.0})
        await eviction.move([Move(digests[5], Queue.MAIN, 9.0, 2)])
        await eviction.mark({digests[4]: 2_000.0})
        expected = {
            Order.BY_USE: [digests[1], *sorted(digests[2:4]), digests[5], digests[0]],
            Order.BY_NEW: [*sorted(digests[0:2]), *sorted(digests[2:4])],
            Order.BY_MAIN: [digests[5]],
        }
        for order, wanted in expected.items():
            found, place = [], FIRST
            while page := await eviction.page(order, place, 2):
                assert len(page) <= 2
                found += page
                place = page[-1].place(order)
            assert [candidate.digest for candidate in found] == wanted
        (moved,) = await eviction.page(Order.BY_MAIN, FIRST, 9)
        assert (moved.queued_at, moved.reuse_count, moved.disk_bytes) == (9.0, 2, BLOCK)


async def test_tells_what_all_files_take_before_each_write_returns(tmp_path: Path) -> None:
    told: list[int] = []
    async with open_index(tmp_path) as (index, eviction):
        one = await store(index, 1, size_bytes=1)
        await eviction.count_bytes(BLOCK, lambda total, _: told.append(total))
        assert told == [BLOCK]
        two = await store(index, 2, size_bytes=BLOCK + 1)
        assert told[-1] == 3 * BLOCK
        await store(index, 2, size_bytes=BLOCK + 1)  # once more: it is one file
        assert told[-1] == 3 * BLOCK
        await store(index, 3, size_bytes=0)
        assert told[-1] == 3 * BLOCK
        await eviction.mark({two: 2_000.0})  # its bytes are still on disk
        assert told[-1] == 3 * BLOCK
        await eviction.drop([two], [], 0.0)
        assert told[-1] == BLOCK
        await index.forget_blob(one)
        assert told[-1] == 0


async def test_tells_what_only_corrected_the_index(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    async with open_index(tmp_path) as (index, eviction):
        upkeep = IndexUpkeep(index.connections)
        await eviction.count_bytes(BLOCK, lambda *numbers: told.append(numbers))
        await store(index, 1)
        await upkeep.adopt([blob_of(1), blob_of(2), blob_of(3)])  # one of them has a row
        await upkeep.forget([digest_of(2)])
        await index.forget_blob(digest_of(3))
        assert told[1:] == [(BLOCK, 0), (3 * BLOCK, 2 * BLOCK), (2 * BLOCK, -BLOCK), (BLOCK, 0)]
        # Two that are committed together, one of them a correction.
        await asyncio.gather(upkeep.adopt([blob_of(4)]), store(index, 5))
        assert told[-1][0] == 3 * BLOCK
        assert sum(corrected for _, corrected in told) == 2 * BLOCK


async def test_another_block_size_counts_everything_anew(tmp_path: Path) -> None:
    told: list[int] = []
    async with open_index(tmp_path) as (index, eviction):
        await store(index, 1, size_bytes=700)
        await eviction.count_bytes(512, lambda total, _: told.append(total))
        await store(index, 2, size_bytes=1)
    assert told == [1024, 1536]
    async with open_index(tmp_path) as (_, eviction):
        await eviction.count_bytes(512, lambda total, _: told.append(total))
    assert told[-1] == 1536


async def test_marks_only_what_was_not_used_since_and_nobody_finds_it_then(tmp_path: Path) -> None:
    async with open_index(tmp_path) as (index, eviction):
        one, two = await store(index, 1), await store(index, 2)
        await index.record_uses({two: 1_001.0})
        assert await eviction.mark({one: 1_000.0, two: 1_000.0, digest_of(3): 1_000.0}) == {one}
        assert [(await index.find(HERE, digest))[1] is None for digest in (one, two)] == [1, 0]
        assert await eviction.list_leaving() == [one]
        await store(index, 1)  # it was fetched again meanwhile
        assert await eviction.list_leaving() == []


async def test_what_was_evicted_and_is_fetched_again_enters_main(tmp_path: Path) -> None:
    async with open_index(tmp_path) as (index, eviction):
        one, two = await store(index, 1), await store(index, 2)
        await eviction.drop([one, two], [one], 2_000.0)
        await store(index, 1, now=3_000.0)
        await store(index, 2, now=3_000.0)
        (main,) = await eviction.page(Order.BY_MAIN, FIRST, 9)
        assert (main.digest, main.queued_at) == (one, 3_000.0)
        # That was it: the second time it is not remembered any more.
        await eviction.drop([one], [], 4_000.0)
        await store(index, 1)
        assert await eviction.page(Order.BY_MAIN, FIRST, 9) == []


async def test_no_more_is_remembered_than_is_stored(tmp_path: Path) -> None:
    async with open_index(tmp_path) as (index, eviction):
        digests = [await store(index, number) for number in range(4)]
        await store(index, 9)
        await eviction.drop(digests[:1], digests[:1], 2_000.0)
        await eviction.drop(digests[1:], digests[1:], 1_999.0)
        await eviction.forget_oldest()
        for number in range(4):
            await store(index, number)
        assert [each.digest for each in await eviction.page(Order.BY_MAIN, FIRST, 9)] == digests[:1]


async def test_a_use_counts_once_a_batch_and_not_for_the_pull_that_stored_it(
    tmp_path: Path,
) -> None:
    async with open_index(tmp_path) as (index, eviction):
        one = await store(index, 1, now=1_000.0)
        counts = []
        for used_at in (1_005.0, 1_011.0, 1_020.0, 1_030.0, 1_040.0):
            await index.record_uses({one: used_at})
            ((candidate),) = await eviction.page(Order.BY_NEW, FIRST, 9)
            counts.append(candidate.reuse_count)
        assert counts == [0, 1, 2, 3, 3]


async def test_unused_blobs_come_with_the_upstreams_that_link_them(tmp_path: Path) -> None:
    async with open_index(tmp_path) as (index, eviction):
        one, two, _ = [await store(index, number, now=1_000.0 + number) for number in range(3)]
        await index.commit_blob(ELSEWHERE, blob_of(1, now=1_001.0), link_of(1))
        found = await eviction.page_unused(1_001.0, FIRST, 9)
        assert [(candidate.digest, sorted(upstreams)) for candidate, upstreams in found] == [
            (one, ["docker.io"]),
            (two, ["docker.io", "ghcr.io"]),
        ]
        assert await eviction.page_unused(1_001.0, found[-1][0].place(Order.BY_USE), 9) == []


async def test_a_blob_without_a_link_has_no_upstream(tmp_path: Path) -> None:
    async with open_index(tmp_path) as (index, eviction):
        one = await store(index, 1)
        with closing(sqlite3.connect(tmp_path / "index.sqlite3")) as connection, connection:
            connection.execute("DELETE FROM link")
        ((candidate, upstreams),) = await eviction.page_unused(2_000.0, FIRST, 9)
        assert (candidate.digest, upstreams) == (one, [])


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("docker.io/library/busybox:1.*", [1, 2]),
        ("docker.io/*:1.3[!6]", [1]),
        ("*:latest", [3]),
        ("ghcr.io/library/busybox:latest", [3]),
        ("docker.io/library/busybox:1", []),
    ],
)
async def test_finds_what_pinned_tags_mean(tmp_path: Path, glob: str, expected: list[int]) -> None:
    async with open_index(tmp_path) as (index, eviction):
        await index.record_tag(HERE, tag_of(1, "1.35"))
        await index.record_tag(HERE, tag_of(2, "1.36"))
        await index.record_tag(ELSEWHERE, tag_of(3, "latest"))
        assert sorted(await eviction.find_pinned(glob)) == sorted(map(digest_of, expected))


async def test_lists_the_manifests_that_were_used_page_by_page(tmp_path: Path) -> None:
    async with open_index(tmp_path) as (index, eviction):
        for number in range(5):
            await store(index, number, now=1_000.0 + number)
        for number in (0, 3, 4):
            await index.commit_manifest(
                HERE, blob_of(number, now=1_000.0 + number), manifest_link_of(number), [], None
            )
        place, found = (1_000.5, ""), list[Digest]()
        while True:
            last, manifests = await eviction.page_used_manifests(place, 2)
            if last == place:
                break
            place, found = last, found + manifests
        assert found == [digest_of(3), digest_of(4)]


async def test_an_older_index_is_counted_and_queued_as_it_is_migrated(tmp_path: Path) -> None:
    path, told = tmp_path / "index.sqlite3", list[int]()
    migrate(path, 0.0, load_migrations()[:1])
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, use_count in ((1, 1), (2, 9)):
            connection.execute(
                "INSERT INTO blob (digest, size_bytes, is_public, state, stored_at, used_at,"
                " use_count) VALUES (?, 5000, 0, 'valid', ?, 50, ?)",
                (digest_of(number), 10 - number, use_count),
            )
    async with open_index(tmp_path) as (_, eviction):
        await eviction.count_bytes(BLOCK, lambda total, _: told.append(total))
        page = await eviction.page(Order.BY_NEW, FIRST, 9)
    assert told == [4 * BLOCK]
    assert [(each.digest, each.queued_at, each.reuse_count) for each in page] == [
        (digest_of(2), 8.0, 3),
        (digest_of(1), 9.0, 0),
    ]
