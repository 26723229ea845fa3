"""Removing blobs while others store, use and damage them."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.blobdir import BlobDirectory
from engine.errors import StorageError
from engine.eviction import Reason, Victim
from engine.hot import Kind
from engine.index import Index
from engine.index_eviction import IndexEviction
from engine.index_records import LinkRecord, LinkState
from engine.layout import Layout
from engine.names import Digest
from engine.removal import Removal
from engine.store import Store
from tests.component.index_examples import HERE
from tests.fakes.upstream_content import digest_of

pytestmark = pytest.mark.anyio

BODY = b"a manifest"
DIGEST = digest_of(BODY)


class Site:
    """A store with one manifest, and what removes it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = IndexEviction(store.index.connections)
        self.removal = Removal(store, self.index)
        self.disk_bytes = 0

    async def commit(self) -> None:
        """Store the manifest, as a pull does."""
        link = LinkRecord(DIGEST, Kind.MANIFEST, LinkState.HELD, "text/plain", len(BODY))
        await self.store.commit_manifest(HERE, link, BODY, is_public=True, tag=None)

    def has_file(self) -> bool:
        return self.store.blob_directory.find_file(DIGEST) is not None

    async def has_row(self) -> bool:
        return (await self.store.index.find(HERE, DIGEST))[1] is not None

    async def remove(self) -> list[Digest]:
        return [gone.digest for gone in await self.removal.remove([victim()])]

    def count(self, disk_bytes: int, _corrected_bytes: int) -> None:
        self.disk_bytes = disk_bytes


def victim(used_at: float | None = None) -> Victim:
    return Victim(DIGEST, 4096, time.time() + 60 if used_at is None else used_at, Reason.BUDGET)


@asynccontextmanager
async def open_site(path: Path) -> AsyncIterator[Site]:
    directory = BlobDirectory(Layout(path))
    directory.prepare()
    store = Store(await Index.open(path / "index.sqlite3"), directory)
    site = Site(store)
    try:
        await site.index.count_bytes(4096, site.count)
        await site.commit()
        yield site
    finally:
        await site.removal.aclose()
        await store.aclose()


class Brake:
    """Holds up removals of files in their thread."""

    def __init__(self, directory: BlobDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.may_go_on = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._remove = directory.remove_blob
        monkeypatch.setattr(directory, "remove_blob", self._hold)

    def _hold(self, digest: Digest) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        self.may_go_on.wait()
        self._remove(digest)


async def test_a_removed_blob_is_gone_everywhere_and_counted_no_more(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        assert (site.disk_bytes, site.store.find_hot(Kind.MANIFEST, HERE, DIGEST) is None) == (
            4096,
            False,
        )
        assert await site.remove() == [DIGEST]
        assert (site.has_file(), await site.has_row(), site.disk_bytes) == (False, False, 0)
        assert site.store.find_hot(Kind.MANIFEST, HERE, DIGEST) is None


async def test_what_was_used_since_it_was_chosen_stays(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        chosen = victim(used_at=time.time() - 60)
        assert await site.removal.remove([chosen]) == []  # the use is in memory only
        await site.store.flush_uses()
        assert await site.removal.remove([chosen]) == []  # now the index has it
        assert site.has_file()
        assert await site.has_row()


async def test_what_is_fetched_again_meanwhile_waits_and_is_there_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(tmp_path) as site:
        brake = Brake(site.store.blob_directory, monkeypatch)
        removal = asyncio.create_task(site.remove())
        await brake.reached.wait()
        assert not await site.has_row()  # so it is fetched again
        fetch = asyncio.create_task(site.commit())
        await asyncio.sleep(0)
        brake.may_go_on.set()
        await asyncio.gather(removal, fetch)
        assert (site.has_file(), await site.has_row(), site.disk_bytes) == (True, True, 4096)


async def test_what_is_being_stored_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(tmp_path) as site:
        write, may_go_on = site.store.blob_directory.write_blob, threading.Event()
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def hold(digest: Digest, body: bytes) -> None:
            loop.call_soon_threadsafe(begun.set)
            may_go_on.wait()
            write(digest, body)

        monkeypatch.setattr(site.store.blob_directory, "write_blob", hold)
        commit = asyncio.create_task(site.commit())
        await begun.wait()
        assert await site.remove() == []
        may_go_on.set()
        await commit
        assert site.has_file()
        assert await site.has_row()


async def test_who_read_the_row_just_before_cannot_keep_it_hot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(tmp_path) as site:
        _, blob = await site.store.index.find(HERE, DIGEST)
        assert blob is not None
        brake = Brake(site.store.blob_directory, monkeypatch)
        removal = asyncio.create_task(site.remove())
        await brake.reached.wait()
        site.store.admit(Kind.MANIFEST, HERE, blob, "text/plain")
        brake.may_go_on.set()
        await removal
        assert site.store.find_hot(Kind.MANIFEST, HERE, DIGEST) is None


async def test_a_caller_that_is_cancelled_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(tmp_path) as site:
        brake = Brake(site.store.blob_directory, monkeypatch)
        removal = asyncio.create_task(site.remove())
        await brake.reached.wait()
        removal.cancel()
        await asyncio.wait({removal})
        assert removal.cancelled()
        brake.may_go_on.set()
        assert await site.removal.finish() == 0
        assert (site.has_file(), await site.has_row(), site.disk_bytes) == (False, False, 0)
        assert site.store.claims.take_free(DIGEST)
        site.store.claims.release(DIGEST)


async def test_a_disk_too_full_for_the_index_is_freed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(used_at: dict[Digest, float]) -> set[Digest]:
        raise StorageError("index: writing failed: database or disk is full")

    async with open_site(tmp_path) as site:
        monkeypatch.setattr(site.index, "mark", refuse)
        assert await site.remove() == [DIGEST]
        assert (site.has_file(), await site.has_row(), site.disk_bytes) == (False, False, 0)
    assert "eviction unmarked" in caplog.text


async def test_a_file_that_cannot_be_removed_is_tried_again_and_counts_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(digest: Digest) -> None:
        raise StorageError(f"cannot remove {digest}")

    async with open_site(tmp_path) as site:
        with monkeypatch.context() as patched:
            patched.setattr(site.store.blob_directory, "remove_blob", refuse)
            assert await site.remove() == []
        assert (site.has_file(), await site.has_row(), site.disk_bytes) == (True, False, 4096)
        assert await site.removal.finish() == 1
        assert (site.has_file(), site.disk_bytes) == (False, 0)
        assert await site.removal.finish() == 0


async def test_a_file_that_is_being_stored_is_waited_for_and_not_taken_for_a_lost_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(tmp_path) as site:
        await site.remove()
        index = site.store.index
        commit, find = index.commit_manifest, index.find
        is_renamed, may_commit, has_looked = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def commit_when_told(*args: Any) -> None:
            is_renamed.set()
            await may_commit.wait()
            await commit(*args)

        async def find_and_tell(*args: Any) -> Any:
            found = await find(*args)
            has_looked.set()
            return found

        monkeypatch.setattr(index, "commit_manifest", commit_when_told)
        monkeypatch.setattr(index, "find", find_and_tell)
        storing = asyncio.create_task(site.commit())
        await is_renamed.wait()
        finding = asyncio.create_task(site.store.find(Kind.MANIFEST, HERE, DIGEST))
        await has_looked.wait()
        may_commit.set()
        known = await finding
        assert known.link is not None
        assert known.blob is not None
        assert known.blob.is_public
        await storing
