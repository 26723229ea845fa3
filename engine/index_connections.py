"""The index's two connections, and how they come by a sound file.

Invariant: a file that SQLite calls damaged is replaced at once, at the opening and in the middle of
the work alike, and what found the damage is tried once more on the new file; so its users only see
that some rows are gone. Without a `Replacement` damage is an error like any other.
Must not know: the schema.
"""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiosqlite

from engine.errors import IndexDamaged, StorageError
from engine.index_rows import Row
from engine.index_writer import Probe, Statement, Writer, connect_writer, map_exceptions
from engine.migrate import migrate

log = logging.getLogger(__name__)

# How long to wait for a tool that has the write lock, in seconds. Tools read, in short reads.
_BUSY_S = 5.0

_PRAGMAS_WRITER = (
    "PRAGMA journal_mode = WAL",
    # What a power cut may undo is harmless, see migrations/README.md.
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    # A burst's WAL is cut down again to SQLite's usual size (1,000 pages).
    "PRAGMA journal_size_limit = 4096000",
)
# 256 KiB. The kernel has the file's pages, too; SQLite would keep 2 MB of a large index for each
# connection, and malloc those of one that is closed for the thread that had it.
_SMALL_CACHE = "PRAGMA cache_size = -256"
_PRAGMAS_READER = ("PRAGMA query_only = ON", _SMALL_CACHE)


class Replacement(Protocol):
    """Puts another file in the place of an index that is missing or damaged. Its calls block."""

    def prepare(self) -> bool:
        """Before the opening: find a file for an index that is missing; whether it was missing.

        Raises `StorageError`.
        """

    def replace(self, cause: IndexDamaged) -> None:
        """Set the damaged index aside, and put the best there is in its place, if only nothing.

        No connection is open then. Raises `StorageError`; each call tries something worse.
        """


@dataclass(frozen=True, slots=True)
class _Pair:
    """Open connections to one file. `owned` closes them."""

    reader: aiosqlite.Connection
    writer: Writer
    owned: AsyncExitStack


class Connections:
    """One connection that writes, one that reads. Whoever opened them closes them."""

    def __init__(self, path: Path, replacement: Replacement | None) -> None:
        # Names this run of the program, in rows that say what it has verified.
        self.run = secrets.randbits(62)
        self.write_count = 0
        self.failed_write_count = 0
        # Asked behind each write, of whichever file is the index then.
        self.probes: list[Probe] = []
        # Set when another file has taken the index's place: files may lack rows, rows files.
        self.was_replaced = asyncio.Event()
        self._path = path
        self._replacement = replacement
        self._pair: _Pair | None = None
        self._mending: asyncio.Task[None] | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Open the index, creating, migrating or replacing it as needed.

        Raises `IndexTooNew` for a newer program's, `StorageError` for what cannot be opened.
        """
        replacement = self._replacement
        if replacement is not None and await asyncio.to_thread(replacement.prepare):
            self.was_replaced.set()
        try:
            self._pair = await _open_pair(self._path, self.probes)
        except IndexDamaged as exc:
            if self._replacement is None:
                raise
            await self._replace(self._replacement, exc)

    async def read(self, sql: str, parameters: Row) -> list[sqlite3.Row]:
        """Run one query. Raises `StorageError`; safe to cancel."""
        try:
            return await self._read(sql, parameters)
        except IndexDamaged as exc:
            await self.mend(exc)
        return await self._read(sql, parameters)

    async def write(self, *statements: Statement, is_correction: bool = False) -> None:
        """Run `statements` in one transaction; see `Writer.write`."""
        self.write_count += 1
        try:
            await self._write_mending(statements, is_correction=is_correction)
        except StorageError:
            self.failed_write_count += 1
            raise

    async def _write_mending(self, statements: Sequence[Statement], *, is_correction: bool) -> None:
        try:
            await self._write(statements, is_correction=is_correction)
        except IndexDamaged as exc:
            await self.mend(exc)
            await self._write(statements, is_correction=is_correction)

    async def mend(self, cause: IndexDamaged) -> None:
        """Replace the damaged file under those who use it, once for all who found the damage.

        Raises `cause` where there is no `Replacement`, `StorageError` where replacing failed. A
        caller that is cancelled only stops waiting.
        """
        if self._replacement is None:
            raise cause
        if self._mending is None:
            self._mending = asyncio.create_task(self._mend(self._replacement, cause))
        task = self._mending
        await asyncio.wait({task})
        task.result()

    async def aclose(self) -> None:
        """Carry out the writes that wait, then close. Idempotent."""
        self._is_closed = True
        if self._mending is not None:
            await asyncio.wait({self._mending})
        pair, self._pair = self._pair, None
        if pair is not None:
            with map_exceptions("closing"):
                await pair.owned.aclose()

    async def _read(self, sql: str, parameters: Row) -> list[sqlite3.Row]:
        pair = await self._get_pair()
        with map_exceptions("reading"):
            return list(await pair.reader.execute_fetchall(sql, parameters))

    async def _write(self, statements: Sequence[Statement], *, is_correction: bool) -> None:
        writer = (await self._get_pair()).writer
        await writer.write(*statements, is_correction=is_correction)

    async def _get_pair(self) -> _Pair:
        if self._is_closed:
            raise StorageError("index: it is closed")
        if self._pair is None:
            # It is being replaced, or that failed (a full disk) and is tried once more.
            await self.mend(IndexDamaged("index: nothing could take its place"))
        assert self._pair is not None
        return self._pair

    async def _mend(self, replacement: Replacement, cause: IndexDamaged) -> None:
        try:
            pair, self._pair = self._pair, None
            if pair is not None:
                try:
                    with map_exceptions("closing"):
                        await pair.owned.aclose()
                except StorageError as exc:
                    # It is set aside, so what could not be folded into it is lost with it.
                    log.warning("damaged index not closed cause=%s", exc)
            await self._replace(replacement, cause)
        finally:
            self._mending = None

    async def _replace(self, replacement: Replacement, cause: IndexDamaged) -> None:
        while self._pair is None:
            await asyncio.to_thread(replacement.replace, cause)
            self.was_replaced.set()
            for probe in self.probes:
                if probe.restart is not None:
                    probe.restart()
            try:
                self._pair = await _open_pair(self._path, self.probes)
            except IndexDamaged as exc:
                cause = exc


async def _open_pair(path: Path, probes: Sequence[Probe]) -> _Pair:
    async with AsyncExitStack() as stack:
        with map_exceptions(f"opening {path}"):
            await asyncio.to_thread(migrate, path, time.time())
            # Closed last, so that the writer is who folds the WAL into the file.
            writer = connect_writer(path, _BUSY_S)
            await stack.enter_async_context(writer)
            reader = await stack.enter_async_context(
                aiosqlite.connect(path, timeout=_BUSY_S, isolation_level=None)
            )
            for pragma in _PRAGMAS_WRITER:
                await writer.execute_fetchall(pragma)
            for pragma in _PRAGMAS_READER:
                await reader.execute_fetchall(pragma)
        queue = Writer(writer, probes)
        stack.push_async_callback(queue.aclose)
        return _Pair(reader, queue, stack.pop_all())


@contextmanager
def _connect_apart(path: Path, options: str) -> Iterator[sqlite3.Connection]:
    """A connection of its own, for reads that take long: those of the two never wait for it."""
    address = f"{path.absolute().as_uri()}?{options}"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        connection.execute(_SMALL_CACHE)
        yield connection


def find_damage(path: Path, *, is_closed: bool = False) -> str | None:
    """Read a whole index and say what is wrong with its structure, if anything. Blocks.

    `is_closed`: nobody has it open. Then it is read as it lies there; SQLite would otherwise make
    files beside it.
    """
    try:
        with (
            map_exceptions("checking"),
            _connect_apart(path, "immutable=1" if is_closed else "mode=ro") as connection,
        ):
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except IndexDamaged as exc:
        return str(exc)
    return None if verdict == "ok" else str(verdict)


def back_up(path: Path, target: Path) -> None:
    """Copy the open index, as it is at one moment, to the new file `target`. Blocks.

    In one step: in WAL mode that holds up no writer, and with several each write in between would
    begin it anew. Raises `StorageError`.
    """
    with (
        map_exceptions(f"copying to {target}"),
        _connect_apart(path, "mode=ro") as connection,
        closing(sqlite3.connect(target)) as copy,
    ):
        copy.execute(_SMALL_CACHE)
        connection.backup(copy)
