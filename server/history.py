"""The last minutes of traffic, for whoever opens the status page now. Pure: the time is given.

Invariant: at most `MAX_SAMPLES`, one each `INTERVAL_S`, of totals that never go back; a rate is the
difference of two, so that a sample that was missed makes no gap.
"""

from collections import deque

from server.counted import NONE, Snapshot
from server.facts import Sample

INTERVAL_S = 5.0
MAX_SAMPLES = 121  # ten minutes


class History:
    """Totals now and then."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)

    def note(self, counted: Snapshot, now: float) -> None:
        """Take a sample."""
        self._samples.append(sample_of(counted, now))

    def list_until(self, counted: Snapshot, now: float) -> list[Sample]:
        """List what was noted, and how it stands now."""
        return [*self._samples, sample_of(counted, now)]


def sample_of(counted: Snapshot, now: float) -> Sample:
    """Sum counters up."""
    cached = [each for each in counted.answers if each.cache_status != NONE]
    return Sample(
        now,
        sum(each.count for each in counted.answers),
        sum(each.count for each in cached),
        sum(each.count for each in cached if each.is_hit),
        sum(each.sent_bytes for each in counted.answers),
    )
