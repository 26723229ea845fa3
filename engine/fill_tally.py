"""What became of the fills since the start.

Invariant: each fill is counted once, when it has ended.
"""

from collections import Counter

from engine.fill import Fill, Outcome


class FillTally:
    """Plain integers, to be read at any time."""

    def __init__(self) -> None:
        self.ended: Counter[Outcome] = Counter()
        self.resumed_count = 0
        self.retried_count = 0
        self.adopted_count = 0
        self.unstored_count = 0

    def note(self, fill: Fill) -> None:
        """Count a fill; one that broke off without an outcome left its readers dangling."""
        self.ended[fill.outcome or Outcome.DANGLING] += 1
        self.resumed_count += fill.resumed_count
        self.retried_count += fill.retried_count
        self.adopted_count += fill.is_adopted
        self.unstored_count += fill.window is not None
