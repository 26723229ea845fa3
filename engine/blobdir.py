"""The blob directory: the one door to blob files and partials.

Invariant: a file under `blobs/` is complete, verified and never opened for writing; it gets there
by rename, after fsync. A power loss leaves a partial or a blob, never a torn blob.
All calls block: those that write or sync belong in a thread. They raise `StorageError`.
"""

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from engine.errors import StorageError
from engine.hashing import digest_of
from engine.layout import Layout
from engine.names import DIGEST_HEX_CHARS, Digest, is_digest

T = TypeVar("T")

_BLOB_MODE = 0o444
_MAX_PARTS = os.sysconf("SC_IOV_MAX")  # that one call can write
TEMPORARY_SUFFIX = ".tmp"
_SHARD = re.compile(r"[a-f0-9]{2}", re.ASCII)


@contextmanager
def map_exceptions(action: str) -> Iterator[None]:
    """Translate `OSError` into `StorageError`, saying what was tried."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"cannot {action}: {exc}") from exc


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file at a blob's place. Times are unix seconds, by the file system."""

    size_bytes: int
    stored_at: float
    read_at: float  # as far as the file system notes it

    def is_plausible(self, digest: Digest) -> bool:
        """Whether it may be a blob: an empty file is what some crashes make of any file."""
        return self.size_bytes > 0 or digest == digest_of(b"", digest.algorithm)


@dataclass(frozen=True, slots=True)
class Shard:
    """One directory of blobs. `foreign`: paths of what is no blob."""

    digests: set[Digest]
    foreign: list[str]


class BlobDirectory:
    """Blob files and partials under a layout's root."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def prepare(self) -> None:
        """Make the directories that are not there yet."""
        with map_exceptions(f"prepare {self.layout.root}"):
            for directory in self.layout.directories:
                directory.mkdir(parents=True, exist_ok=True)

    def clean(self) -> None:
        """Remove what unfinished writes of an earlier run left; partials of fills stay."""
        for path in self.layout.partial_directory.iterdir():
            if path.suffix == TEMPORARY_SUFFIX:
                with map_exceptions(f"remove {path}"):
                    path.unlink(missing_ok=True)

    def open_blob(self, digest: Digest) -> int:
        """Open a blob for reading and return its descriptor. Raises `FileNotFoundError`."""
        return os.open(self.layout.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)

    def remove_blob(self, digest: Digest) -> None:
        """Remove a blob, of which nothing may be left to find; those who have it open keep on."""
        path = self.layout.blob_path(digest)
        with map_exceptions(f"remove {path}"):
            path.unlink(missing_ok=True)

    def path_of(self, digest: Digest) -> Path:
        """Where a blob's file is, or would be; for people."""
        return self.layout.blob_path(digest)

    def find_file(self, digest: Digest) -> FoundFile | None:
        """Look at a blob's file; None where there is no ordinary file."""
        path = self.layout.blob_path(digest)
        with map_exceptions(f"look at {path}"):
            try:
                found = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return FoundFile(found.st_size, found.st_mtime, found.st_atime)

    def list_shard(self, algorithm: str, shard: str) -> Shard:
        """List the blobs whose hex begins with the two characters `shard`, and what is foreign."""
        path = self.layout.shard_path(algorithm, shard)
        found = Shard(set(), [])
        # One entry at a time: a list of them would be the most memory that a start ever takes.
        with (
            map_exceptions(f"list {path}"),
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(path) as entries,
        ):
            for entry in entries:
                digest = f"{algorithm}:{entry.name}"
                is_file = entry.is_file(follow_symlinks=False)
                if is_file and entry.name.startswith(shard) and is_digest(digest):
                    found.digests.add(Digest(digest))
                else:
                    found.foreign.append(str(path / entry.name))
        return found

    def list_shard_paths(self) -> list[Path]:
        """List the directories that hold blobs."""
        with map_exceptions(f"list {self.layout.root / 'blobs'}"):
            return list((self.layout.root / "blobs").glob("*/*/"))

    def has_any(self, algorithm: str) -> bool:
        """Whether an algorithm's directory holds anything at all."""
        path = self.layout.root / "blobs" / algorithm
        with map_exceptions(f"list {path}"), os.scandir(path) as entries:
            return next(entries, None) is not None

    def list_foreign(self) -> list[str]:
        """List what has no business beside the directories that hold blobs."""
        blobs = self.layout.root / "blobs"
        with map_exceptions(f"list {blobs}"):
            beside = [path for path in blobs.iterdir() if path.name not in DIGEST_HEX_CHARS]
            for algorithm in DIGEST_HEX_CHARS:
                beside += [
                    path
                    for path in (blobs / algorithm).iterdir()
                    if not _SHARD.fullmatch(path.name) or not path.is_dir()
                ]
        return [str(path) for path in beside]

    def open_partial(self, digest: Digest) -> int:
        """Open a partial for reading and writing, making it where there is none."""
        path = self.layout.partial_path(digest)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with map_exceptions(f"open {path}"):
            return _make_in(path.parent, lambda: os.open(path, flags, 0o644))

    def remove_partial(self, digest: Digest) -> None:
        """Remove a partial; those who have it open keep reading."""
        path = self.layout.partial_path(digest)
        with map_exceptions(f"remove {path}"):
            path.unlink(missing_ok=True)

    def commit(self, digest: Digest) -> None:
        """Make a complete, verified partial a blob: fsync, then rename, then fsync the directory.

        A blob that is already there is replaced by the same bytes.
        """
        self._commit(self.layout.partial_path(digest), digest)

    def write_blob(self, digest: Digest, body: bytes) -> None:
        """Store verified content that is in memory. Two may do so at once for one digest."""
        path = self.layout.partial_path(digest)
        with map_exceptions(f"write {path}"):
            descriptor, name = _make_in(
                path.parent, lambda: tempfile.mkstemp(TEMPORARY_SUFFIX, path.name, path.parent)
            )
        temporary = Path(name)
        try:
            try:
                write_all(descriptor, [body], 0)
            finally:
                with map_exceptions(f"close {temporary}"):
                    os.close(descriptor)
            self._commit(temporary, digest)
        except StorageError:
            # Where that fails too, `clean` will do it.
            with map_exceptions(f"remove {temporary}"):
                temporary.unlink(missing_ok=True)
            raise

    def temporary_path(self, digest: Digest) -> Path:
        """Where a file may be made ready to become a blob, by one at a time; `clean` removes it."""
        path = self.layout.partial_path(digest)
        return path.with_name(f"{path.name}{TEMPORARY_SUFFIX}")

    def commit_file(self, source: Path, digest: Digest, *, is_shared: bool) -> None:
        """Make a verified file a blob, as `commit` does.

        `is_shared`: it is another program's file too, so its mode stays. It may be left in place
        where it is the blob's own file already.
        """
        self._commit(source, digest, mode=None if is_shared else _BLOB_MODE)

    def _commit(self, source: Path, digest: Digest, mode: int | None = _BLOB_MODE) -> None:
        blob = self.layout.blob_path(digest)
        with map_exceptions(f"commit {blob}"):
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if mode is not None:
                    os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not blob.parent.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                sync_directory(blob.parent.parent)
            source.rename(blob)
            try:
                sync_directory(blob.parent)
            except OSError:
                # Without a row nobody would count it; where there is one, it heals.
                blob.unlink()
                raise


def _make_in(directory: Path, make: Callable[[], T]) -> T:
    """Make a file in a directory that somebody may have removed, to be rid of what was in it."""
    try:
        return make()
    except FileNotFoundError:
        directory.mkdir(exist_ok=True)
        return make()


def count_bytes(directory: Path, block_bytes: int) -> int:
    """Sum up what the files in a directory take, each rounded up to blocks.

    Looks at each of them: some milliseconds for thousands, if the file system has them in memory.
    """
    total_bytes = 0
    with map_exceptions(f"count {directory}"), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # evicted meanwhile
                size_bytes = entry.stat(follow_symlinks=False).st_size
                total_bytes += -(-size_bytes // block_bytes) * block_bytes
    return total_bytes


def truncate(descriptor: int) -> None:
    """Empty an open partial."""
    with map_exceptions("truncate a partial"):
        os.ftruncate(descriptor, 0)


def write_all(descriptor: int, parts: Iterable[bytes], offset: int) -> None:
    """Write all of `parts`, one behind the other, from `offset` on.

    As few calls as can be: the kernel keeps what one call writes in folios as large as it can, and
    a page of a large folio costs less to send.
    """
    with map_exceptions("write to a partial"):
        views = (memoryview(part) for part in parts)
        while some := list(islice(views, _MAX_PARTS)):
            while some:
                count = os.pwritev(descriptor, some, offset)
                offset += count
                some = _skip(some, count)


def _skip(parts: list[memoryview], count_bytes: int) -> list[memoryview]:
    """Return what is left of `parts` behind its first bytes."""
    for number, part in enumerate(parts):
        if count_bytes < len(part):
            return [part[count_bytes:], *parts[number + 1 :]]
        count_bytes -= len(part)
    return []


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Read up to `count` bytes at `offset`; fewer only at the end of the file."""
    with map_exceptions("read a partial"):
        return os.pread(descriptor, count, offset)


def size_of(descriptor: int) -> int:
    """The size of an open file in bytes."""
    with map_exceptions("stat an open file"):
        return os.fstat(descriptor).st_size


def allocated_bytes_of(descriptor: int) -> int:
    """What an open file takes on the disk, in bytes."""
    with map_exceptions("stat an open file"):
        return os.fstat(descriptor).st_blocks * 512  # whatever the block size (inode(7))


def sync_directory(path: Path) -> None:
    """Make renames in a directory safe. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
