"""Blobs through the cache: one fill for all, resumed when it breaks, never wrong."""

import asyncio
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.errors import (
    BlobUnknown,
    DigestMismatch,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from engine.fill import HELD_BACK_BYTES
from engine.lookup import CacheStatus
from engine.names import Digest, Repository
from engine.upstream.api import BlobStream
from tests.fakes.caches import (
    BUSYBOX,
    mirror_of,
    read_blob,
    read_content,
    read_fill,
    read_lookup,
)
from tests.fakes.memory_upstream import MemoryStream, MemoryUpstream, cache_before
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

BIG = make_bytes(1_000_000)
REPOSITORY = BUSYBOX.repository


async def test_a_cold_blob_is_fetched_once_and_then_served_from_here(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        cold = await cache.get_blob(BUSYBOX, digest)
        assert cold.status is CacheStatus.MISS
        assert await read_lookup(cache, cold) == BIG
        assert await _stored(cache, digest) == BIG
        assert upstream.count(kind="blob") == 1


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("size", [0, 1, HELD_BACK_BYTES, HELD_BACK_BYTES + 1, 300_000])
async def test_every_size_and_algorithm_arrives_whole(
    tmp_path: Path, size: int, algorithm: str
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        data = make_bytes(size)
        digest = upstream.content.add_blob(REPOSITORY, data, algorithm)
        assert await read_blob(cache, BUSYBOX, digest) == data


async def test_fifty_readers_of_a_cold_blob_share_one_fill(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        bodies = await asyncio.gather(*(read_blob(cache, BUSYBOX, digest) for _ in range(50)))
        assert all(body == BIG for body in bodies)
        assert upstream.count(kind="blob") == 1


async def test_bytes_are_released_while_the_fill_runs_but_its_end_is_held_back(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        gate = Gate()
        upstream.fail(Fault(stall_at=len(BIG) - 1, gate=gate), kind="blob")
        lookup = await cache.get_blob(BUSYBOX, digest)
        reader = lookup.reader
        assert reader is not None
        assert await reader.wait_open() == len(BIG)
        await reader.wait_past(len(BIG) - HELD_BACK_BYTES - 1)
        assert reader.released_bytes == len(BIG) - HELD_BACK_BYTES
        gate.open()
        assert await read_fill(reader) == BIG


async def test_the_fill_goes_on_when_all_readers_have_left(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        gate = Gate()
        upstream.fail(Fault(stall_at=500_000, gate=gate), kind="blob")
        lookup = await cache.get_blob(BUSYBOX, digest)
        assert lookup.reader is not None
        await lookup.reader.wait_open()
        lookup.reader.close()
        gate.open()
        assert await _stored(cache, digest) == BIG
        assert upstream.count(kind="blob") == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(truncate_at=300_000),
        Fault(reset_at=300_000),
        Fault(truncate_at=300_000, chunked=True),
    ],
    ids=["truncated", "reset", "chunked"],
)
async def test_a_break_is_resumed_by_closed_range_inside_the_same_response(
    tmp_path: Path, fault: Fault
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (BIG,))
        await cache.get_manifest(BUSYBOX, image.manifest)
        upstream.fail(fault, kind="blob", times=2)
        assert await read_blob(cache, BUSYBOX, image.layers[0]) == BIG
        ranges = [seen.header("range") for seen in upstream.seen(kind="blob")]
        assert len(ranges) == 3
        assert ranges[0] is None
        assert all(str(r).endswith(f"-{len(BIG) - 1}") for r in ranges[1:])


@pytest.mark.parametrize(
    "fault",
    [Fault(no_range=True), Fault(range_shift=7), Fault(status=503)],
    ids=["200 instead of 206", "a 206 from elsewhere", "503"],
)
async def test_a_resumption_that_goes_wrong_does_not_harm_the_bytes(
    tmp_path: Path, fault: Fault
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        upstream.fail(Fault(truncate_at=300_000), kind="blob")
        upstream.fail(fault, kind="blob")
        assert await read_blob(cache, BUSYBOX, digest) == BIG


class LimitingUpstream(MemoryUpstream):
    """Breaks a body off, answers the first resumption by 429, and the next as it should."""

    async def open_blob(
        self,
        repository: Repository,
        digest: Digest,
        *,
        start: int = 0,
        end: int | None = None,
        deadline: float,
    ) -> BlobStream:
        self.calls.append(f"open_blob {start}")
        if self.calls.count("open_blob 300000") == 1:
            raise UpstreamRateLimited("429", retry_after_s=1.0)
        return MemoryStream(BIG, start, end or 300_000)


async def test_a_rate_limit_in_the_middle_of_a_body_is_waited_out(tmp_path: Path) -> None:
    upstream = LimitingUpstream()
    digest = upstream.content.add_blob(REPOSITORY, BIG)
    async with cache_before(tmp_path, upstream) as cache:
        assert await read_blob(cache, BUSYBOX, digest) == BIG
    assert upstream.calls == ["open_blob 0", "open_blob 300000", "open_blob 300000"]


async def test_an_upstream_that_breaks_without_progress_ends_the_fill_and_keeps_the_partial(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        upstream.fail(Fault(truncate_at=300_000), kind="blob")
        upstream.fail(Fault(truncate_at=0), kind="blob", times=None)
        with pytest.raises(UpstreamUnavailable):
            await read_blob(cache, BUSYBOX, digest)
        upstream.heal()
        assert await read_blob(cache, BUSYBOX, digest) == BIG
        # The client library drops what it has received, but not read, when a connection breaks.
        start = int(
            str(upstream.seen(kind="blob")[-1].header("range"))[len("bytes=") :].split("-")[0]
        )
        assert 0 < start <= 300_000


async def test_a_corrupt_blob_is_fetched_anew_once_if_nothing_was_sent(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        small = make_bytes(1000)
        digest = upstream.content.add_blob(REPOSITORY, small)
        upstream.fail(Fault(corrupt_at=10), kind="blob")
        assert await read_blob(cache, BUSYBOX, digest) == small
        assert upstream.count(kind="blob") == 2


async def test_a_corrupt_blob_is_never_completed_nor_kept(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        upstream.fail(Fault(corrupt_at=10), kind="blob", times=None)
        lookup = await cache.get_blob(BUSYBOX, digest)
        assert lookup.reader is not None
        await lookup.reader.wait_open()
        lookup.reader.expose()
        with pytest.raises(DigestMismatch):
            await lookup.reader.wait_past(len(BIG) - HELD_BACK_BYTES)
        lookup.reader.close()
        assert not any((tmp_path / "partial").iterdir())
        upstream.heal()
        assert await read_blob(cache, BUSYBOX, digest) == BIG


async def test_a_missing_blob_is_unknown_and_remembered_for_a_moment(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        missing = Digest("sha256:" + "0" * 64)
        upstream.content.add_blob(REPOSITORY, b"another")
        with pytest.raises(BlobUnknown):
            await read_blob(cache, BUSYBOX, missing)
        with pytest.raises(BlobUnknown):
            await read_blob(cache, BUSYBOX, missing)
        assert upstream.count(kind="blob") == 1


async def test_an_upstream_fault_is_never_not_found(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        async with mirror_of(tmp_path, upstream) as cache:
            await upstream.stop()
            lookup = await cache.get_blob(BUSYBOX, digest)
            with pytest.raises(UpstreamUnavailable):
                await read_lookup(cache, lookup)


async def test_a_partial_outlives_the_cache_and_is_resumed(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        image = upstream.content.add_image(REPOSITORY, "1", (BIG,))
        digest = image.layers[0]
        async with mirror_of(tmp_path, upstream) as cache:
            await cache.get_manifest(BUSYBOX, image.manifest)
            upstream.fail(Fault(stall_at=500_000, gate=Gate()), kind="blob")
            lookup = await cache.get_blob(BUSYBOX, digest)
            assert lookup.reader is not None
            await lookup.reader.wait_open()
            await lookup.reader.wait_past(400_000)
            lookup.reader.close()
        left = next((tmp_path / "partial").iterdir()).stat().st_size
        assert 400_000 < left <= 500_000
        async with mirror_of(tmp_path, upstream) as cache:
            assert await read_blob(cache, BUSYBOX, digest) == BIG
        assert upstream.seen(kind="blob")[-1].header("range") == f"bytes={left}-{len(BIG) - 1}"


async def test_a_damaged_partial_of_an_earlier_run_heals_itself(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        small = make_bytes(50_000)
        digest = upstream.content.add_blob(REPOSITORY, small)
        async with mirror_of(tmp_path, upstream) as cache:
            partial = tmp_path / "partial" / digest.replace(":", "-")
            partial.write_bytes(bytes(1000))
            assert await read_blob(cache, BUSYBOX, digest) == small


@pytest.mark.parametrize("fault", [Fault(range_shift=7), Fault(status=400)])
async def test_a_partial_is_in_nobodys_way_where_ranges_are_answered_wrongly(
    tmp_path: Path, fault: Fault
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream):
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        (tmp_path / "partial" / digest.replace(":", "-")).write_bytes(BIG[:400_000])
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.add_blob(REPOSITORY, BIG)
        upstream.fail(fault, method="GET", kind="blob")
        assert await read_blob(cache, BUSYBOX, digest) == BIG
        gets = [seen for seen in upstream.seen(kind="blob") if seen.method == "GET"]
        assert [seen.header("range") is None for seen in gets] == [False, True]


async def test_a_whole_partial_is_committed_without_a_download(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        (tmp_path / "partial").mkdir()
        (tmp_path / "partial" / digest.replace(":", "-")).write_bytes(BIG)
        async with mirror_of(tmp_path, upstream) as cache:
            assert await read_blob(cache, BUSYBOX, digest) == BIG
            assert upstream.count(method="GET", kind="blob") == 0
            assert upstream.count(method="HEAD", kind="blob") == 1


async def test_a_blob_whose_file_is_gone_is_fetched_anew(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        async with mirror_of(tmp_path, upstream) as cache:
            await read_blob(cache, BUSYBOX, digest)
            await _stored(cache, digest)
        for file in (tmp_path / "blobs").rglob(digest.hex):
            file.unlink()
        async with mirror_of(tmp_path, upstream) as cache:
            assert await read_blob(cache, BUSYBOX, digest) == BIG
        assert upstream.count(kind="blob") == 2


async def test_a_head_downloads_nothing(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (BIG,))
        head = await cache.head_blob(BUSYBOX, image.layers[0])
        assert (head.status, head.size_bytes) == (CacheStatus.MISS, len(BIG))
        await cache.get_manifest(BUSYBOX, image.manifest)
        head = await cache.head_blob(BUSYBOX, image.config)
        assert (head.status, head.size_bytes) == (CacheStatus.HIT, 2)
        assert [seen.method for seen in upstream.seen(kind="blob")] == ["HEAD"]


async def test_a_far_range_is_fetched_aside(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, BIG)
        pieces = [p async for p in cache.open_side_fetch(BUSYBOX, digest, 1000, 70_000)]
        assert b"".join(pieces) == BIG[1000:70_000]
        assert upstream.seen(kind="blob")[0].header("range") == "bytes=1000-69999"


async def _stored(cache: Cache, digest: Digest) -> bytes:
    """Read a blob once its fill, if one runs, has been committed."""
    while (lookup := await cache.get_blob(BUSYBOX, digest)).content is None:
        await read_lookup(cache, lookup)
        await asyncio.sleep(0)
    return read_content(cache, lookup.content)
