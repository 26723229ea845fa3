"""A file of another program's made a blob of ours: cloned, linked or copied, and verified.

Invariant: what becomes a blob has been read and has its digest, by the very inode or bytes that
are committed. The source is opened for reading alone, and neither its content nor its mode is
changed. Until the commit everything is a temporary file, which the next start clears away.
All calls block: they belong in a thread.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Event

from engine.blobdir import BlobDirectory, map_exceptions, write_all
from engine.errors import CacheError, DigestMismatch
from engine.hashing import Hasher
from engine.names import Digest

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_PIECE_BYTES = 1024 * 1024
# The ways in which a kernel says that a file cannot be cloned or linked there.
_IMPOSSIBLE = (
    *(errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS),
    *(errno.EPERM, errno.EACCES, errno.EMLINK),
)


class Mode(Enum):
    """How a file comes in."""

    REFLINK = "reflink"  # a file of its own that shares the blocks until one is written
    HARDLINK = "hardlink"  # the same file under another name
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Taken:
    """What came in, and how."""

    size_bytes: int
    xxh3: bytes
    mode: Mode


class SourceUnreadable(CacheError):
    """The file that was to come in cannot be read."""


class CannotShare(CacheError):
    """The file can come in only by copying, which was not asked for."""


class BrokenOff(CacheError):
    """`Intake.stop` was set."""


class Intake:
    """Takes files in. `progress` is called with bytes that were read, from any thread."""

    def __init__(
        self,
        blob_directory: BlobDirectory,
        modes: tuple[Mode, ...],
        progress: Callable[[int], None],
    ) -> None:
        """`modes` are tried in order."""
        self.stop = Event()
        self._blob_directory = blob_directory
        self._modes = modes
        self._progress = progress

    def take(self, source: Path, digest: Digest, *, is_rewritable: bool) -> Taken:
        """Make `source` the blob `digest`, replacing a file that is there.

        `is_rewritable`: its writer may write it in place, so it is not linked. Raises
        `DigestMismatch`, `SourceUnreadable`, `CannotShare`, `BrokenOff`, or, where our own disk
        fails, `StorageError`; then nothing of it is left.
        """
        with _open_source(source) as source_fd, self._temporary(digest) as temporary:
            mode = self._acquire(source_fd, source, temporary, is_rewritable=is_rewritable)
            hasher = Hasher(digest.algorithm)
            if mode is Mode.COPY:
                self._copy(source_fd, temporary, hasher)
            else:
                self._hash(source_fd, temporary, hasher)
            if hasher.digest != digest:
                raise DigestMismatch(digest, hasher.digest)
            size_bytes = os.fstat(source_fd).st_size
            is_shared = mode is Mode.HARDLINK
            self._blob_directory.commit_file(temporary, digest, is_shared=is_shared)
        return Taken(size_bytes, hasher.xxh3, mode)

    def pass_over(self, size_bytes: int) -> None:
        """Count bytes as done that need not be read."""
        self._progress(size_bytes)

    def _acquire(
        self, source_fd: int, source: Path, temporary: Path, *, is_rewritable: bool
    ) -> Mode:
        """Clone or link where that is possible; `COPY` = it is still to be copied."""
        modes, reason = self._modes, ""
        if is_rewritable:
            # A few KiB: nobody asks for hard links of those to save room.
            modes = tuple(mode for mode in modes if mode is not Mode.HARDLINK) or (Mode.COPY,)
        for mode in modes:
            try:
                _share(mode, source_fd, source, temporary)
            except OSError as exc:
                if exc.errno not in _IMPOSSIBLE:
                    with map_exceptions(f"take in {source}"):
                        raise
                reason = exc.strerror or str(exc)
            else:
                return mode
        raise CannotShare(f"{source} cannot come in by {modes[-1].value}: {reason}")

    def _copy(self, source_fd: int, temporary: Path, hasher: Hasher) -> None:
        with _open_temporary(temporary, os.O_WRONLY | os.O_CREAT) as fd:
            offset = 0
            while piece := self._read(source_fd, offset):
                hasher.update(piece)
                write_all(fd, [piece], offset)
                offset += len(piece)

    def _hash(self, source_fd: int, temporary: Path, hasher: Hasher) -> None:
        with _open_temporary(temporary, os.O_RDONLY) as fd:
            offset = 0
            while piece := self._read(fd, offset):
                hasher.update(piece)
                offset += len(piece)

    def _read(self, fd: int, offset: int) -> bytes:
        if self.stop.is_set():
            raise BrokenOff("it was broken off")
        try:
            piece = os.pread(fd, _PIECE_BYTES, offset)
        except OSError as exc:
            raise SourceUnreadable(f"cannot be read from {offset} on: {exc.strerror}") from exc
        self._progress(len(piece))
        return piece

    @contextmanager
    def _temporary(self, digest: Digest) -> Iterator[Path]:
        """Give a name nobody has; what is there in the end goes."""
        path = self._blob_directory.temporary_path(digest)
        with map_exceptions(f"remove {path}"):
            path.unlink(missing_ok=True)
        try:
            yield path
        finally:
            with map_exceptions(f"remove {path}"):
                path.unlink(missing_ok=True)


@contextmanager
def _open_source(source: Path) -> Iterator[int]:
    # Not to wait for a pipe's writer, nor to be led elsewhere.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(source, flags)
    except OSError as exc:
        reason = "is a symbolic link" if exc.errno == errno.ELOOP else exc.strerror
        raise SourceUnreadable(reason) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SourceUnreadable("is not an ordinary file")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _open_temporary(path: Path, flags: int) -> Iterator[int]:
    with map_exceptions(f"open {path}"):
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _share(mode: Mode, source_fd: int, source: Path, temporary: Path) -> None:
    """Have `temporary` share the file's blocks, unless it is to be copied. Raises OSError."""
    match mode:
        case Mode.REFLINK:
            _clone(source_fd, temporary)
        case Mode.HARDLINK:
            _link(source_fd, source, temporary)
        case Mode.COPY:
            pass


def _clone(source_fd: int, temporary: Path) -> None:
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.ioctl(fd, _FICLONE, source_fd)
    except OSError:
        temporary.unlink()
        raise
    finally:
        os.close(fd)


def _link(source_fd: int, source: Path, temporary: Path) -> None:
    found = os.fstat(source_fd)
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        # Our blob would be somebody else's to change, and its mode is not ours to change for them.
        raise PermissionError(errno.EPERM, "others than we may write to it")
    os.link(source, temporary, follow_symlinks=False)
    if not os.path.samestat(temporary.lstat(), found):
        raise SourceUnreadable("was replaced just now")
