"""The blob directory: the one door to blob files and partials.

Invariant: a file under `blobs/` is complete, verified and never opened for writing; it gets there
by rename, after fsync. A power loss leaves a partial or a blob, never a torn blob.
All calls block: those that write or sync belong in a thread. They raise `StorageError`.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import StorageError
from engine.layout import Layout
from engine.names import Digest

_BLOB_MODE = 0o444
TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def map_exceptions(action: str) -> Iterator[None]:
    """Translate `OSError` into `StorageError`, saying what was tried."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"cannot {action}: {exc}") from exc


class BlobDirectory:
    """Blob files and partials under a layout's root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def prepare(self) -> None:
        """Make the directories that are not there yet."""
        with map_exceptions(f"prepare {self._layout.root}"):
            for directory in self._layout.directories:
                directory.mkdir(parents=True, exist_ok=True)

    def clean(self) -> None:
        """Remove what unfinished writes of an earlier run left; partials of fills stay."""
        for path in self._layout.partial_directory.iterdir():
            if path.suffix == TEMPORARY_SUFFIX:
                with map_exceptions(f"remove {path}"):
                    path.unlink(missing_ok=True)

    def open_blob(self, digest: Digest) -> int:
        """Open a blob for reading and return its descriptor. Raises `FileNotFoundError`."""
        return os.open(self._layout.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)

    def open_partial(self, digest: Digest) -> int:
        """Open a partial for reading and writing, making it where there is none."""
        path = self._layout.partial_path(digest)
        with map_exceptions(f"open {path}"):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def remove_partial(self, digest: Digest) -> None:
        """Remove a partial; those who have it open keep reading."""
        path = self._layout.partial_path(digest)
        with map_exceptions(f"remove {path}"):
            path.unlink(missing_ok=True)

    def commit(self, digest: Digest) -> None:
        """Make a complete, verified partial a blob: fsync, then rename, then fsync the directory.

        A blob that is already there is replaced by the same bytes.
        """
        self._commit(self._layout.partial_path(digest), digest)

    def write_blob(self, digest: Digest, body: bytes) -> None:
        """Store verified content that is in memory. Two may do so at once for one digest."""
        path = self._layout.partial_path(digest)
        with map_exceptions(f"write {path}"):
            descriptor, name = tempfile.mkstemp(TEMPORARY_SUFFIX, path.name, path.parent)
        temporary = Path(name)
        try:
            try:
                write_all(descriptor, body, 0)
            finally:
                os.close(descriptor)
            self._commit(temporary, digest)
        except StorageError:
            temporary.unlink(missing_ok=True)
            raise

    def _commit(self, source: Path, digest: Digest) -> None:
        blob = self._layout.blob_path(digest)
        with map_exceptions(f"commit {blob}"):
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fchmod(descriptor, _BLOB_MODE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not blob.parent.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                _sync_directory(blob.parent.parent)
            source.rename(blob)
            _sync_directory(blob.parent)


def truncate(descriptor: int) -> None:
    """Empty an open partial."""
    with map_exceptions("truncate a partial"):
        os.ftruncate(descriptor, 0)


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    with map_exceptions("write to a partial"):
        view = memoryview(data)
        while view:
            count = os.pwrite(descriptor, view, offset)
            view, offset = view[count:], offset + count


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Read up to `count` bytes at `offset`; fewer only at the end of the file."""
    with map_exceptions("read a partial"):
        return os.pread(descriptor, count, offset)


def size_of(descriptor: int) -> int:
    """The size of an open file in bytes."""
    with map_exceptions("stat an open file"):
        return os.fstat(descriptor).st_size


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
