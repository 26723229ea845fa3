"""A disk that fails at any call costs no client a byte: content is streamed and not stored."""

import asyncio
import errno
import logging
import os
from itertools import count
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.errors import StorageError
from engine.index import Index
from engine.lookup import CacheStatus
from engine.names import Digest, Tag
from tests.fakes.caches import (
    BUSYBOX,
    mirror_of,
    read_blob,
    read_content,
    read_fill,
    read_lookup,
)
from tests.fakes.failing_disk import FailingDisk
from tests.fakes.uncached import fills_ended
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_content import Image, make_bytes

pytestmark = pytest.mark.anyio

LAYER = make_bytes(700_000)
REPOSITORY = BUSYBOX.repository
READERS = 3
CODES = pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=["ENOSPC", "EDQUOT", "EIO"]
)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try the disk again at once."""
    monkeypatch.setattr("engine.disk_health.PAUSE_S", 0.0)


async def pull(cache: Cache, image: Image) -> None:
    """Pull an image as several clients at once; every byte must be right."""
    lookup = await cache.get_manifest(BUSYBOX, Tag("1"))
    assert lookup.content is not None
    assert read_content(cache, lookup.content) == image.body
    for digest, data in ((image.layers[0], LAYER), (image.config, b"{}")):
        reads = (read_blob(cache, BUSYBOX, digest) for _ in range(READERS))
        assert await asyncio.gather(*reads) == [data] * READERS


def open_files() -> list[str]:
    """What this process has open under pytest's directories."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the directory's own, closed since
            continue
    return [link for link in links if "/partial/" in link or "/blobs/" in link]


@pytest.mark.parametrize(
    ("code", "is_lasting"),
    [(errno.ENOSPC, True), (errno.EDQUOT, False), (errno.EIO, True)],
    ids=["ENOSPC", "EDQUOT once", "EIO"],
)
async def test_a_pull_survives_a_disk_that_fails_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pause: None, code: int, is_lasting: bool
) -> None:
    disk = FailingDisk(monkeypatch, code)
    failed: set[str] = set()
    async with ScriptedUpstream() as upstream:
        image = upstream.content.add_image(REPOSITORY, "1", (LAYER,))
        for number in count(1):
            async with mirror_of(tmp_path / str(number), upstream) as cache:
                disk.arm(number, None if is_lasting else number)
                await pull(cache, image)
                await fills_ended(cache)
                assert cache._store.space.reserved_bytes == 0
                if "unlink" not in disk.failed:
                    assert list((tmp_path / str(number) / "partial").iterdir()) == []
                has_failed = bool(disk.failed)
                failed.update(disk.failed)
                disk.heal()
                await pull(cache, image)
                await fills_ended(cache)
                assert (await cache.get_blob(BUSYBOX, image.layers[0])).content is not None
            assert open_files() == []
            if not has_failed:
                break
    assert failed >= {"open", "mkstemp", "pwritev", "fsync", "fchmod", "mkdir", "rename", "_apply"}


@CODES
async def test_a_disk_that_fails_in_the_middle_costs_no_second_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    disk = FailingDisk(monkeypatch, code)
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, LAYER)
        disk.arm(3)
        # Whoever comes when what was not stored has ended needs a download of its own.
        everyone_is_here = Gate()
        upstream.fail(Fault(hold=everyone_is_here), kind="blob")
        lookups = [await cache.get_blob(BUSYBOX, digest) for _ in range(20)]
        everyone_is_here.open()
        reads = (read_lookup(cache, lookup) for lookup in lookups)
        assert await asyncio.gather(*reads) == [LAYER] * 20
        assert disk.failed[0] == "pwritev"
        assert upstream.count(kind="blob") == 1


async def test_what_was_stored_is_served_while_the_disk_refuses_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FailingDisk(monkeypatch, errno.ENOSPC)
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (LAYER,))
        await pull(cache, image)
        await fills_ended(cache)
        disk.arm(1)
        await pull(cache, image)
        assert upstream.count(method="GET") == 3


async def test_an_index_that_cannot_be_read_fails_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("index: reading failed: disk I/O error")

    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (LAYER,))
        monkeypatch.setattr(Index, "find", fail)
        monkeypatch.setattr(Index, "find_tag", fail)
        await pull(cache, image)


async def test_a_manifest_that_was_here_before_stays_when_its_row_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("index: writing failed: database or disk is full")

    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, "1", (LAYER,))
        upstream.fail(Fault(status=405), method="HEAD", times=None)
        await cache.get_manifest(BUSYBOX, Tag("1"))
        with monkeypatch.context() as patch:
            patch.setattr(Index, "commit_manifest", fail)
            await cache.get_manifest(BUSYBOX, Tag("1"))
        await upstream.stop()
        stale = await cache.get_manifest(BUSYBOX, Tag("1"))
        assert stale.status is CacheStatus.STALE
        assert stale.content is not None
        assert read_content(cache, stale.content) == image.body


async def test_a_partial_that_cannot_be_read_again_is_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise StorageError("cannot read a partial: Input/output error")

    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(REPOSITORY, LAYER)
        (tmp_path / "partial" / digest.replace(":", "-")).write_bytes(LAYER[:100_000])
        monkeypatch.setattr("engine.blobdir.read_at", fail)
        assert await read_blob(cache, BUSYBOX, digest) == LAYER


async def test_a_restart_that_cannot_empty_the_file_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncated: list[int] = []

    def fail(fd: int, size_bytes: int) -> None:
        truncated.append(size_bytes)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        monkeypatch.setattr(os, "ftruncate", fail)
        digest = upstream.content.add_blob(REPOSITORY, LAYER)
        upstream.fail(Fault(corrupt_at=1), kind="blob")
        reader = (await cache.get_blob(BUSYBOX, digest)).reader
        assert reader is not None
        await reader.wait_end()  # and nothing was sent before it
        assert not reader.is_stored
        assert await read_fill(reader) == LAYER
    assert truncated == [0]


async def test_after_a_failure_the_disk_is_left_alone_for_a_while_and_then_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FailingDisk(monkeypatch, errno.ENOSPC)
    now = 1000.0
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        cache._store.room._clock = lambda: now
        digests = [upstream.content.add_blob(REPOSITORY, bytes([n]) * 100_000) for n in range(5)]

        async def attempt(digest: Digest) -> int:
            disk.call_count = 0
            await read_blob(cache, BUSYBOX, digest)
            await fills_ended(cache)
            return disk.call_count

        with caplog.at_level(logging.WARNING):
            disk.arm(1)
            assert await attempt(digests[0]) > 0
            assert await attempt(digests[1]) == 0
            now += 11
            assert await attempt(digests[2]) > 0
            assert await attempt(digests[3]) == 0
            now += 11
            disk.heal()
            assert await attempt(digests[4]) > 0
            assert await attempt(digests[3]) > 0
    lines = [record.getMessage() for record in caplog.records if "engine.room" in record.name]
    messages = [line for line in lines if not line.startswith("blob not stored")]
    assert ["hint=" in message for message in messages] == [True, False]
    assert messages[1] == "storing works again"
