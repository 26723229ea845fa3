"""Access times in memory, written to the index in batches.

Invariant: a use is visible here until the index has it, so the evictor, who asks both, misses none;
a write that failed or was cancelled loses nothing, its batch is simply handed out again.
A use is one dict store: this is on the hit path. The size is bounded by what is stored, because
only stored content is hit, and in practice by the hits between two flushes.
"""

from collections.abc import Mapping
from itertools import islice

from engine.names import Digest

# A transaction of so many updates takes the writer 0.6 s in an index of a million blobs.
MAX_BATCH = 10_000


class Touch:
    """The last use of each blob since it was last written to the index."""

    def __init__(self) -> None:
        self._used_at: dict[Digest, float] = {}

    def __len__(self) -> int:
        return len(self._used_at)

    def note(self, digest: Digest, now: float) -> None:
        """Record a use at `now` (unix seconds)."""
        self._used_at[digest] = now

    def used_at(self, digest: Digest) -> float | None:
        """When it was last used, if the index may not know yet."""
        return self._used_at.get(digest)

    def take(self, limit: int = MAX_BATCH) -> dict[Digest, float]:
        """Copy up to `limit` uses, longest waiting first, to write them to the index.

        They stay here until `settle` is called with them, once they are written.
        """
        return dict(islice(self._used_at.items(), limit))

    def settle(self, written: Mapping[Digest, float]) -> None:
        """Drop what `take` gave and the index now has, except what was used again since."""
        for digest, used_at in written.items():
            newest = self._used_at.pop(digest, used_at)
            if newest != used_at:
                # Behind those that were not written yet: no blob is kept waiting by a busier one.
                self._used_at[digest] = newest
