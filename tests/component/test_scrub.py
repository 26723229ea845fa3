"""The scrub finds rot before anybody asks, at its pace, each blob once an interval."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine import scrub
from engine.cache import Cache
from engine.names import Digest
from engine.scrub import Scrub
from engine.settings import VerifySettings
from engine.verification import Check
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.damage import blob_path, flip_bit, kept_in_quarantine, query
from tests.fakes.memory_upstream import MemoryUpstream, cache_before
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

WEEK_S = 7 * 24 * 3600.0
BODIES = [make_bytes(3_000_000, seed=seed) for seed in range(4)]
FAST = VerifySettings(interval_s=WEEK_S, rate_bytes_s=10**12)


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
async def digests(tmp_path: Path, upstream: MemoryUpstream) -> list[Digest]:
    """Blobs that were stored long ago, the first before the second and so on."""
    found = [upstream.content.add_blob(BUSYBOX.repository, body) for body in BODIES]
    async with cache_before(tmp_path, upstream) as cache:
        for digest in found:
            await read_blob(cache, BUSYBOX, digest)
    index = tmp_path / "index.sqlite3"
    for at, digest in enumerate(found):
        query(
            index,
            "UPDATE blob SET stored_at = ?, verified_at = ? WHERE digest = ?",
            1000.0 + at,
            1000.0 + at,
            digest,
        )
    upstream.calls.clear()
    return found


def scrub_of(
    cache: Cache,
    settings: VerifySettings = FAST,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Scrub:
    """A scrub of the test's own: the cache's is off."""
    custody = cache._store.custody
    open_blob = cache._store.blob_directory.open_blob
    return Scrub(custody.upkeep, open_blob, custody, settings, sleep)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """Which blobs were compared, in order."""
    seen: list[Digest] = []
    real = Check.read

    def read(self: Check, descriptor: int, buffer: bytearray) -> int:
        if self.offset == 0:
            seen.append(self._blob.digest)
        return real(self, descriptor, buffer)

    monkeypatch.setattr(Check, "read", read)
    return seen


async def test_everything_is_compared_newest_first_and_once_an_interval(
    tmp_path: Path, upstream: MemoryUpstream, digests: list[Digest], order: list[Digest]
) -> None:
    async with cache_before(tmp_path, upstream) as cache:
        assert await scrub_of(cache).run_once() == 0
        assert order == digests[::-1]
        assert await scrub_of(cache).run_once() == 0
        assert len(order) == 4


async def test_rot_is_set_apart_before_anybody_asks(
    tmp_path: Path, upstream: MemoryUpstream, digests: list[Digest]
) -> None:
    flip_bit(blob_path(tmp_path, digests[2]), 2_999_999)
    async with cache_before(tmp_path, upstream) as cache:
        assert await scrub_of(cache).run_once() == 1
        assert kept_in_quarantine(tmp_path) == [f"sha256-{digests[2].hex}"]
        assert await read_blob(cache, BUSYBOX, digests[2]) == BODIES[2]
    assert upstream.calls == ["open_blob"]


async def test_a_restart_goes_on_where_the_last_run_stopped(
    tmp_path: Path,
    upstream: MemoryUpstream,
    digests: list[Digest],
    order: list[Digest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cache_before(tmp_path, upstream) as cache:
        custody = cache._store.custody
        done = asyncio.Event()
        real = custody.note_verified

        async def note(digest: Digest, xxh3: bytes) -> None:
            await real(digest, xxh3)
            done.set()

        monkeypatch.setattr(custody, "note_verified", note)
        task = asyncio.create_task(scrub_of(cache, FAST).run_once())
        await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with cache_before(tmp_path, upstream) as cache:
        await scrub_of(cache).run_once()
    # The newest is done; one that was under way is begun again.
    assert order.count(digests[3]) == 1
    assert order[-1] == digests[0]


async def test_what_was_compared_is_trusted_and_not_compared_again_when_served(
    tmp_path: Path, upstream: MemoryUpstream, digests: list[Digest], order: list[Digest]
) -> None:
    async with cache_before(tmp_path, upstream) as cache:
        await scrub_of(cache).run_once()
        order.clear()
        lookup = await cache.get_blob(BUSYBOX, digests[0])
        assert lookup.content is not None
    assert order == []


async def test_what_is_evicted_meanwhile_is_no_finding(
    tmp_path: Path, upstream: MemoryUpstream, digests: list[Digest]
) -> None:
    blob_path(tmp_path, digests[1]).unlink()
    async with cache_before(tmp_path, upstream) as cache:
        assert await scrub_of(cache).run_once() == 0
    assert kept_in_quarantine(tmp_path) == []


async def test_the_rate_bounds_each_piece(
    tmp_path: Path, upstream: MemoryUpstream, digests: list[Digest]
) -> None:
    waits: list[float] = []

    async def sleep(delay: float) -> None:
        waits.append(delay)

    async with cache_before(tmp_path, upstream) as cache:
        settings = VerifySettings(interval_s=WEEK_S, rate_bytes_s=1_000_000)
        await scrub_of(cache, settings, sleep).run_once()
    # No wait was sat out, so the debt of 12 MB at 1 MB/s stands, less the time that it took.
    assert len(waits) == 4 * 3
    assert waits == sorted(waits)
    assert 2.0 < waits[-1] <= 12.0


async def test_interval_0_is_off(tmp_path: Path, upstream: MemoryUpstream) -> None:
    async with cache_before(tmp_path, upstream) as cache:
        await scrub_of(cache, VerifySettings(interval_s=0)).run()


async def test_it_begins_by_itself_soon_after_the_start(
    tmp_path: Path,
    upstream: MemoryUpstream,
    digests: list[Digest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrub, "DELAY_S", 0.0)
    flip_bit(blob_path(tmp_path, digests[0]))
    async with cache_before(tmp_path, upstream, verify=FAST) as cache:
        custody = cache._store.custody
        found = asyncio.Event()
        real = custody.quarantine

        async def quarantine(digest: Digest, reason: str, fd: int | None = None) -> Path | None:
            kept = await real(digest, reason, fd)
            found.set()
            return kept

        monkeypatch.setattr(custody, "quarantine", quarantine)
        await found.wait()
    assert kept_in_quarantine(tmp_path) == [f"sha256-{digests[0].hex}"]
