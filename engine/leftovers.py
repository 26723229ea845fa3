"""Partials that no fill is writing: what failed fills and earlier runs left, to be resumed.

Invariant: each is counted in `Space` as stored, with the bytes noted here, from `add` to `take`.
Whoever takes one, a lead to resume it or the evictor to remove it, has it alone: there is no await
between looking and taking.
Pure: it reads no directory.
"""

from dataclasses import dataclass

from engine.names import Digest
from engine.space import Space


@dataclass(frozen=True, slots=True)
class Leftover:
    """A partial without a lead. `allocated_bytes`: what it takes on the disk."""

    digest: Digest
    allocated_bytes: int
    left_at: float  # unix seconds


class Leftovers:
    """All partials without a lead."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._leftovers: dict[Digest, Leftover] = {}

    def __len__(self) -> int:
        return len(self._leftovers)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._leftovers

    def oldest_first(self) -> list[Leftover]:
        """List all of them."""
        return sorted(self._leftovers.values(), key=lambda leftover: leftover.left_at)

    def add(self, leftover: Leftover) -> None:
        """Note a partial that is on disk and has no lead, and count its bytes."""
        self.take(leftover.digest)
        self._leftovers[leftover.digest] = leftover
        self._space.add(leftover.allocated_bytes)

    def take(self, digest: Digest) -> Leftover | None:
        """Take a partial, to fill or to remove it; its bytes are the taker's to count now."""
        leftover = self._leftovers.pop(digest, None)
        if leftover is not None:
            self._space.remove(leftover.allocated_bytes)
        return leftover
