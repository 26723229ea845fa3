"""Pins that operators set: what they match is never evicted, as if the configuration said so.

Invariant: as `engine/index.py`'s. A pin outlives what it matches, and holds for what comes later.
"""

from dataclasses import dataclass

from engine.index_connections import Connections
from engine.index_rows import Row
from engine.index_writer import Statement

_LIST = "SELECT glob, pinned_at FROM pin ORDER BY glob"
_ADD = "INSERT INTO pin (glob, pinned_at) VALUES (:glob, :now) ON CONFLICT DO NOTHING"
_REMOVE = "DELETE FROM pin WHERE glob = :glob"


@dataclass(frozen=True, slots=True)
class Pin:
    """A glob over `upstream/repository:tag`, and when it was set (unix seconds)."""

    glob: str
    pinned_at: float


class IndexPins:
    """The pins in the index."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def list_pins(self) -> list[Pin]:
        """All of them, in lexical order."""
        return [Pin(*row) for row in await self._connections.read(_LIST, {})]

    async def add(self, glob: str, now: float) -> bool:
        """Set a pin; False where it is set already."""
        is_new = glob not in {pin.glob for pin in await self.list_pins()}
        row: Row = {"glob": glob, "now": now}
        await self._connections.write(Statement(_ADD, [row]))
        return is_new

    async def remove(self, glob: str) -> bool:
        """Take a pin back; False where there is none."""
        was_set = glob in {pin.glob for pin in await self.list_pins()}
        await self._connections.write(Statement(_REMOVE, [{"glob": glob}]))
        return was_set
