"""What disks, crashes and people do to a data directory."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from engine.layout import Layout
from engine.names import Digest


def blob_path(data: Path, digest: Digest) -> Path:
    """Where a blob lies in the data directory `data`."""
    return Layout(data).blob_path(digest)


def flip_bit(path: Path, offset: int = 0) -> None:
    """Flip one bit, as a failing disk would: neither size nor times tell of it."""
    times = path.stat()
    mode = times.st_mode
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    path.chmod(mode)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def truncate(path: Path, size_bytes: int) -> None:
    """Cut a file off."""
    path.chmod(0o644)
    os.truncate(path, size_bytes)


def lose_index(data: Path) -> None:
    """Remove the index and its snapshot."""
    for path in data.glob("index.*"):
        path.unlink()


def query(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    """Run SQL on an index."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql, parameters).fetchall()


def kept_in_quarantine(data: Path) -> list[str]:
    """List what was set apart, by digest in its file's form."""
    return sorted(path.name.partition(".")[0] for path in (data / "quarantine").iterdir())


def iter_blob_files(data: Path) -> Iterator[Path]:
    """Every file below `blobs/`."""
    return (path for path in (data / "blobs").rglob("*") if path.is_file())
