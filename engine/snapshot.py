"""`index.snapshot`: a recent copy of the index, to fall back on.

Invariant: what has the snapshot's name is whole and was checked: it is copied to another name,
checked, synced and renamed. So damage that nobody has noticed yet is not copied over the good copy,
and each snapshot is also an inspection of the index.
All of it is done in one thread: SQLite leaves half a megabyte in the heap of each that does it.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.blobdir import map_exceptions, sync_directory
from engine.errors import IndexDamaged, StorageError
from engine.hands import make_pool
from engine.index_connections import Connections, back_up, find_damage
from engine.layout import Layout

T = TypeVar("T")

log = logging.getLogger(__name__)


class Snapshots:
    """Takes snapshots of one index; whoever made them closes them."""

    def __init__(self, connections: Connections, layout: Layout) -> None:
        self._connections = connections
        self._layout = layout
        # It goes on when the task that waits for it is cancelled; who comes next waits for that.
        self._thread = make_pool("snapshot", 1)
        self._taken_at_count = -1  # the index's `write_count` that the snapshot has

    async def take_once(self) -> bool:
        """Take a snapshot unless nothing changed since the last; whether one was taken.

        A failure is logged, since the old snapshot is still there. An index that proves damaged
        is replaced; raises `StorageError` where that fails.
        """
        count = self._connections.write_count
        if count == self._taken_at_count and self._layout.snapshot_path.exists():
            return False
        try:
            await self._run(self._take)
        except IndexDamaged as exc:
            log.error("snapshot refused cause=%s", exc)
            await self.inspect_once()
            return False
        except StorageError as exc:
            log.error("snapshot not taken cause=%s action=the old one stays", exc)
            return False
        self._taken_at_count = count
        return True

    async def inspect_once(self) -> None:
        """Read the whole index in a thread, and replace it if it is damaged.

        Raises `StorageError` where it cannot be read or replaced now.
        """
        damage = await self._run(lambda: find_damage(self._layout.index_path))
        if damage is not None:
            await self._connections.mend(IndexDamaged(damage))

    def close(self) -> None:
        """Let the thread end when its work is done."""
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _take(self) -> None:
        path = self._layout.snapshot_path
        temporary = path.with_name(f"{path.name}.tmp")
        with map_exceptions(f"take the snapshot {path}"):
            _remove(temporary)
            try:
                back_up(self._layout.index_path, temporary)
                damage = find_damage(temporary, is_closed=True)
                if damage is not None:
                    raise IndexDamaged(f"the copy is damaged: {damage}")
                _sync(temporary)
                temporary.rename(path)
                sync_directory(path.parent)
            except StorageError:
                _remove(temporary)
                raise


def _remove(temporary: Path) -> None:
    for suffix in ("-journal", ""):
        Path(f"{temporary}{suffix}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
