"""The debug port: health, the status page, and the operator's API below `/api/v1/`.

Invariant: `/healthz` and `/readyz` are answered to everybody by GET and HEAD; the page itself says
nothing, and is everybody's too; all else is behind the guard (server/debug_guard.py).
"""

from server.exchange import Exchange
from server.framing import content_length
from server.health import Health
from server.operator_api import PREFIX, OperatorApi
from server.status_page import StatusPage

_HEALTH_PATHS = (b"/healthz", b"/readyz")


class DebugPort:
    """A handler."""

    def __init__(self, health: Health, api: OperatorApi) -> None:
        self._health = health
        self._api = api
        self._page = StatusPage()

    def respond_now(self, exchange: Exchange) -> bool:
        """Answer all but the API, which waits."""
        path = exchange.target.partition(b"?")[0]
        if path.startswith(PREFIX):
            return False
        if exchange.method not in (b"GET", b"HEAD"):
            _send_text(exchange, b"405 Method Not Allowed", b"GET and HEAD only\n")
        elif path in _HEALTH_PATHS:
            self._health.respond_now(exchange)
        elif path == b"/":
            self._page.send(exchange)
        else:
            _send_text(exchange, b"404 Not Found", b"not found\n")
        return True

    async def respond(self, exchange: Exchange) -> None:
        """Answer what waited for its turn, and the API."""
        if not self.respond_now(exchange):
            await self._api.respond(exchange)


def _send_text(exchange: Exchange, status: bytes, text: bytes) -> None:
    allow = b"Allow: GET, HEAD\r\n" if status.startswith(b"405") else b""
    head = b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\n%b%b" % (
        status,
        allow,
        content_length(len(text)),
    )
    exchange.send(head, b"" if exchange.method == b"HEAD" else text)
