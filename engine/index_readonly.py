"""The index for tools: read while a server writes it, or while nobody has it open.

Invariant: nothing is ever written, and no read lasts: each statement sees one state and is over
within a fraction of a second, so the server can fold its WAL at any time. The file is opened read
only; a connection that may write would, should the server have replaced a damaged index meanwhile,
delete the new one's WAL when it closes as the last.
"""

import sqlite3
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import IndexTooNew, StorageError
from engine.index_connections import Connections
from engine.index_rows import Row
from engine.index_writer import Statement, map_exceptions
from engine.migrate import load_migrations, read_version

_BUSY_S = 5.0


class ReadOnlyConnections(Connections, AbstractAsyncContextManager["ReadOnlyConnections"]):
    """Stands for the index's connections wherever only reads are made; an async context manager.

    Reads block the event loop, on which a tool has nothing else to do.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, None)
        self._file = path
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        """Open the index. Raises `StorageError`, also where its schema is not this program's."""
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Open the index; see `__aenter__`."""
        if not self._file.exists():
            raise StorageError(f"there is no index at {self._file}")
        address = f"{self._file.absolute().as_uri()}?mode=ro"
        with map_exceptions(f"opening {self._file}"):
            connection = sqlite3.connect(address, uri=True, timeout=_BUSY_S, isolation_level=None)
            self._connection = connection
            try:
                connection.execute("PRAGMA query_only = ON")
                version = read_version(connection)
            except sqlite3.Error:
                await self.aclose()
                raise
        known = len(load_migrations())
        if version != known:
            await self.aclose()
            raise _wrong_version(self._file, version, known)

    async def read(self, sql: str, parameters: Row) -> list[sqlite3.Row]:
        """Run one query. Raises `StorageError`."""
        if self._connection is None:
            raise StorageError("index: it is closed")
        with map_exceptions("reading"):
            return self._connection.execute(sql, parameters).fetchall()

    async def write(self, *statements: Statement, is_correction: bool = False) -> None:
        """Refuse."""
        raise StorageError("index: it is open for reading only")

    async def aclose(self) -> None:
        """Close it. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _wrong_version(path: Path, version: int, known: int) -> StorageError:
    if version > known:
        return IndexTooNew(str(path), version, known)
    return StorageError(
        f"{path} has schema version {version}, this program's is {known}: "
        "its server brings it up to date when it starts"
    )
