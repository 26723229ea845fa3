"""What takes the place of an index that is lost or damaged: its snapshot, else nothing.

Invariant: at every step the file at the index's place is whole, or there is none; and no `-wal` of
another file ever lies beside it, since SQLite would fold it in. A damaged index is kept, the last
one only. A newer program's file is never replaced, nor put in the place of another.
Rows that are lost come back by themselves: those of files by `engine/reconcile.py` and as they are
asked for, links and tags by asking upstream.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from engine.blobdir import map_exceptions, sync_directory
from engine.errors import IndexDamaged
from engine.layout import Layout
from engine.migrate import check_version

log = logging.getLogger(__name__)

# In this order: an index without its WAL is at worst older, a WAL without its index is poison.
_SUFFIXES = ("-wal", "-shm", "")


class Recovery:
    """The data directory's `engine.index_connections.Replacement`. All calls block."""

    def __init__(self, layout: Layout, clock: Callable[[], float] = time.time) -> None:
        self._layout = layout
        self._clock = clock

    def prepare(self) -> bool:
        """Put the snapshot in the place of an index that is missing or empty, if there is one."""
        path = self._layout.index_path
        with map_exceptions(f"look at {path}"):
            if path.exists() and path.stat().st_size > 0:
                return False
            if self._is_snapshot_usable():
                self._set_aside()
                self._restore()
        return True

    def replace(self, cause: IndexDamaged) -> None:
        """Set the damaged index aside and restore the snapshot, or leave nothing in its place."""
        with map_exceptions(f"replace {self._layout.index_path}"):
            is_usable = self._is_snapshot_usable()
            kept = self._set_aside()
            log.error(
                "index damaged path=%s kept=%s cause=%s action=%s",
                self._layout.index_path,
                kept,
                cause,
                "its snapshot replaces it" if is_usable else "rebuilt from the blob files",
            )
            if is_usable:
                self._restore()

    def set_aside(self) -> Path:
        """Put the index aside, damaged or not; return where. Nobody may have it open."""
        with map_exceptions(f"set {self._layout.index_path} aside"):
            return self._set_aside()

    def _is_snapshot_usable(self) -> bool:
        path = self._layout.snapshot_path
        if not path.exists():
            return False
        try:
            check_version(path)
        except sqlite3.Error as exc:
            log.warning("snapshot unusable path=%s cause=%s", path, exc)
            return False
        return True

    def _restore(self) -> None:
        snapshot, index = self._layout.snapshot_path, self._layout.index_path
        log.warning("index restored from=%s age_s=%d", snapshot, self._age_s(snapshot))
        # Moved and not copied: the next snapshot is made within minutes, and a start does not wait.
        snapshot.rename(index)
        sync_directory(index.parent)

    def _set_aside(self) -> Path:
        index = self._layout.index_path
        for old in index.parent.glob(f"{index.name}.damaged-*"):
            old.unlink(missing_ok=True)
        kept = index.with_name(f"{index.name}.damaged-{int(self._clock())}")
        for suffix in _SUFFIXES:
            source = Path(f"{index}{suffix}")
            if source.exists():
                source.rename(f"{kept}{suffix}")
        return kept

    def _age_s(self, path: Path) -> int:
        return max(0, int(self._clock() - os.stat(path).st_mtime))
