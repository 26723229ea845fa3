"""A disk that fails: from the n-th call that changes it on, or that one call only.

Every call that makes, writes, syncs, renames or removes a partial or a blob counts, and each group
of index writes.
"""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.index_writer import WriterConnection

_SQLITE_SAYS = {
    errno.ENOSPC: "database or disk is full",
    errno.EDQUOT: "disk I/O error",
    errno.EIO: "disk I/O error",
}


class FailingDisk:
    """Fails as long as it is armed. `failed` names the calls that did."""

    def __init__(self, patch: pytest.MonkeyPatch, code: int) -> None:
        self.call_count = 0
        self.failed: list[str] = []
        self._code = code
        self._first = 0
        self._last = 0
        for name in ("open", "pwritev", "fsync", "fchmod", "ftruncate"):
            self._wrap(patch, os, name)
        for name in ("mkdir", "unlink", "rename"):
            self._wrap(patch, Path, name)
        self._wrap(patch, tempfile, "mkstemp")
        self._wrap(patch, WriterConnection, "_apply")

    def arm(self, first: int, last: int | None = None) -> None:
        """Fail calls number `first` to `last` (None = all from there on), counted from now."""
        self.call_count = 0
        self.failed.clear()
        self._first = first
        self._last = last if last is not None else 1 << 30

    def heal(self) -> None:
        """Fail no more."""
        self._first = self._last = 0

    def _wrap(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        call = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if _is_meant(name, args):
                self._count(name)
            return call(*args, **kwargs)

        patch.setattr(owner, name, wrapped)

    def _count(self, name: str) -> None:
        self.call_count += 1
        if self._first <= self.call_count <= self._last:
            self.failed.append(name)
            if name == "_apply":
                raise sqlite3.OperationalError(_SQLITE_SAYS[self._code])
            raise OSError(self._code, os.strerror(self._code))


def _is_meant(name: str, args: Sequence[object]) -> bool:
    match name, args:
        case "_apply" | "mkstemp", _:
            return True
        case "open", (_, int(flags), *_) if not flags & os.O_CREAT:
            return False  # for reading
        case _, (int(fd), *_):
            return _is_content(os.readlink(f"/proc/self/fd/{fd}"))
        case _:
            return _is_content(str(args[0]))


def _is_content(path: str) -> bool:
    return "/partial/" in path or "/blobs/" in path
