"""How the cache fared since the start: responses by what their `Cache-Status` says.

Rule: one dictionary access a response, as it runs for each hit on the event loop.
"""

from collections import Counter

from server.exchange import Exchange

# What was answered without the cache: errors, `/v2/`, refusals.
NONE = "none"


class Tally:
    """An observer that counts."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()

    def exchange_over(self, exchange: Exchange, sent_bytes: int, duration_s: float) -> None:
        """Count an exchange; what was cut counts, too."""
        self.answers[exchange.cache_status or NONE] += 1
