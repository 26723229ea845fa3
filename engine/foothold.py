"""Room for the index on a disk that is full when the mirror starts.

Invariant: nothing is removed while `NEEDED_BYTES` can be had. Where they cannot, what is needed
least goes first: partials, quarantine, then a blob, a large one if there is any; its row is dropped
when the file is missed. SQLite cannot even read its index without room for the files beside it.
"""

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from engine.blobdir import map_exceptions
from engine.layout import Layout

log = logging.getLogger(__name__)

# The index's `-shm` and the beginning of its `-wal`.
NEEDED_BYTES = 1024 * 1024


def gain_foothold(layout: Layout) -> None:
    """Remove what it takes. Blocks. Raises `StorageError` where something cannot be removed."""
    if _has_room(layout):
        return
    removed_count = freed_bytes = 0
    for path, allocated_bytes in _iter_removable(layout):
        with map_exceptions(f"remove {path}"):
            path.unlink()
        removed_count += 1
        freed_bytes += allocated_bytes
        if freed_bytes >= NEEDED_BYTES and _has_room(layout):
            break
    log.warning(
        "disk full at start path=%s removed_count=%d freed_bytes=%d hint=make room on this disk, "
        "or lower eviction.maxsize",
        layout.root,
        removed_count,
        freed_bytes,
    )


def _has_room(layout: Layout) -> bool:
    """Try it: neither quotas nor reserved blocks show in what a file system says of itself."""
    try:
        with tempfile.TemporaryFile(dir=layout.partial_directory) as file:
            os.posix_fallocate(file.fileno(), 0, NEEDED_BYTES)
    except OSError as exc:
        # Anything else is nothing that room would help.
        return exc.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True


def _iter_removable(layout: Layout) -> Iterator[tuple[Path, int]]:
    blobs = layout.root / "blobs"
    large = (found for found in _iter_files(blobs) if found[1] >= NEEDED_BYTES)
    return chain(
        _iter_files(layout.partial_directory),
        _iter_files(layout.quarantine_directory),
        large,
        _iter_files(blobs),
    )


def _iter_files(directory: Path) -> Iterator[tuple[Path, int]]:
    """Find files, and what each takes on the disk."""
    with map_exceptions(f"list {directory}"):
        for path in directory.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path, path.stat().st_blocks * 512
