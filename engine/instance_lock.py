"""One server per data directory.

Invariant: whoever holds the lock file's `flock` is the only one that writes below its directory.
The kernel drops the lock with the process, however it dies; the pid inside is for people.
"""

import fcntl
import os
from pathlib import Path

from engine.errors import DirectoryInUse, StorageError


class InstanceLock:
    """A held lock; `release` in the end."""

    def __init__(self, path: Path) -> None:
        """Take the lock at `path`. Raises `DirectoryInUse` or `StorageError`."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise StorageError(f"cannot open {path}: {exc}") from exc
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            pid = _read_pid(self._fd)
            os.close(self._fd)
            raise DirectoryInUse(str(path.parent), pid) from exc
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next server have the directory. The file stays: unlinking it would race."""
        os.close(self._fd)


def refuse_second(path: Path) -> None:
    """Raise `DirectoryInUse` where a server holds the lock at `path`; take nothing.

    For whoever does other things before it opens the directory, so that these do not fail first
    with what is only a consequence. Raises `StorageError`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StorageError(f"cannot open {path}: {exc}") from exc
    try:
        # Shared, so that two that look at the same time do not take each other for the server.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        raise DirectoryInUse(str(path.parent), _read_pid(descriptor)) from exc
    finally:
        os.close(descriptor)


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
