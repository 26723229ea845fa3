"""The debug port's `/healthz` and `/readyz`: plain text, answered without the cache.

Ready means: can serve from disk. Upstream's health has no part in it, for a mirror that is taken
out of service while upstream is down is missed exactly then.
"""

from server.exchange import Exchange
from server.framing import content_length


class Health:
    """A handler; `is_ready` is set by whoever starts and drains the server."""

    def __init__(self) -> None:
        self.is_ready = False

    def respond_now(self, exchange: Exchange) -> bool:
        """Answer; nothing here ever waits."""
        path = exchange.target.partition(b"?")[0]
        if path == b"/healthz" or (path == b"/readyz" and self.is_ready):
            _send(exchange, b"200 OK", b"ok\n")
        elif path == b"/readyz":
            _send(exchange, b"503 Service Unavailable", b"not ready\n")
        else:
            _send(exchange, b"404 Not Found", b"not found\n")
        return True

    async def respond(self, exchange: Exchange) -> None:
        """Never called, as `respond_now` answers everything."""
        raise AssertionError(exchange.target)


def _send(exchange: Exchange, status: bytes, text: bytes) -> None:
    head = b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\n%b" % (
        status,
        content_length(len(text)),
    )
    exchange.send(head, b"" if exchange.method == b"HEAD" else text)
