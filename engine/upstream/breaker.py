"""The circuit breaker of a lane: pure; `now` is the event loop's clock.

It opens when an operation has failed through its whole deadline and nothing else succeeded since
it began. While it is open nobody is admitted; then one probe at a time is, and its answer closes
the breaker or its failure opens it for twice as long. A 404, 401, 403 or 429 is an answer.
"""

from dataclasses import dataclass
from enum import Enum, auto

from engine.upstream.limits import Limits


class Verdict(Enum):
    """What an operation may do."""

    PASS = auto()  # upstream works, as far as is known
    PROBE = auto()  # one attempt; end it by `answered`, `failed` or `abandoned`
    REFUSED = auto()  # wait for `remaining_s`


@dataclass(frozen=True, slots=True)
class Cause:
    """Why it opened, for the messages of those who are refused."""

    message: str
    upstream_status: int | None


class Breaker:
    """Closed, open until a time, or half open with a probe under way."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open_s = 0.0  # how long it was opened for last; 0 = closed
        self._open_until = 0.0
        self._answered_at = float("-inf")
        self._is_probing = False
        self.cause: Cause | None = None

    @property
    def is_open(self) -> bool:
        """Whether upstream is taken for dead (a probe may be under way)."""
        return self._open_s > 0

    def admit(self, now: float) -> Verdict:
        """Decide about an operation that begins."""
        if not self.is_open:
            return Verdict.PASS
        if now < self._open_until or self._is_probing:
            return Verdict.REFUSED
        self._is_probing = True
        return Verdict.PROBE

    def remaining_s(self, now: float) -> float:
        """How long those who are refused should wait; at least a second."""
        return max(self._open_until - now, 1.0)

    def answered(self, now: float) -> bool:
        """Close: upstream answered. True if it was open."""
        was_open = self.is_open
        self._open_s = 0.0
        self._is_probing = False
        self._answered_at = now
        self.cause = None
        return was_open

    def failed(self, cause: Cause, *, began_at: float, now: float) -> bool:
        """Take note of an operation that gave up; return True if that opened the breaker."""
        lasted_s = now - began_at
        is_news = self._is_probing or lasted_s >= self._limits.breaker_after_s
        if self._answered_at >= began_at or not is_news:
            return False
        was_open = self.is_open
        if now >= self._open_until:
            doubled_s = self._open_s * 2 or self._limits.breaker_first_s
            self._open_s = min(doubled_s, self._limits.breaker_max_s)
            self._open_until = now + self._open_s
        self._is_probing = False
        self.cause = cause
        return not was_open

    def abandoned(self) -> None:
        """Give the probe back: it was cancelled, or ended without asking upstream."""
        self._is_probing = False
