"""Comparing stored bytes with what they should be.

Invariant: where a blob's xxh3-128 was recorded, that is compared: it finds rot at a fraction of the
cost. Otherwise the digest is, and the xxh3 is known from then on.
Blocking calls are for a thread; reading and hashing release the GIL.
"""

import os

import xxhash

from engine.blobdir import map_exceptions
from engine.hashing import Hasher
from engine.index_records import BlobRecord


class Check:
    """The check of one blob's file, piece by piece from its first byte."""

    def __init__(self, blob: BlobRecord) -> None:
        self.offset = 0
        self._blob = blob
        self._identity = Hasher(blob.digest.algorithm) if blob.xxh3 is None else None
        self._rot = xxhash.xxh3_128()

    @property
    def is_at_end(self) -> bool:
        """Whether all that there should be has been read."""
        return self.offset == self._blob.size_bytes

    @property
    def xxh3(self) -> bytes:
        """The xxh3-128 of what was read."""
        return self._rot.digest() if self._identity is None else self._identity.xxh3

    def read(self, descriptor: int, buffer: bytearray) -> int:
        """Read up to a buffer's fill and hash it; return the bytes read, 0 at the file's end.

        Blocks. Raises `StorageError`.
        """
        wanted = min(len(buffer), self._blob.size_bytes - self.offset)
        with memoryview(buffer)[:wanted] as piece, map_exceptions(f"read {self._blob.digest}"):
            count = os.preadv(descriptor, [piece], self.offset)
            (self._identity or self._rot).update(piece[:count])
        self.offset += count
        return count

    def find_fault(self) -> str | None:
        """Say what is wrong with the bytes read; None where they are all there, and right."""
        blob = self._blob
        if not self.is_at_end:
            return f"it ends after {self.offset} of {blob.size_bytes} bytes"
        if self._identity is None:
            is_right = self._rot.digest() == blob.xxh3
            return None if is_right else f"its xxh3-128 is {self._rot.hexdigest()}"
        actual = self._identity.digest
        return None if actual == blob.digest else f"its bytes are those of {actual}"
