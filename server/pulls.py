"""Which repositories are pulled most. Pure.

Invariant: at most `max_entries` repositories are known. When one more comes, the half that was
asked for least goes: what is pulled often stays, what came once makes room for what comes next.
A repository that went and comes back begins at 0, so these numbers compare, and do not bill.
"""

from heapq import nlargest

from engine.names import Location


class Served:
    """What was served by GET, parts included. `sent_bytes` has heads in it."""

    __slots__ = ("count", "sent_bytes")

    def __init__(self) -> None:
        self.count = 0
        self.sent_bytes = 0


class Pulls:
    """What was served of one repository."""

    __slots__ = ("blobs", "location", "manifests")

    def __init__(self, location: Location) -> None:
        self.location = location
        self.manifests = Served()  # what Docker Hub counts as pulls
        self.blobs = Served()

    @property
    def sent_bytes(self) -> int:
        """All that was sent."""
        return self.manifests.sent_bytes + self.blobs.sent_bytes

    @property
    def rank(self) -> tuple[int, int]:
        """What orders them: how often, then how much."""
        return self.manifests.count + self.blobs.count, self.sent_bytes


class PullTable:
    """The repositories that are known."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._pulls: dict[Location, Pulls] = {}

    def __len__(self) -> int:
        return len(self._pulls)

    def find(self, location: Location) -> Pulls | None:
        """Find a repository that is known."""
        return self._pulls.get(location)

    def add(self, location: Location) -> Pulls:
        """Make a new one known. Where `is_full`, `shrink` comes first."""
        pulls = self._pulls[location] = Pulls(location)
        return pulls

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more."""
        return len(self._pulls) >= self._max_entries

    def shrink(self) -> None:
        """Forget the half that was asked for least; whoever holds one of them must let go."""
        self._pulls = {pulls.location: pulls for pulls in self.top(self._max_entries // 2)}

    def top(self, count: int) -> list[Pulls]:
        """List the most pulled ones, the first one first."""
        return nlargest(count, self._pulls.values(), key=lambda pulls: pulls.rank)
