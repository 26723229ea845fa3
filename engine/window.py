"""The newest bytes of a download that is not stored, for all who read along.

Invariant: it holds bytes `start` up to without `end`, in blocks of `BLOCK_BYTES` from `base` on, at
most `max_blocks` of them, and bytes never change. A block goes only when a reader has read past it.
`max_blocks` may change at any time; what is too much then goes as it is read.
Of each whole block a checksum stays, so that who falls behind can fetch it again and know that it
got the bytes that were hashed here. xxh3 will do for that: the adversary would be the upstream
itself, whose bytes the client hashes as well.
Must not know: files, upstream, who reads.
"""

import xxhash

BLOCK_BYTES = 512 * 1024
# 8 MiB: about a second of a slow link's lead over another.
MAX_BLOCKS = 16


class Window:
    """The bytes that were received last. `base` is the first that is not stored."""

    def __init__(self, base: int, max_blocks: int = MAX_BLOCKS) -> None:
        self.base = base
        self.end = base
        self.max_blocks = max_blocks
        self.read_to = base  # by the fastest reader
        self._first = 0  # the number of the first block that is still here
        self._blocks: list[bytearray] = []  # each of its full size, however much is in it
        self._sums: list[bytes] = []

    @property
    def start(self) -> int:
        """The oldest byte that is still here."""
        return self.base + self._first * BLOCK_BYTES

    @property
    def block_count(self) -> int:
        """How many blocks it takes."""
        return len(self._blocks)

    @property
    def free_bytes(self) -> int:
        """How much may be appended without dropping anything."""
        return self._room_above(len(self._blocks))

    @property
    def room_bytes(self) -> int:
        """How much may be appended now, dropping what was read."""
        return self._room_above(len(self._blocks) - self._droppable_count)

    def note_read(self, offset: int) -> None:
        """Note that a reader has all before `offset`, unless it is further on than the window."""
        if self.read_to < offset <= self.end:
            self.read_to = offset

    def skip_readers(self) -> None:
        """Let everything that is here be dropped: nobody is reading it."""
        self.read_to = self.end

    def append(self, data: memoryview) -> None:
        """Add bytes, at most `room_bytes`."""
        while data:
            if not self._last_free_bytes:
                self._begin_block()
            at = (self.end - self.base) % BLOCK_BYTES
            piece = data[: BLOCK_BYTES - at]
            block = self._blocks[-1]
            block[at : at + len(piece)] = piece
            self.end += len(piece)
            data = data[len(piece) :]
            if not self._last_free_bytes:
                self._sums.append(xxhash.xxh3_128_digest(block))

    def read(self, offset: int, stop: int) -> bytes:
        """Copy bytes from `offset` to at most `stop`: those of one block. `start` <= offset."""
        number, at = divmod(offset - self.base, BLOCK_BYTES)
        return bytes(memoryview(self._blocks[number - self._first])[at : at + stop - offset])

    def block_start(self, offset: int) -> int:
        """Where the block that holds `offset` begins."""
        return offset - (offset - self.base) % BLOCK_BYTES

    def holds_sum(self, offset: int, data: bytes) -> bool:
        """Tell whether `data` are the bytes of the whole block that begins at `offset`.

        Every block before `start` is whole.
        """
        return self._sums[(offset - self.base) // BLOCK_BYTES] == xxhash.xxh3_128_digest(data)

    @property
    def _last_free_bytes(self) -> int:
        """What is free in the last block."""
        return -(self.end - self.base) % BLOCK_BYTES

    @property
    def _droppable_count(self) -> int:
        return (self.read_to - self.start) // BLOCK_BYTES if self.read_to > self.start else 0

    def _room_above(self, block_count: int) -> int:
        return max(0, self.max_blocks - block_count) * BLOCK_BYTES + self._last_free_bytes

    def _begin_block(self) -> None:
        while len(self._blocks) >= self.max_blocks and self._droppable_count:
            del self._blocks[0]
            self._first += 1
        assert len(self._blocks) < self.max_blocks, "a window was overrun"
        self._blocks.append(bytearray(BLOCK_BYTES))
