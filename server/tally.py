"""How the cache fared since the start: responses by what their `Cache-Status` says.

Rule: one dictionary access a response, as it runs for each hit on the event loop.
"""

from collections import Counter

from server.exchange import Exchange, Handler

# What was answered without the cache: errors, `/v2/`, refusals.
NONE = "none"


class Tally:
    """A handler that counts what another one answers."""

    def __init__(self, handler: Handler) -> None:
        self.answers: Counter[str] = Counter()
        self._handler = handler

    def respond_now(self, exchange: Exchange) -> bool:
        """Answer as the handler does."""
        if not self._handler.respond_now(exchange):
            return False
        self.answers[exchange.cache_status or NONE] += 1
        return True

    async def respond(self, exchange: Exchange) -> None:
        """Answer as the handler does; what was cut counts, too."""
        try:
            await self._handler.respond(exchange)
        finally:
            self.answers[exchange.cache_status or NONE] += 1
