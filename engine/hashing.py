"""Streaming digests: the one that names content, and xxh3-128, which finds rot cheaply.

xxh3 is recorded at commit and compared later; it is never identity, since it can be forged.
"""

import hashlib

import xxhash

from engine.errors import DigestMismatch
from engine.names import Digest


class Hasher:
    """Both digests of a stream of bytes."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._identity = hashlib.new(algorithm)
        self._rot = xxhash.xxh3_128()

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes. Both implementations release the GIL for large pieces."""
        self._identity.update(data)
        self._rot.update(data)

    @property
    def digest(self) -> Digest:
        """The digest of all bytes so far."""
        return Digest(f"{self._algorithm}:{self._identity.hexdigest()}")

    @property
    def xxh3(self) -> bytes:
        """The xxh3-128 of all bytes so far, 16 bytes."""
        return self._rot.digest()


def digest_of(body: bytes, algorithm: str = "sha256") -> Digest:
    """Name `body` by its digest."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")


def verify(body: bytes, expected: Digest) -> None:
    """Raise `DigestMismatch` unless `body` is what `expected` names."""
    actual = digest_of(body, expected.algorithm)
    if actual != expected:
        raise DigestMismatch(expected, actual)
