"""When to try again: pure; `now` is the event loop's clock, `jitter` a random number in [0, 1).

Retries are bounded twice: by each operation's deadline, and for all operations together by a
budget, so that an upstream in trouble is not asked much more often than in good times.
"""

from engine.upstream.limits import Limits

_RATIO = 0.2  # retries per request, in the long run (precedent: Finagle's RetryBudget)
_FLOOR_PER_S = 10.0  # and as many a second whatever the traffic
_MAX_SAVED = 100.0


def backoff_s(failures: int, jitter: float, limits: Limits) -> float:
    """Wait so long after the n-th failure in a row (n >= 1): exponential, 50 to 100 % of it."""
    full_s = min(limits.backoff_first_s * 2.0 ** min(failures - 1, 30), limits.backoff_max_s)
    return full_s * (0.5 + jitter / 2)


class RetryBudget:
    """A token bucket that requests and time fill and retries empty."""

    def __init__(self, now: float) -> None:
        self._saved = _FLOOR_PER_S
        self._filled_at = now

    def note_request(self) -> None:
        """Earn a part of a retry."""
        self._saved = min(self._saved + _RATIO, _MAX_SAVED)

    def take(self, now: float) -> bool:
        """Spend a retry; False where there is none now."""
        earned = (now - self._filled_at) * _FLOOR_PER_S
        # Time fills the bucket up to the floor only: idle hours do not buy a storm.
        if self._saved < _FLOOR_PER_S:
            self._saved = min(self._saved + earned, _FLOOR_PER_S)
        self._filled_at = now
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
