"""What a lead receives is written and hashed in threads, in large pieces, and never lost."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine import blobdir
from engine.blobdir import BlobDirectory
from engine.errors import StorageError
from engine.fill import HELD_BACK_BYTES, Fill, Outcome
from engine.hands import Hands
from engine.hashing import digest_of
from engine.intake import PIECE_BYTES, Intake
from engine.layout import Layout
from engine.leftovers import Leftovers
from engine.partial import Partial
from engine.reader import Reader
from engine.room import Room
from engine.space import Space
from tests.fakes.caches import read_fill
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

DONE = (Outcome.DONE,)
PART_BYTES = PIECE_BYTES // 4
DATA = make_bytes(8 * PIECE_BYTES)
PARTS = [DATA[start : start + PART_BYTES] for start in range(0, len(DATA), PART_BYTES)]


class Disk:
    """Holds up every write to a partial until it is let through; it may fail the next ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_free = threading.Event()
        monkeypatch.setattr("engine.intake.FIRST_BYTES", 0)  # a thread is held up, and not the loop
        self.is_free.set()
        self.error: Exception | None = None
        self.began = threading.Semaphore(0)
        self.write_all = blobdir.write_all
        monkeypatch.setattr(blobdir, "write_all", self._write)

    def _write(self, fd: int, parts: list[bytes], offset: int) -> None:
        self.began.release()
        assert self.is_free.wait(30)
        if self.error is not None:
            raise self.error
        self.write_all(fd, parts, offset)


class Bench:
    """An intake with all that it works on."""

    def __init__(self, path: Path, data: bytes) -> None:
        directory = BlobDirectory(Layout(path))
        directory.prepare()
        space = Space(1 << 30)
        self.partials = path / "partial"
        self.hands = Hands()
        self.fill = Fill(digest_of(data), len(data))
        self.file = Partial(self.fill, directory, Room(space), Leftovers(space), self.hands)
        self.intake = Intake(self.fill, self.file, self.hands)
        self.reader = Reader(self.fill)


@asynccontextmanager
async def bench_for(path: Path, data: bytes = DATA) -> AsyncIterator[Bench]:
    bench = Bench(path, data)
    await bench.file.open(len(data))
    try:
        yield bench
    finally:
        await bench.intake.release()
        bench.reader.close()
        bench.fill.leave()
        bench.hands.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def wait_begun(disk: Disk) -> None:
    assert await asyncio.to_thread(disk.began.acquire, timeout=30)


async def take_until_full(bench: Bench) -> "asyncio.Task[None]":
    """Give parts until one has to wait, and return the task that waits."""
    for part in PARTS:
        task = asyncio.create_task(bench.intake.take(part))
        await asyncio.wait({task}, timeout=0.05)
        if not task.done():
            return task
    raise AssertionError("it took everything")


async def test_what_comes_is_published_whole_and_hashed(tmp_path: Path) -> None:
    async with bench_for(tmp_path) as bench:
        for part in PARTS:
            await bench.intake.take(part)
        await bench.intake.settle()
        assert bench.fill.written_bytes == len(DATA)
        assert bench.intake.digest == bench.fill.digest
        assert os.pread(bench.fill.fd, len(DATA), 0) == DATA


async def test_the_first_bytes_do_not_wait_for_a_large_piece(tmp_path: Path) -> None:
    async with bench_for(tmp_path) as bench:
        await bench.intake.take(DATA[:100])
        while bench.fill.written_bytes == 0:
            await bench.fill.wait_changed()
        assert bench.fill.written_bytes == 100


async def test_who_waits_for_the_first_piece_goes_before_the_second(tmp_path: Path) -> None:
    async with bench_for(tmp_path) as bench:
        bench.fill.open(len(DATA))
        waiting = asyncio.create_task(bench.reader.wait_open())
        await asyncio.sleep(0)  # it waits from now on
        await bench.intake.take(PARTS[0])
        assert waiting.done()


async def test_a_slow_disk_makes_upstream_wait_behind_a_piece(tmp_path: Path, disk: Disk) -> None:
    async with bench_for(tmp_path) as bench:
        disk.is_free.clear()
        waiting = await take_until_full(bench)
        assert PIECE_BYTES < bench.intake.end <= 2 * PIECE_BYTES + PART_BYTES
        assert bench.fill.written_bytes == 0, "nothing is published before it is written"
        disk.is_free.set()
        await waiting


async def test_what_a_failing_disk_refused_goes_on_through_the_window(
    tmp_path: Path, disk: Disk
) -> None:
    async with bench_for(tmp_path) as bench:
        await bench.intake.take(PARTS[0])
        await bench.intake.settle()
        disk.is_free.clear()
        disk.error = StorageError("cannot write to a partial: No space left on device")
        await bench.intake.take(PARTS[1])  # which a thread is at
        await bench.intake.take(PARTS[2])  # which gathers behind it
        disk.is_free.set()
        for part in PARTS[3:]:
            await bench.intake.take(part)
        await bench.intake.settle()
        assert bench.fill.stored_bytes == PART_BYTES
        assert not list(bench.partials.iterdir())
        assert bench.intake.digest == bench.fill.digest
        bench.fill.end(*DONE)
        assert await read_fill(bench.reader) == DATA


async def test_bytes_that_have_no_room_any_more_are_not_lost(tmp_path: Path, disk: Disk) -> None:
    async with bench_for(tmp_path) as bench:
        disk.is_free.clear()
        await bench.intake.take(PARTS[0])
        await bench.intake.take(PARTS[1])
        stopping = asyncio.create_task(bench.intake.stop_storing(StorageError("no room")))
        await wait_begun(disk)
        disk.is_free.set()
        await stopping
        assert bench.fill.stored_bytes == PART_BYTES, "the thread was waited for"
        assert bench.fill.written_bytes == 2 * PART_BYTES


async def test_a_fault_of_the_program_is_no_fault_of_the_disk(tmp_path: Path, disk: Disk) -> None:
    async with bench_for(tmp_path) as bench:
        disk.error = ZeroDivisionError("a bug")
        await bench.intake.take(PARTS[0])
        with pytest.raises(ZeroDivisionError):
            await bench.intake.settle()


async def test_the_end_waits_for_the_thread_however_often_it_is_cancelled(
    tmp_path: Path, disk: Disk
) -> None:
    async with bench_for(tmp_path) as bench:
        disk.is_free.clear()
        await bench.intake.take(PARTS[0])
        await wait_begun(disk)
        ending = asyncio.create_task(bench.intake.release())
        for _ in range(3):
            await asyncio.sleep(0)
            ending.cancel()
        assert not ending.done()
        disk.is_free.set()
        await asyncio.wait({ending})
        assert bench.fill.written_bytes == PART_BYTES


async def test_small_content_has_no_file_before_it_is_a_blob(tmp_path: Path) -> None:
    small = DATA[:HELD_BACK_BYTES]
    async with bench_for(tmp_path, small) as bench:
        await bench.intake.take(small[:1000])
        await bench.intake.take(small[1000:])
        assert not list(bench.partials.iterdir())
        assert bench.fill.body == small
        bench.fill.open(len(small))
        bench.fill.end(*DONE)
        assert await read_fill(bench.reader) == small


async def test_work_whose_caller_left_is_undone(disk: Disk) -> None:
    hands, undone, may_end = Hands(), list[int](), threading.Event()

    def work() -> int:
        disk.began.release()
        assert may_end.wait(30)
        return 7

    task = asyncio.create_task(hands.run(work, undone.append))
    await wait_begun(disk)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == [7]
    hands.close()
