"""What migrations promise, on real SQLite files."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import IndexTooNew
from engine.migrate import Migration, load_migrations, migrate

FIRST = Migration(1, "first", "CREATE TABLE migration (version, name, applied_at);")
# A semicolon that ends nothing, one that ends a statement before a comment, and one left out.
SECOND = Migration(
    2,
    "second",
    "CREATE TABLE a (x);\nINSERT INTO a\nVALUES (';'); -- one;\nINSERT INTO a VALUES (2)",
)
BROKEN = Migration(2, "broken", "CREATE TABLE a (x);\nINSERT INTO absent VALUES (1);\n")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite3"


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def write_files(directory: Path, names: Sequence[str]) -> Path:
    for name in names:
        (directory / name).write_text("SELECT 1;")
    return directory


def test_applies_what_is_lacking_and_records_it(path: Path) -> None:
    assert migrate(path, 10.0, [FIRST]) == 0
    assert migrate(path, 20.0, [FIRST, SECOND]) == 1
    assert migrate(path, 30.0, [FIRST, SECOND]) == 2
    assert query(path, "SELECT * FROM migration") == [(1, "first", 10.0), (2, "second", 20.0)]
    assert query(path, "SELECT x FROM a") == [(";",), (2,)]


def test_a_migration_that_fails_leaves_nothing_behind(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="absent"):
        migrate(path, 10.0, [FIRST, BROKEN])
    assert query(path, "SELECT version FROM migration") == [(1,)]
    assert query(path, "SELECT name FROM sqlite_schema WHERE name = 'a'") == []
    assert migrate(path, 20.0, [FIRST, SECOND]) == 1


def test_refuses_an_index_of_a_newer_program_with_both_versions(path: Path) -> None:
    migrate(path, 10.0, [FIRST, SECOND])
    before = path.read_bytes()
    with pytest.raises(IndexTooNew, match="version 2; this program knows 1") as caught:
        migrate(path, 20.0, [FIRST])
    assert (caught.value.found, caught.value.known) == (2, 1)
    assert path.read_bytes() == before


def test_reads_the_numbered_files_in_order_and_no_others(tmp_path: Path) -> None:
    names = ["0002_b.sql", "0001_a.sql", "README.md", "__init__.py", "0003_C.sql", "3_c.sql"]
    found = load_migrations(write_files(tmp_path, names))
    assert [(migration.version, migration.name) for migration in found] == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    "names",
    [["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"]],
    ids=["does not start at 1", "gap", "twice"],
)
def test_refuses_numbers_with_a_gap(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match="numbered"):
        load_migrations(write_files(tmp_path, names))


def test_the_program_s_own_migrations_make_strict_tables_only(path: Path) -> None:
    known = load_migrations()
    assert migrate(path, 10.0) == 0
    assert query(path, "SELECT max(version) FROM migration") == [(len(known),)]
    tables = query(path, "SELECT name, strict FROM pragma_table_list WHERE schema = 'main'")
    lax = {name for name, strict in tables if not strict}
    assert lax == {"sqlite_schema"}
