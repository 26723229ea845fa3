"""A bounded memo of what was worked out for recent keys. Pure.

Invariant: it holds at most twice `max_entries`, in two generations. A hit in the old one moves to
the young one; a full young one becomes the old one. That is nearly least-recently-used, at the
price of a plain dict.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """Finds again what was added not too long ago."""

    __slots__ = ("_max_entries", "_old", "_young")

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def find(self, key: K) -> V | None:
        """Find what was added for `key`, if it is still here."""
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.get(key)
            if value is not None:
                self.add(key, value)
        return value

    def add(self, key: K, value: V) -> None:
        """Keep `value`, which is not None, at the expense of what was not asked for lately."""
        if len(self._young) >= self._max_entries:
            self._old, self._young = self._young, {}
        self._young[key] = value
