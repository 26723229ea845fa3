"""Damaged blobs, kept for a while so that somebody can look what happened to them.

Invariant: what is in `quarantine/` is never served. It holds at most `MAX_BYTES`, and nothing for
longer than `MAX_AGE_S`; the oldest goes first. What is larger than that alone is not kept.
The door to `quarantine/`. Calls block.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.blobdir import map_exceptions
from engine.layout import Layout
from engine.names import Digest

MAX_BYTES = 1024**3
MAX_AGE_S = 7 * 24 * 3600.0

# `<algorithm>-<hex>.<unix seconds>`
_NAME = re.compile(r"[a-z0-9]+-[a-f0-9]+\.(?P<since>\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file in quarantine. `allocated_bytes`: what it takes on the disk."""

    path: Path
    allocated_bytes: int
    since: int  # unix seconds


def plan_removal(kept: Iterable[Kept], now: float) -> list[Kept]:
    """Decide what has to go. Pure."""
    room = MAX_BYTES
    victims = []
    for each in sorted(kept, key=lambda each: each.since, reverse=True):
        if each.allocated_bytes > room or now - each.since > MAX_AGE_S:
            victims.append(each)
        else:
            room -= each.allocated_bytes
    return victims


class Quarantine:
    """The directory `quarantine/` of a layout. All calls raise `StorageError`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def take(self, digest: Digest, now: float, fd: int | None = None) -> Kept | None:
        """Move a blob's file here; None where it is gone, or is not the open file `fd` any more.

        Quick enough for the event loop, where nothing can come between the check and the move.
        """
        source = self._layout.blob_path(digest)
        target = self._layout.quarantine_directory / f"{self._layout.flat_name(digest)}.{int(now)}"
        with map_exceptions(f"move {source} to {target}"):
            try:
                found = source.lstat()
            except FileNotFoundError:
                return None
            if fd is not None and not os.path.samestat(os.fstat(fd), found):
                return None
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
        return Kept(target, found.st_blocks * 512, int(now))

    def prune(self, now: float) -> int:
        """Remove what has to go; return the bytes that are left."""
        kept = self.list_kept()
        victims = plan_removal(kept, now)
        for victim in victims:
            with map_exceptions(f"remove {victim.path}"):
                victim.path.unlink(missing_ok=True)
        return sum(each.allocated_bytes for each in kept if each not in victims)

    def list_kept(self) -> list[Kept]:
        """List what is here; other people's files are not counted, and left alone."""
        kept: list[Kept] = []
        directory = self._layout.quarantine_directory
        with map_exceptions(f"list {directory}"):
            if not directory.exists():  # somebody removed all of it
                return kept
            for path in directory.iterdir():
                match = _NAME.fullmatch(path.name)
                if match is None:
                    continue
                with suppress(FileNotFoundError):  # somebody looked at it, and removed it
                    kept.append(Kept(path, path.lstat().st_blocks * 512, int(match["since"])))
        return kept
