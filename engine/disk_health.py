"""Whether storing is worth trying: after a failure not for a while, then once.

Invariant: while the disk fails, it is tried at most once in `PAUSE_S`. A try that comes to no end
(upstream failed, the mirror stops) leaves it at that: the next is due after another pause.
Pure; `now` is a monotonic clock's, in seconds.
"""

# Long enough that a fleet's pulls do not each run into it; short enough to notice a cleaned disk.
PAUSE_S = 10.0


class DiskHealth:
    """What the last attempts to store came to."""

    def __init__(self) -> None:
        self._is_failing = False
        self._next_try_at = 0.0

    def admit(self, now: float) -> bool:
        """Tell whether to try; while the disk fails, one who asks in each pause is told to."""
        if not self._is_failing:
            return True
        if now < self._next_try_at:
            return False
        self._next_try_at = now + PAUSE_S
        return True

    def failed(self, now: float) -> bool:
        """Note a failure; tell whether it is news."""
        was_failing, self._is_failing = self._is_failing, True
        self._next_try_at = now + PAUSE_S
        return not was_failing

    def worked(self) -> bool:
        """Note that something was stored; tell whether that is news."""
        was_failing, self._is_failing = self._is_failing, False
        return was_failing
