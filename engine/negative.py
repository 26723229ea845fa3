"""What upstream said is not there, remembered for a moment. Pure: takes `now`.

Only digests are remembered, per repository: a tag may appear at any time.
"""

from engine.hot import Kind
from engine.names import Digest, Location

MAX_ENTRIES = 10_000

Key = tuple[Kind, Location, Digest]


class NegativeCache:
    """Times until which a digest is taken for absent; bounded, oldest first."""

    def __init__(self) -> None:
        self._until: dict[Key, float] = {}

    def note(self, key: Key, until: float) -> None:
        """Remember that `key` is absent until the time `until`."""
        self._until.pop(key, None)
        self._until[key] = until
        if len(self._until) > MAX_ENTRIES:
            del self._until[next(iter(self._until))]

    def holds(self, key: Key, now: float) -> bool:
        """Whether `key` is still taken for absent."""
        until = self._until.get(key)
        if until is None:
            return False
        if until > now:
            return True
        del self._until[key]
        return False
