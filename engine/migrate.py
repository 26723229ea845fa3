"""Bring an index to the schema that this program knows.

Invariant: a migration and its record are committed together, so the recorded version is always the
schema that is there. Forward only; an index from a newer program is refused before it is touched.
Numbers run from 1 without gaps, so a version is also the count of migrations applied.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from engine.errors import IndexTooNew

_FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    script: str


@cache  # what the program is made of does not change while it runs
def load_migrations(directory: Traversable | None = None) -> tuple[Migration, ...]:
    """Read all migrations in `directory` (None = the program's own), in order.

    Raises ValueError where their numbers leave a gap or repeat: then the program is put together
    wrongly, and no index may be touched.
    """
    found = sorted(
        Migration(int(match["version"]), match["name"], entry.read_text("utf-8"))
        for entry in (directory or files("migrations")).iterdir()
        if (match := _FILE_NAME.fullmatch(entry.name))
    )
    versions = [migration.version for migration in found]
    if versions != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations are numbered {versions}, not 1, 2, 3, …")
    return tuple(found)


def migrate(path: Path, now: float, migrations: Sequence[Migration] | None = None) -> int:
    """Create or upgrade the index at `path`; return the version it had (0 = it was new).

    Blocks. `now` is recorded as the time of application. Raises `IndexTooNew`, or sqlite3.Error:
    then the migrations before the failing one are applied, and nothing of that one.
    """
    known = load_migrations() if migrations is None else migrations
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        version = read_version(connection)
        if version > len(known):
            raise IndexTooNew(str(path), version, len(known))
        for migration in known[version:]:
            _apply(connection, migration, now)
    return version


def check_version(path: Path) -> int:
    """Read the version of an index that nobody has open, changing nothing.

    Raises `IndexTooNew`, or sqlite3.Error for what is not an index.
    """
    address = f"{path.absolute().as_uri()}?immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        version = read_version(connection)
    known = len(load_migrations())
    if version > known:
        raise IndexTooNew(str(path), version, known)
    return version


def read_version(connection: sqlite3.Connection) -> int:
    """Read the schema version of an open index; 0 where it has no schema yet."""
    named = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'migration'"
    if connection.execute(named).fetchone() == (0,):
        return 0
    version: int
    (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM migration").fetchone()
    return version


def _apply(connection: sqlite3.Connection, migration: Migration, now: float) -> None:
    # `with connection` ends the transaction, it does not begin one; and executescript() would
    # commit by itself, so statements go one by one.
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _split(migration.script):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO migration (version, name, applied_at) VALUES (?, ?, ?)",
            (migration.version, migration.name, now),
        )


def _split(script: str) -> Iterator[str]:
    """Yield the statements of `script`; each ends at the end of a line."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
