"""How many bytes the cache may hold, from what is configured and what the file system says.

Invariant: never more than `maxsize`; where others fill the file system, less, down to half of
`maxsize`, so that `minfree` is left to them.
Pure: `measure` is the one door to `statvfs`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from engine.errors import StorageError
from engine.settings import EvictionSettings

# What a file takes is rounded up to this much at least on every file system in common use. Network
# file systems call their transfer size a block (1 MiB), which would count small files for large.
_MAX_BLOCK_BYTES = 64 * 1024
_USUAL_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system that holds the data directory, in bytes."""

    total_bytes: int
    free_bytes: int  # that are not kept for root
    block_bytes: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the cache may hold. `is_squeezed`: less than `maxsize`, for the sake of `minfree`."""

    limit_bytes: int
    is_squeezed: bool = False
    missing_bytes: int = 0  # of `minfree`, with which others have to do without


def measure(path: Path) -> FileSystem:
    """Ask for the file system at `path`. Blocks; raises `StorageError`."""
    try:
        found = os.statvfs(path)
    except OSError as exc:
        raise StorageError(f"cannot measure the file system of {path}: {exc}") from exc
    unit = found.f_frsize
    block_bytes = unit if 0 < unit <= _MAX_BLOCK_BYTES else _USUAL_BLOCK_BYTES
    return FileSystem(found.f_blocks * unit, found.f_bavail * unit, block_bytes)


def limit(settings: EvictionSettings, file_system: FileSystem, held_bytes: int) -> Capacity:
    """Decide what the cache, which takes `held_bytes` now, may hold."""
    total_bytes = file_system.total_bytes
    maxsize_bytes = _resolve(settings.maxsize_bytes, settings.maxsize_fraction, total_bytes)
    minfree_bytes = _resolve(settings.minfree_bytes, settings.minfree_fraction, total_bytes)
    possible_bytes = held_bytes + file_system.free_bytes - minfree_bytes
    if possible_bytes >= maxsize_bytes:
        return Capacity(maxsize_bytes)
    limit_bytes = max(possible_bytes, maxsize_bytes // 2)
    given_back_bytes = max(0, held_bytes - limit_bytes)
    missing_bytes = max(0, minfree_bytes - file_system.free_bytes - given_back_bytes)
    return Capacity(limit_bytes, is_squeezed=True, missing_bytes=missing_bytes)


def _resolve(size_bytes: int | None, fraction: float | None, total_bytes: int) -> int:
    return size_bytes if size_bytes is not None else int(total_bytes * (fraction or 0.0))
