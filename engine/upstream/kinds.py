"""What kinds of requests there are, and what was counted and learned about them.

A 429 pauses one kind only. Blob bodies have a lane of their own (connections and a circuit
breaker), so that neither bodies under way nor a dead CDN keep tags and manifests from passing.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum


class LaneName(Enum):
    """Who shares connections and a circuit breaker."""

    CONTROL = "control"
    BLOB = "blob"


class Kind(Enum):
    """What upstream may limit separately: Docker Hub bills manifest GETs, but no HEAD."""

    MANIFEST = "manifest"
    HEAD = "head"
    BLOB = "blob"
    LIST = "list"
    TOKEN = "token"

    @property
    def lane(self) -> LaneName:
        """Whose connections it uses."""
        return LaneName.BLOB if self is Kind.BLOB else LaneName.CONTROL


@dataclass(slots=True)
class Counts:
    """Plain integers since the start, for a metrics collector to read."""

    # HTTP requests by kind and outcome: the status, or `error` where none came. Each hop of a
    # redirect counts as one.
    requests: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    # Operations that were refused without asking upstream: `paused`, `breaker`, `busy`.
    refused: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    retries: int = 0
    billable_manifest_gets: int = 0  # answered with 200, as Docker Hub counts
    token_fetches: int = 0
    helper_runs: int = 0
    manifest_bytes: int = 0  # of bodies, as they came
    blob_bytes: int = 0

    def copy(self) -> "Counts":
        """Take them as they are now."""
        return replace(self, requests=Counter(self.requests), refused=Counter(self.refused))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The last `ratelimit-limit` and `ratelimit-remaining` (Docker Hub), None = not sent."""

    limit: int | None
    remaining: int | None
    window_s: int | None
