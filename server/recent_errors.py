"""What went wrong lately, for people who look: the last failures and refusals, alike ones as one.

Invariant: at most `max_entries` are kept, one for each status, upstream and repository, with what
it said last. A failure that repeats a thousand times does not push the others out.
Causes are those of the access log: no query, no header, no credential is ever in one. Pure.
"""

from dataclasses import dataclass

from engine.names import Location
from server.exchange import Exchange


@dataclass(frozen=True, slots=True)
class RecentError:
    """Like failures. Times are unix seconds; the rest is the last one's, "" where not known.

    `status` 200 or 206: the connection was cut, as the body could not be ended.
    """

    first_at: float
    last_at: float
    count: int
    status: int
    method: str
    upstream: str
    repository: str
    digest: str
    cause: str
    request_id: str


class RecentErrors:
    """The last of them."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: dict[tuple[int, str, str], RecentError] = {}

    def note(self, exchange: Exchange, location: Location | None, now: float) -> None:
        """Remember an exchange that failed at `now` (unix seconds)."""
        upstream, repository = location or (exchange.upstream, "")
        key = (exchange.status, upstream, repository)
        earlier = self._entries.pop(key, None)
        if len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = RecentError(
            earlier.first_at if earlier else now,
            now,
            earlier.count + 1 if earlier else 1,
            exchange.status,
            exchange.method.decode("latin-1"),
            upstream,
            repository,
            exchange.digest,
            exchange.cause,
            exchange.request_id,
        )

    def latest_first(self) -> tuple[RecentError, ...]:
        """List them."""
        return tuple(reversed(self._entries.values()))
