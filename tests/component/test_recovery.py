"""A lost or damaged index: the mirror starts, serves only right bytes, and needs no hand."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.errors import IndexTooNew
from engine.hot import Kind
from engine.index import Index
from engine.layout import Layout
from engine.migrate import load_migrations
from engine.names import Tag
from engine.recovery import Recovery
from tests.component.index_examples import HERE, blob_of, digest_of, link_of
from tests.fakes.caches import BUSYBOX, read_blob, read_content
from tests.fakes.damage import lose_index, query
from tests.fakes.memory_upstream import MemoryUpstream, cache_before, settle_fills
from tests.fakes.upstream_content import Image, make_bytes

pytestmark = pytest.mark.anyio

LAYERS = (make_bytes(200_000, seed=1), b"small")


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
def image(upstream: MemoryUpstream) -> Image:
    return upstream.content.add_image(BUSYBOX.repository, "1", LAYERS)


@pytest.fixture
async def data(tmp_path: Path, upstream: MemoryUpstream, image: Image) -> Path:
    """A data directory with the image, its index closed cleanly, and a snapshot of it."""
    async with cache_before(tmp_path, upstream) as cache:
        await read_image(cache, image)
    upstream.calls.clear()
    return tmp_path


async def read_image(cache: Cache, image: Image) -> None:
    """Pull by tag, as a client would; every byte must be right."""
    lookup = await cache.get_manifest(BUSYBOX, image.manifest)
    assert lookup.content is not None
    assert read_content(cache, lookup.content) == image.body
    assert await read_blob(cache, BUSYBOX, image.config) == b"{}"
    for digest, data in zip(image.layers, LAYERS, strict=True):
        assert await read_blob(cache, BUSYBOX, digest) == data


def cut_to(size: int) -> Callable[[Path], None]:
    """Truncate; a negative size counts from the end."""

    def damage(path: Path) -> None:
        os.truncate(path, size if size >= 0 else path.stat().st_size + size)

    return damage


def write_garbage(offset: int, size: int) -> Callable[[Path], None]:
    """Overwrite."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(make_bytes(size))

    return damage


DAMAGES = {
    "cut in the header": cut_to(10),
    "cut behind the header": cut_to(100),
    "cut to a page": cut_to(4096),
    "cut in a page": cut_to(6000),
    "cut to half": cut_to(40_000),
    "its last page is missing": cut_to(-4096),
    "its last bytes are missing": cut_to(-100),
    "all garbage": lambda path: path.write_bytes(make_bytes(50_000)) and None,
    "garbage in the header": write_garbage(0, 100),
    "garbage in the schema": write_garbage(100, 3_000),
    "garbage in the middle": write_garbage(20_480, 16_384),
    "text": lambda path: path.write_text("not a database at all\n" * 100) and None,
}


async def settle(cache: Cache) -> None:
    """Wait until the index was inspected and reconciled."""
    upkeep = cache._upkeep
    await upkeep._snapshots.inspect_once()
    await upkeep._reconciler.run_once()


def kept_indexes(data: Path) -> list[str]:
    """List the damaged indexes that were set aside."""
    return [
        path.name
        for path in data.glob("index.sqlite3.damaged-*")
        if not path.name.endswith(("-wal", "-shm"))  # they go with the index that they are of
    ]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_index_is_replaced_by_its_snapshot(
    data: Path, upstream: MemoryUpstream, image: Image, damage: Callable[[Path], None]
) -> None:
    damage(data / "index.sqlite3")
    async with cache_before(data, upstream) as cache:
        await settle(cache)
        await read_image(cache, image)
        # The snapshot knew who may be served what: nobody was asked.
        assert upstream.calls == []
    assert query(data / "index.sqlite3", "PRAGMA integrity_check") == [("ok",)]
    assert len(kept_indexes(data)) == 1


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_without_a_snapshot_it_is_rebuilt_from_the_files(
    data: Path, upstream: MemoryUpstream, image: Image, damage: Callable[[Path], None]
) -> None:
    damage(data / "index.sqlite3")
    (data / "index.snapshot").unlink()
    async with cache_before(data, upstream) as cache:
        await settle(cache)
        await read_image(cache, image)
    # What it may serve is asked, nothing is downloaded.
    assert set(upstream.calls) <= {"head_manifest", "head_blob"}
    assert query(data / "index.sqlite3", "PRAGMA integrity_check") == [("ok",)]
    assert query(data / "index.sqlite3", "SELECT count(*) FROM blob") == [(4,)]


async def test_a_damaged_snapshot_is_passed_over(
    data: Path, upstream: MemoryUpstream, image: Image
) -> None:
    cut_to(5_000)(data / "index.sqlite3")
    write_garbage(0, 5_000)(data / "index.snapshot")
    async with cache_before(data, upstream) as cache:
        await read_image(cache, image)
        assert set(upstream.calls) == {"head_manifest", "head_blob"}


async def test_a_snapshot_whose_damage_shows_only_later_is_replaced_in_turn(
    data: Path, upstream: MemoryUpstream, image: Image
) -> None:
    cut_to(5_000)(data / "index.sqlite3")
    write_garbage(20_480, 16_384)(data / "index.snapshot")
    async with cache_before(data, upstream) as cache:
        await settle(cache)
        await read_image(cache, image)
    assert set(upstream.calls) <= {"head_manifest", "head_blob"}
    assert query(data / "index.sqlite3", "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("size", [None, 0], ids=["missing", "empty"])
async def test_a_missing_or_empty_index_is_replaced_by_its_snapshot(
    data: Path, upstream: MemoryUpstream, image: Image, size: int | None
) -> None:
    (data / "index.sqlite3").unlink()
    if size is not None:
        (data / "index.sqlite3").touch()
    async with cache_before(data, upstream) as cache:
        await read_image(cache, image)
    assert upstream.calls == []


async def test_the_wal_of_a_missing_index_is_not_folded_into_its_snapshot(
    data: Path, upstream: MemoryUpstream, image: Image
) -> None:
    other = data / "other"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE blob (nonsense TEXT)")
        connection.commit()
        (data / "other-wal").rename(data / "index.sqlite3-wal")
    (data / "index.sqlite3").unlink()
    async with cache_before(data, upstream) as cache:
        await read_image(cache, image)
    assert upstream.calls == []


async def test_a_lost_wal_costs_at_most_what_was_in_it(
    tmp_path: Path, upstream: MemoryUpstream, image: Image
) -> None:
    async with cache_before(tmp_path, upstream) as cache:
        await read_image(cache, image)
        await settle_fills(cache)
        # A copy made now is what a machine that loses power leaves, its WAL lost.
        crashed = tmp_path / "crashed"
        shutil.copytree(tmp_path, crashed, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    upstream.calls.clear()
    async with cache_before(crashed, upstream) as cache:
        await settle(cache)
        await read_image(cache, image)
    assert set(upstream.calls) <= {"head_manifest", "head_blob"}


async def test_only_the_last_damaged_index_is_kept(
    data: Path, upstream: MemoryUpstream, image: Image
) -> None:
    for age in (2, 1):
        (data / f"index.sqlite3.damaged-{age}").write_bytes(b"older")
        (data / f"index.sqlite3.damaged-{age}-wal").write_bytes(b"older")
    (data / "index.sqlite3").write_bytes(b"damaged" * 1000)
    async with cache_before(data, upstream) as cache:
        await read_image(cache, image)
    (kept,) = kept_indexes(data)
    assert (data / kept).read_bytes() == b"damaged" * 1000


async def test_an_index_of_a_newer_program_is_never_replaced(
    data: Path, upstream: MemoryUpstream
) -> None:
    query(data / "index.sqlite3", "INSERT INTO migration VALUES (9999, 'of_the_future', 0.0)")
    before = (data / "index.sqlite3").read_bytes()
    with pytest.raises(IndexTooNew):
        async with cache_before(data, upstream):
            pass
    assert (data / "index.sqlite3").read_bytes() == before
    assert kept_indexes(data) == []


async def test_a_snapshot_of_a_newer_program_is_not_used_and_nothing_is_moved(
    data: Path, upstream: MemoryUpstream
) -> None:
    query(data / "index.snapshot", "INSERT INTO migration VALUES (9999, 'of_the_future', 0.0)")
    (data / "index.sqlite3").write_bytes(b"damaged" * 1000)
    with pytest.raises(IndexTooNew) as caught:
        async with cache_before(data, upstream):
            pass
    assert (caught.value.found, caught.value.known) == (9999, len(load_migrations()))
    assert (data / "index.sqlite3").read_bytes() == b"damaged" * 1000


async def test_an_index_damaged_while_it_is_open_is_replaced_under_its_users(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    index = await Index.open(layout.index_path, Recovery(layout))
    for number in range(300):
        await index.commit_blob(HERE, blob_of(number), link_of(number))
    await index.aclose()
    index = await Index.open(layout.index_path, Recovery(layout))
    try:
        assert not index.connections.was_replaced.is_set()
        write_garbage(8192, layout.index_path.stat().st_size - 8192)(layout.index_path)
        asked = (index.find(HERE, digest_of(number)) for number in range(300))
        assert await asyncio.gather(*asked) == [(None, None)] * 300
        assert index.connections.was_replaced.is_set()
        await index.commit_blob(HERE, blob_of(1), link_of(1))
        assert await index.find(HERE, digest_of(1)) == (link_of(1), blob_of(1))
    finally:
        await index.aclose()
    assert len(kept_indexes(tmp_path)) == 1


async def test_writes_that_wait_when_damage_is_found_reach_the_new_index(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    index = await Index.open(layout.index_path, Recovery(layout))
    for number in range(300):
        await index.commit_blob(HERE, blob_of(number), link_of(number))
    await index.aclose()
    index = await Index.open(layout.index_path, Recovery(layout))
    try:
        write_garbage(8192, layout.index_path.stat().st_size - 8192)(layout.index_path)
        numbers = range(1000, 1100)
        await asyncio.gather(*(index.commit_blob(HERE, blob_of(n), link_of(n)) for n in numbers))
        for number in numbers:
            assert await index.find(HERE, digest_of(number)) == (link_of(number), blob_of(number))
    finally:
        await index.aclose()


async def test_a_mirror_whose_index_is_damaged_while_it_runs_goes_on(
    data: Path, upstream: MemoryUpstream, image: Image
) -> None:
    async with cache_before(data, upstream) as cache:
        size = (data / "index.sqlite3").stat().st_size
        write_garbage(4096, size - 4096)(data / "index.sqlite3")
        await read_image(cache, image)
        assert cache.find(Kind.BLOB, BUSYBOX, image.layers[0]) is not None
    assert query(data / "index.sqlite3", "PRAGMA integrity_check") == [("ok",)]


async def test_a_lost_tag_is_asked_for(data: Path, upstream: MemoryUpstream, image: Image) -> None:
    lose_index(data)
    async with cache_before(data, upstream) as cache:
        lookup = await cache.get_manifest(BUSYBOX, Tag("1"))
        assert lookup.digest == image.manifest
    assert upstream.calls == ["head_manifest"]
