"""Trust once a start: rot on the disk reaches nobody as a whole blob, and heals by itself."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import trust
from engine.cache import Cache
from engine.fill import HELD_BACK_BYTES
from engine.hot import Kind
from engine.index_records import BlobRecord
from engine.lookup import CacheStatus
from engine.names import Digest
from engine.trust import MAX_WHOLE_BYTES, Rotted
from engine.verification import Check
from tests.fakes.caches import BUSYBOX, read_blob, read_content, read_lookup
from tests.fakes.damage import blob_path, flip_bit, kept_in_quarantine, lose_index, query, truncate
from tests.fakes.memory_upstream import MemoryUpstream, cache_before
from tests.fakes.upstream_content import Image, make_bytes

pytestmark = pytest.mark.anyio

SMALL = make_bytes(100_000, seed=1)
LARGE = make_bytes(MAX_WHOLE_BYTES + 1_000_000, seed=2)


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
def image(upstream: MemoryUpstream) -> Image:
    return upstream.content.add_image(BUSYBOX.repository, "1", (SMALL, LARGE))


async def pull(path: Path, upstream: MemoryUpstream, image: Image) -> None:
    """Fetch the image in one run of the mirror; `calls` is empty after it."""
    async with cache_before(path, upstream) as cache:
        await cache.get_manifest(BUSYBOX, image.manifest)
        for digest in (image.config, *image.layers):
            await read_blob(cache, BUSYBOX, digest)
    upstream.calls.clear()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the pieces that were read to be compared."""
    sizes: list[int] = []
    real = Check.read

    def read(self: Check, descriptor: int, buffer: bytearray) -> int:
        sizes.append(real(self, descriptor, buffer))
        return sizes[-1]

    monkeypatch.setattr(Check, "read", read)
    return sizes


async def settle(cache: Cache) -> None:
    """Wait until the checks under way have passed their verdicts."""
    await asyncio.gather(*cache._store.custody.trust._tasks)


async def test_what_is_sound_is_compared_once_a_start_and_then_hot(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, reads: list[int]
) -> None:
    await pull(tmp_path, upstream, image)
    assert reads == []  # what was fetched in this run is trusted
    for _ in range(2):
        async with cache_before(tmp_path, upstream) as cache:
            for digest, data in zip(image.layers, (SMALL, LARGE), strict=True):
                assert cache.find(Kind.BLOB, BUSYBOX, digest) is None
                first = await cache.get_blob(BUSYBOX, digest)
                assert first.status is CacheStatus.HIT
                assert await read_lookup(cache, first) == data
                await settle(cache)
                assert sum(reads) == len(data)
                second = await cache.get_blob(BUSYBOX, digest)
                assert second.content is not None
                assert read_content(cache, second.content) == data
                assert cache.find(Kind.BLOB, BUSYBOX, digest) is second.content
                assert sum(reads) == len(data)
                reads.clear()
    assert upstream.calls == []


@pytest.mark.parametrize("offset", [0, 50_000, len(SMALL) - 1])
async def test_a_flipped_bit_in_a_small_blob_is_healed_in_the_same_request(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, offset: int
) -> None:
    await pull(tmp_path, upstream, image)
    small = image.layers[0]
    flip_bit(blob_path(tmp_path, small), offset)
    async with cache_before(tmp_path, upstream) as cache:
        lookup = await cache.get_blob(BUSYBOX, small)
        assert lookup.status is CacheStatus.MISS
        assert await read_lookup(cache, lookup) == SMALL
        assert upstream.calls == ["open_blob"]
    assert blob_path(tmp_path, small).read_bytes() == SMALL
    assert kept_in_quarantine(tmp_path) == [f"sha256-{small.hex}"]


@pytest.mark.parametrize("offset", [0, MAX_WHOLE_BYTES // 2, len(LARGE) - 1])
async def test_a_flipped_bit_in_a_large_blob_cuts_its_readers_and_the_next_gets_it_anew(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, offset: int
) -> None:
    await pull(tmp_path, upstream, image)
    large = image.layers[1]
    flip_bit(blob_path(tmp_path, large), offset)
    async with cache_before(tmp_path, upstream) as cache:
        lookup = await cache.get_blob(BUSYBOX, large)
        with pytest.raises(Rotted):
            await read_lookup(cache, lookup)
        assert upstream.calls == []
        assert await read_blob(cache, BUSYBOX, large) == LARGE
        assert upstream.calls == ["open_blob"]
    assert blob_path(tmp_path, large).read_bytes() == LARGE
    assert kept_in_quarantine(tmp_path) == [f"sha256-{large.hex}"]


async def test_no_client_of_a_damaged_blob_completes_it_however_they_come(
    tmp_path: Path, upstream: MemoryUpstream, image: Image
) -> None:
    await pull(tmp_path, upstream, image)
    flip_bit(blob_path(tmp_path, image.layers[1]), MAX_WHOLE_BYTES)
    async with cache_before(tmp_path, upstream) as cache:
        asked = (read_blob(cache, BUSYBOX, image.layers[1]) for _ in range(50))
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert all(end == LARGE or isinstance(end, Rotted) for end in ends)
        assert any(isinstance(end, Rotted) for end in ends)
        assert upstream.calls.count("open_blob") <= 1


async def test_the_end_of_a_large_blob_is_held_back_until_it_is_compared(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pull(tmp_path, upstream, image)
    large = image.layers[1]
    flip_bit(blob_path(tmp_path, large), len(LARGE) - 1)
    async with cache_before(tmp_path, upstream) as cache:
        reader = (await cache.get_blob(BUSYBOX, large)).reader
        assert reader is not None
        assert await reader.wait_open() == len(LARGE)
        with pytest.raises(Rotted):
            await reader.wait_past(len(LARGE) - HELD_BACK_BYTES)
        assert reader.released_bytes == len(LARGE) - HELD_BACK_BYTES
        reader.close()


async def test_a_flipped_bit_in_a_manifest_is_healed_in_the_same_request(
    tmp_path: Path, upstream: MemoryUpstream, image: Image
) -> None:
    await pull(tmp_path, upstream, image)
    flip_bit(blob_path(tmp_path, image.manifest), 20)
    async with cache_before(tmp_path, upstream) as cache:
        lookup = await cache.get_manifest(BUSYBOX, image.manifest)
        assert lookup.content is not None
        assert read_content(cache, lookup.content) == image.body
        assert upstream.calls == ["get_manifest"]
    assert kept_in_quarantine(tmp_path) == [f"sha256-{image.manifest.hex}"]


async def test_a_large_blob_is_never_served_as_a_manifest_unverified(
    tmp_path: Path, upstream: MemoryUpstream, image: Image
) -> None:
    huge = b"{" + b" " * MAX_WHOLE_BYTES + b"}"
    digest = upstream.content.add_manifest(BUSYBOX.repository, huge)
    async with cache_before(tmp_path, upstream) as cache:
        await cache.get_manifest(BUSYBOX, digest)
    flip_bit(blob_path(tmp_path, digest), 100)
    async with cache_before(tmp_path, upstream) as cache:
        lookup = await cache.get_manifest(BUSYBOX, digest)
        assert lookup.content is not None
        assert read_content(cache, lookup.content) == huge


@pytest.mark.parametrize("size_bytes", [0, 1, len(SMALL) - 1])
async def test_a_file_of_another_size_is_set_apart_and_fetched_anew(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, size_bytes: int
) -> None:
    await pull(tmp_path, upstream, image)
    small = image.layers[0]
    truncate(blob_path(tmp_path, small), size_bytes)
    async with cache_before(tmp_path, upstream) as cache:
        assert await read_blob(cache, BUSYBOX, small) == SMALL
    assert kept_in_quarantine(tmp_path) == [f"sha256-{small.hex}"]


async def test_what_has_no_xxh3_is_compared_by_digest_which_gives_it_one(
    tmp_path: Path, upstream: MemoryUpstream, image: Image
) -> None:
    await pull(tmp_path, upstream, image)
    index = tmp_path / "index.sqlite3"
    before = query(index, "SELECT digest, xxh3 FROM blob ORDER BY digest")
    query(index, "UPDATE blob SET xxh3 = NULL")
    async with cache_before(tmp_path, upstream) as cache:
        await cache.get_manifest(BUSYBOX, image.manifest)
        for digest in (image.config, *image.layers):
            await read_blob(cache, BUSYBOX, digest)
        await settle(cache)
    assert query(index, "SELECT digest, xxh3 FROM blob ORDER BY digest") == before
    assert upstream.calls == []


async def test_a_hundred_readers_of_a_large_blob_share_one_comparison(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, reads: list[int]
) -> None:
    await pull(tmp_path, upstream, image)
    async with cache_before(tmp_path, upstream) as cache:
        asked = (read_blob(cache, BUSYBOX, image.layers[1]) for _ in range(100))
        bodies = await asyncio.gather(*asked)
        assert all(body == LARGE for body in bodies)
        assert sum(reads) == len(LARGE)


async def test_a_range_far_ahead_of_the_comparison_comes_from_the_file(
    tmp_path: Path,
    upstream: MemoryUpstream,
    image: Image,
) -> None:
    await pull(tmp_path, upstream, image)
    large = image.layers[1]
    async with cache_before(tmp_path, upstream) as cache:
        reader = (await cache.get_blob(BUSYBOX, large)).reader
        assert reader is not None
        pieces = cache.open_side_fetch(BUSYBOX, large, 4_000_000, 5_000_000)
        assert b"".join([piece async for piece in pieces]) == LARGE[4_000_000:5_000_000]
        reader.close()
    assert upstream.calls == []


async def test_a_head_of_a_large_blob_compares_nothing(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, reads: list[int]
) -> None:
    await pull(tmp_path, upstream, image)
    async with cache_before(tmp_path, upstream) as cache:
        head = await cache.head_blob(BUSYBOX, image.layers[1])
        assert (head.status, head.size_bytes) == (CacheStatus.HIT, len(LARGE))
        assert cache.find(Kind.BLOB, BUSYBOX, image.layers[1]) is None
    assert reads == []


async def test_a_file_that_cannot_be_read_is_fetched_anew(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pull(tmp_path, upstream, image)
    small = image.layers[0]
    async with cache_before(tmp_path, upstream) as cache:

        def fail(*_: object) -> int:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", fail)
            assert await read_blob(cache, BUSYBOX, small) == SMALL
        assert upstream.calls == ["open_blob"]
        assert await read_blob(cache, BUSYBOX, small) == SMALL
    assert kept_in_quarantine(tmp_path) == [f"sha256-{small.hex}"]


async def test_a_stop_in_the_middle_of_a_comparison_judges_nothing(
    tmp_path: Path, upstream: MemoryUpstream, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pull(tmp_path, upstream, image)
    monkeypatch.setattr(trust, "PIECE_BYTES", 4096)
    async with cache_before(tmp_path, upstream) as cache:
        reader = (await cache.get_blob(BUSYBOX, image.layers[1])).reader
        assert reader is not None
        await reader.wait_past(8192)
        reader.close()
    assert kept_in_quarantine(tmp_path) == []
    async with cache_before(tmp_path, upstream) as cache:
        assert await read_blob(cache, BUSYBOX, image.layers[1]) == LARGE
    assert upstream.calls == []


async def test_after_a_lost_index_every_byte_is_compared_by_digest_and_nothing_downloaded(
    tmp_path: Path, upstream: MemoryUpstream, image: Image
) -> None:
    await pull(tmp_path, upstream, image)
    flip_bit(blob_path(tmp_path, image.layers[0]))
    lose_index(tmp_path)
    async with cache_before(tmp_path, upstream) as cache:
        lookup = await cache.get_manifest(BUSYBOX, image.manifest)
        assert lookup.content is not None
        assert read_content(cache, lookup.content) == image.body
        assert await read_blob(cache, BUSYBOX, image.config) == b"{}"
        assert await read_blob(cache, BUSYBOX, image.layers[1]) == LARGE
        assert "open_blob" not in upstream.calls
        assert "get_manifest" not in upstream.calls
        assert await read_blob(cache, BUSYBOX, image.layers[0]) == SMALL
        assert upstream.calls.count("open_blob") == 1


@pytest.mark.parametrize(
    ("make_xxh3", "is_right"),
    [(lambda check: None, True), (lambda check: check.xxh3, True), (lambda _: bytes(16), False)],
    ids=["by digest", "by xxh3", "wrong xxh3"],
)
async def test_a_check_compares_by_what_is_recorded(
    tmp_path: Path,
    upstream: MemoryUpstream,
    make_xxh3: Callable[[Check], bytes | None],
    is_right: bool,
) -> None:
    digest = upstream.content.add_blob(BUSYBOX.repository, SMALL)
    (tmp_path / "blob").write_bytes(SMALL)
    first = run_check(tmp_path / "blob", digest, None)
    assert first.find_fault() is None
    second = run_check(tmp_path / "blob", digest, make_xxh3(first))
    assert (second.find_fault() is None) is is_right
    assert second.xxh3 == first.xxh3


def run_check(path: Path, digest: Digest, xxh3: bytes | None) -> Check:
    """Compare a file."""
    check = Check(BlobRecord(digest, len(SMALL), xxh3, False, 0.0, 0.0))
    with path.open("rb") as file:
        while check.read(file.fileno(), bytearray(7_000)):
            pass
    return check
