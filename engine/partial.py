"""The file of a fill: made on a promise of its bytes, and accounted for until it is gone.

Invariant: the promise ends when the file is closed by the last who reads it, or earlier when it has
become a blob (its row counts it) or a leftover. A file whose fill failed stays, to be resumed; one
that cannot be filled any more is removed at once, though its readers may go on reading.
Must not know: upstream, who reads.
"""

import asyncio
import logging
import os
import time

from engine import blobdir
from engine.blobdir import BlobDirectory
from engine.errors import OutOfSpace, StorageError, StoragePaused
from engine.fill import HELD_BACK_BYTES, Fill
from engine.hands import Hands
from engine.hashing import Hasher
from engine.leftovers import Leftover, Leftovers
from engine.room import Promise, Room

log = logging.getLogger(__name__)

_REHASH_BYTES = 4 * 1024 * 1024
# How much is promised at a time to a blob of which nobody tells the size.
_GROWTH_BYTES = 4 * 1024 * 1024


class Partial:
    """Stores one fill. `open` comes first; `keep`, `discard`, `give_up` or `settle` ends it."""

    def __init__(
        self,
        fill: Fill,
        blob_directory: BlobDirectory,
        room: Room,
        leftovers: Leftovers,
        hands: Hands,
    ) -> None:
        self._fill = fill
        self._hands = hands
        self._blob_directory = blob_directory
        self._room = room
        self._leftovers = leftovers
        self._promise: Promise | None = None

    @property
    def is_left(self) -> bool:
        """Whether an earlier fill left a file to go on with."""
        return self._fill.digest in self._leftovers

    @property
    def is_open(self) -> bool:
        """Whether `open` has been called with success."""
        return self._promise is not None

    def has_room(self, size_bytes: int) -> bool:
        """Whether it is open, with so much promised."""
        return self._promise is not None and self._promise.size_bytes >= size_bytes

    async def open(self, promised_bytes: int) -> int:
        """Make the file, or take what is left of an earlier one; return its size in bytes.

        Small content has no file before its blob has one. Raises `StorageError`; what is left stays
        a leftover then, as when this is cancelled.
        """
        fill = self._fill
        leftover = self._leftovers.take(fill.digest)
        if leftover is None and 0 < promised_bytes <= HELD_BACK_BYTES:
            self._promise = await self._room.promise(promised_bytes)
            fill.body = b""
            return 0
        try:
            promise = await self._room.promise(promised_bytes)
            try:
                fd = await self._open_file()
            except BaseException:
                promise.release()
                raise
        except BaseException:
            if leftover is not None:
                self._leftovers.add(leftover)
            raise
        fill.attach(fd, promise.release)
        self._promise = promise
        return blobdir.size_of(fd)

    async def _open_file(self) -> int:
        digest, directory = self._fill.digest, self._blob_directory
        return await self._hands.run(lambda: directory.open_partial(digest), undo=os.close)

    async def reserve(self, size_bytes: int) -> None:
        """Have `size_bytes` promised in all. Raises `StorageError`."""
        assert self._promise is not None
        await self._promise.grow(size_bytes)

    async def rehash(self, hasher: Hasher) -> None:
        """Publish what an earlier fill left, adding it to `hasher`. Raises `StorageError`."""
        fill = self._fill
        await self.reserve(blobdir.size_of(fill.fd))
        while count_bytes := await asyncio.to_thread(
            _rehash_piece, fill.fd, fill.written_bytes, hasher
        ):
            fill.advance(count_bytes)

    async def grow(self, end: int) -> None:
        """See that bytes up to `end` are promised. Raises `StorageError`."""
        assert self._promise is not None
        if end > self._promise.size_bytes:
            await self._promise.grow(end + _GROWTH_BYTES)

    def empty(self) -> None:
        """Throw away what was written. Raises `StorageError`."""
        if self._fill.body is None:
            blobdir.truncate(self._fill.fd)
            return
        # What comes instead may be too large for memory: it is opened anew, by its own size.
        self.discard()
        self._fill.body = self._promise = None

    def keep(self) -> None:
        """Leave the file to whoever asks for the blob next; one without a byte is removed."""
        if self._promise is None:
            return
        if self._fill.body is not None or blobdir.allocated_bytes_of(self._fill.fd) == 0:
            self.discard()
        else:
            self._leave(self._promise)

    def discard(self) -> None:
        """Remove the file. Its bytes are free when the last reader has closed it."""
        if self._promise is None:
            return
        if self._fill.body is not None:
            self._promise.release()
            return
        try:
            self._blob_directory.remove_partial(self._fill.digest)
        except StorageError as exc:
            log.error("partial not removed digest=%s cause=%s", self._fill.digest, exc)
            self._leave(self._promise)

    def give_up(self, cause: StorageError) -> None:
        """Discard the file, since the blob cannot be stored."""
        self._room.note_unstored("blob", self._fill.digest, cause)
        if not isinstance(cause, OutOfSpace | StoragePaused):
            self._room.failed(cause)
        self.discard()

    def settle(self) -> None:
        """Note that the file has become a blob, which is counted as one."""
        assert self._promise is not None
        self._promise.release()
        self._room.worked()

    def _leave(self, promise: Promise) -> None:
        allocated_bytes = blobdir.allocated_bytes_of(self._fill.fd)
        self._leftovers.add(Leftover(self._fill.digest, allocated_bytes, time.time()))
        promise.release()


def _rehash_piece(fd: int, offset: int, hasher: Hasher) -> int:
    piece = blobdir.read_at(fd, _REHASH_BYTES, offset)
    hasher.update(piece)
    return len(piece)
