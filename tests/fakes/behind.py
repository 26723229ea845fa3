"""A handler for behind a gate: it keeps what reaches it, and answers 200."""

from server.exchange import Exchange
from server.response import build_head, content_length


class Behind:
    """Answers by waiting only where the target holds `waits_for`."""

    def __init__(self, waits_for: bytes) -> None:
        self.reached: list[bytes] = []
        self._waits_for = waits_for

    def respond_now(self, exchange: Exchange) -> bool:
        if self._waits_for in exchange.target:
            return False
        self._answer(exchange)
        return True

    async def respond(self, exchange: Exchange) -> None:
        self._answer(exchange)

    def _answer(self, exchange: Exchange) -> None:
        self.reached.append(exchange.target)
        exchange.status = 200
        exchange.send(build_head(200, [content_length(0)]))
