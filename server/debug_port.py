"""The debug port: health, metrics, the status page, and the operator's API below `/api/v1/`.

Invariant: `/healthz`, `/readyz` and what is mounted are answered to everybody by GET and HEAD; the
page itself says nothing, and is everybody's too; all else is behind the guard
(server/debug_guard.py).
"""

from collections.abc import Mapping

from server.exchange import Exchange, Handler
from server.framing import content_length
from server.health import Health
from server.operator_api import PREFIX, OperatorApi
from server.status_page import StatusPage

_HEALTH_PATHS = (b"/healthz", b"/readyz")


class DebugPort:
    """A handler. `mounts` answer their paths without waiting."""

    def __init__(
        self, health: Health, api: OperatorApi, mounts: Mapping[bytes, Handler] | None = None
    ) -> None:
        self._api = api
        self._page = StatusPage()
        self._mounts: dict[bytes, Handler] = {
            **dict.fromkeys(_HEALTH_PATHS, health),
            **(mounts or {}),
        }

    def respond_now(self, exchange: Exchange) -> bool:
        """Answer all but the API, which waits."""
        path = exchange.target.partition(b"?")[0]
        if path.startswith(PREFIX):
            return False
        handler = self._mounts.get(path)
        if exchange.method not in (b"GET", b"HEAD"):
            send_text(exchange, b"405 Method Not Allowed", b"GET and HEAD only\n")
        elif handler is not None:
            return handler.respond_now(exchange)
        elif path == b"/":
            self._page.send(exchange)
        else:
            send_text(exchange, b"404 Not Found", b"not found\n")
        return True

    async def respond(self, exchange: Exchange) -> None:
        """Answer what waited for its turn, and the API."""
        path = exchange.target.partition(b"?")[0]
        if path.startswith(PREFIX):
            await self._api.respond(exchange)
        elif path in self._mounts:
            await self._mounts[path].respond(exchange)
        else:
            self.respond_now(exchange)


def send_text(exchange: Exchange, status: bytes, text: bytes) -> None:
    """Answer with a line of plain text."""
    allow = b"Allow: GET, HEAD\r\n" if status.startswith(b"405") else b""
    head = b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\n%b%b" % (
        status,
        allow,
        content_length(len(text)),
    )
    exchange.send(head, b"" if exchange.method == b"HEAD" else text)
