"""One log line for many like failures: an outage of an upstream must not flood the log.

Invariant: of failures with the same key, at most one in `INTERVAL_S` is logged, and it says how
many were not. `FaultLog` is pure: the time is given.
"""

import logging
import time
from collections.abc import Hashable
from dataclasses import dataclass

INTERVAL_S = 10.0
# Keys are made of configured upstreams and status codes, so this is never reached in practice.
_MAX_KEYS = 1_000


@dataclass(slots=True)
class _Last:
    logged_at: float
    suppressed_count: int = 0


class FaultLog:
    """Decides which failures are logged."""

    def __init__(self) -> None:
        self._last: dict[Hashable, _Last] = {}

    def admit(self, key: Hashable, now: float) -> int | None:
        """Return how many were suppressed since the last line if this is to be logged, else None.

        `now` is in seconds of a clock that never goes back.
        """
        last = self._last.get(key)
        if last is not None and now - last.logged_at < INTERVAL_S:
            last.suppressed_count += 1
            return None
        if len(self._last) >= _MAX_KEYS:
            self._last.clear()
        self._last[key] = _Last(now)
        return last.suppressed_count if last else 0


class RepeatedLines:
    """Lines that may come with every request, through `logger`."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._faults = FaultLog()

    def warn(self, key: Hashable, message: str, *values: object) -> None:
        """Log `message`, and how many of its kind were left out, unless this is one of those."""
        self._log(logging.WARNING, key, message, *values)

    def error(self, key: Hashable, message: str, *values: object) -> None:
        """Log an error, as `warn` does."""
        self._log(logging.ERROR, key, message, *values)

    def _log(self, level: int, key: Hashable, message: str, *values: object) -> None:
        suppressed = self._faults.admit(key, time.monotonic())
        if suppressed is not None:
            counted = f"{message} suppressed=%d"
            self._logger.log(level, counted, *values, suppressed)
