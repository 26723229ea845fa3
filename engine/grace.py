"""How long the fastest reader of what is not stored is held up for the others.

Invariant: for at most as long as it was not, in the long run; `MAX_S` are saved at most. So readers
of about one speed stay together, and a slow one costs the others half of their speed at worst until
it falls behind.
Pure; `now` is a monotonic clock's, in seconds.
"""

# Some round trips, and the time in which a loaded client gets its turn.
MAX_S = 1.0


class Grace:
    """Time to give; as much is earned as passes without giving any."""

    def __init__(self, now: float) -> None:
        self.left_s = MAX_S
        self._at = now

    def earn(self, now: float) -> None:
        """Note that nobody was held up until now."""
        self.left_s = min(MAX_S, self.left_s + now - self._at)
        self._at = now

    def spend(self, now: float) -> None:
        """Note that the fastest was held up until now."""
        self.left_s = max(0.0, self.left_s - (now - self._at))
        self._at = now
