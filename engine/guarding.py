"""Finds out what must stay: what is pinned, and what manifests in use name.

Invariant: what a pinned tag means is guarded whole, down to the last layer that is stored; so is
what a client that got a manifest moments ago will ask for next.
Manifests are read from their files and not from the index: a link says that a repository names a
digest, not which of its manifests does.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.blobdir import BlobDirectory, read_at
from engine.descriptor import find_named
from engine.errors import StorageError
from engine.eviction import IN_USE_S, Guard
from engine.index_eviction import IndexEviction
from engine.names import Digest

log = logging.getLogger(__name__)

# Rows of one read of the index.
PAGE = 1000
# Manifests of which it is remembered what they name, about 2 KiB each.
_MAX_KNOWN = 5_000
# The largest manifest that registries and clients accept is smaller.
_MAX_MANIFEST_BYTES = 8 * 1024 * 1024

ListPins = Callable[[], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class _Named:
    """What one manifest names; `manifests` may name more."""

    digests: tuple[Digest, ...] = ()
    manifests: tuple[Digest, ...] = ()


class Closures:
    """What manifests name, transitively."""

    def __init__(self, blob_directory: BlobDirectory) -> None:
        self._blob_directory = blob_directory
        self._known: dict[Digest, _Named] = {}

    def close_over(self, manifests: Iterable[Digest]) -> frozenset[Digest]:
        """Find `manifests` and all that they name. Blocks; for a thread, one call at a time."""
        found = set(manifests)
        unread = list(found)
        while unread:
            named = self._find_named(unread.pop())
            unread += set(named.manifests) - found
            found.update(named.digests)
        return frozenset(found)

    def _find_named(self, manifest: Digest) -> _Named:
        named = self._known.get(manifest)
        if named is None:
            body = self._read(manifest)
            if body is None:
                return _Named()
            descriptors = find_named(body)
            named = _Named(
                tuple(found.digest for found in descriptors),
                tuple(found.digest for found in descriptors if found.is_manifest),
            )
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[manifest] = named
        return named

    def _read(self, manifest: Digest) -> bytes | None:
        """Read a manifest; None where it is not here, or cannot be read."""
        try:
            fd = self._blob_directory.open_blob(manifest)
        except FileNotFoundError:
            return None
        except OSError as exc:
            log.warning("manifest unread, what it names is unguarded %s: %s", manifest, exc)
            return None
        try:
            return read_at(fd, _MAX_MANIFEST_BYTES, 0)
        except StorageError as exc:
            log.warning("manifest unread, what it names is unguarded %s: %s", manifest, exc)
            return None
        finally:
            os.close(fd)


class Guarding:
    """Makes guards. `list_pins` gives globs over `upstream/repository:tag`."""

    def __init__(
        self,
        index: IndexEviction,
        blob_directory: BlobDirectory,
        list_pins: ListPins,
        find_used_at: Callable[[Digest], float | None],
    ) -> None:
        self._index = index
        self._closures = Closures(blob_directory)
        self._list_pins = list_pins
        self._find_used_at = find_used_at

    async def make(self, now: float) -> Guard:
        """Look at pins and uses as they are now. Raises `StorageError`."""
        pinned_roots: set[Digest] = set()
        for glob in await self._list_pins():
            pinned_roots.update(await self._index.find_pinned(glob))
        in_use_since = now - IN_USE_S
        served = await self._list_served(in_use_since)
        close_over = self._closures.close_over
        return Guard(
            pinned=await asyncio.to_thread(close_over, pinned_roots),
            named=await asyncio.to_thread(close_over, served),
            in_use_since=in_use_since,
            find_used_at=self._find_used_at,
        )

    async def _list_served(self, since: float) -> list[Digest]:
        served: list[Digest] = []
        place, last = None, (since, "")
        while last != place:
            place = last
            last, manifests = await self._index.page_used_manifests(place, PAGE)
            served += manifests
        return served
