"""`index.snapshot` is always whole and sound, and never older than it needs to be."""

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from engine import snapshot, upkeep
from engine.errors import StorageError
from engine.index import Index
from engine.index_connections import find_damage
from engine.layout import Layout
from engine.recovery import Recovery
from engine.snapshot import Snapshots
from tests.component.index_examples import HERE, blob_of, digest_of, link_of
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.damage import query
from tests.fakes.memory_upstream import MemoryUpstream, cache_before
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio


async def test_a_clean_stop_leaves_a_snapshot_of_everything(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    digest = upstream.content.add_blob(BUSYBOX.repository, b"x")
    async with cache_before(tmp_path, upstream) as cache:
        await read_blob(cache, BUSYBOX, digest)
    dumps = []
    for name in ("index.sqlite3", "index.snapshot"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            dumps.append(list(connection.iterdump()))
    assert dumps[0] == dumps[1]
    assert {"index.snapshot", "index.sqlite3"} == {
        name for name in os.listdir(tmp_path) if name.startswith("index.")
    }


async def test_one_is_taken_while_it_runs_if_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SNAPSHOT_INTERVAL_S", 0.001)
    taken = asyncio.Event()
    real = Snapshots.take_once

    async def take_once(self: Snapshots) -> bool:
        was_taken = await real(self)
        if was_taken:
            taken.set()
        return was_taken

    monkeypatch.setattr(Snapshots, "take_once", take_once)
    async with cache_before(tmp_path, MemoryUpstream()):
        await taken.wait()
        assert find_damage(tmp_path / "index.snapshot", is_closed=True) is None


async def test_a_second_close_takes_no_second_snapshot(tmp_path: Path) -> None:
    async with cache_before(tmp_path, MemoryUpstream()) as cache:
        await cache._upkeep.aclose()
        (tmp_path / "index.snapshot").unlink()
        await cache._upkeep.aclose()
    assert not (tmp_path / "index.snapshot").exists()


async def test_nothing_is_copied_where_nothing_changed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    index = await Index.open(layout.index_path)
    try:
        snapshots = Snapshots(index.connections, layout)
        assert await snapshots.take_once()
        assert not await snapshots.take_once()
        await index.commit_blob(HERE, blob_of(1), link_of(1))
        assert await snapshots.take_once()
        assert query(layout.snapshot_path, "SELECT digest FROM blob") == [(digest_of(1),)]
        layout.snapshot_path.unlink()
        assert await snapshots.take_once()
    finally:
        await index.aclose()


async def test_one_thread_makes_all_copies_and_inspections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = list[str]()

    def look(path: Path, *, is_closed: bool = False) -> str | None:
        threads.append(threading.current_thread().name)
        return find_damage(path, is_closed=is_closed)

    monkeypatch.setattr(snapshot, "find_damage", look)
    layout = Layout(tmp_path)
    index = await Index.open(layout.index_path)
    try:
        snapshots = Snapshots(index.connections, layout)
        for number in range(5):
            await index.commit_blob(HERE, blob_of(number), link_of(number))
            assert await snapshots.take_once()
        await snapshots.inspect_once()
    finally:
        await index.aclose()
    assert threads == ["snapshot_0"] * 6


async def test_it_is_one_moment_of_an_index_that_is_written_all_the_while(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    index = await Index.open(layout.index_path)
    try:
        snapshots = Snapshots(index.connections, layout)
        written = [index.commit_blob(HERE, blob_of(n), link_of(n)) for n in range(500)]
        await asyncio.gather(snapshots.take_once(), *written)
        ((blobs, links),) = query(
            layout.snapshot_path,
            "SELECT (SELECT count(*) FROM blob), (SELECT count(*) FROM link)",
        )
        assert blobs == links
    finally:
        await index.aclose()


async def test_a_damaged_index_does_not_replace_a_good_snapshot_but_is_replaced(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    index = await Index.open(layout.index_path, Recovery(layout))
    for number in range(300):
        await index.commit_blob(HERE, blob_of(number), link_of(number))
    assert await Snapshots(index.connections, layout).take_once()
    await index.aclose()
    index = await Index.open(layout.index_path, Recovery(layout))
    try:
        with layout.index_path.open("r+b") as file:
            file.seek(16_384)
            file.write(make_bytes(8_192))
        await Snapshots(index.connections, layout).take_once()
        # The good snapshot has become the index.
        assert (await index.usage()).blob_count == 300
        for number in range(300):
            assert (await index.find(HERE, digest_of(number)))[0] == link_of(number)
    finally:
        await index.aclose()
    assert find_damage(layout.index_path, is_closed=True) is None


@pytest.mark.parametrize("call", ["back_up", "sync_directory"])
async def test_a_disk_that_refuses_costs_nothing_but_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    layout = Layout(tmp_path)
    index = await Index.open(layout.index_path)
    try:
        snapshots = Snapshots(index.connections, layout)
        await snapshots.take_once()
        await index.commit_blob(HERE, blob_of(1), link_of(1))

        def fail(*_: object) -> None:
            raise StorageError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(snapshot, call, fail)
            assert not await snapshots.take_once()
        assert find_damage(layout.snapshot_path, is_closed=True) is None
        assert await snapshots.take_once()
    finally:
        await index.aclose()
    assert sorted(os.listdir(tmp_path)) == ["index.snapshot", "index.sqlite3"]
