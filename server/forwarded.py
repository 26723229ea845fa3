"""Whom a request comes from where proxies stand before the mirror: `X-Forwarded-For`.

Invariant: the field is believed as far as trusted proxies wrote it: read from its end, up to the
first address that is none of theirs. What stands before that is the client's own and is not
looked at, so nobody chooses an address for himself.

`Forwarded` (RFC 7239) is not read: a proxy that knows one of the two fields passes on what the
client wrote into the other, so whoever read both would believe the client.
"""

import logging
import re
import time

from engine.fault_log import FaultLog
from server.exchange import Exchange, Handler
from server.memo import Memo
from server.networks import Networks, parse_ip

logger = logging.getLogger(__name__)

_MAX_REMEMBERED = 4_096
_MAX_REMEMBERED_BYTES = 256
_HOP = re.compile(
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<ipv4>[0-9.]+))(?::[0-9]{1,5})?"
    r"|(?P<bare>[0-9A-Fa-f:.]+)"
)


class MalformedHop(ValueError):
    """An entry that is no address; nothing before it can be told."""


def find_client(peer: str, forwarded_for: bytes, trusted: Networks) -> str:
    """Tell who made a request that `peer`, a trusted proxy, passed on. Raises `MalformedHop`."""
    client = peer
    for entry in reversed(forwarded_for.split(b",")):
        client = _parse_hop(entry.strip())
        if client not in trusted:
            break
    return client


def _parse_hop(entry: bytes) -> str:
    """Read an address; some proxies write a port behind it, and brackets around IPv6."""
    match = _HOP.fullmatch(entry.decode("latin-1"))
    if match is None:
        raise MalformedHop
    try:
        return str(parse_ip(match["bracketed"] or match["ipv4"] or match["bare"]))
    except ValueError as exc:
        raise MalformedHop from exc


class ForwardedGate:
    """Gives each exchange its client's address before `handler` and the access log see it."""

    def __init__(self, handler: Handler, trusted: Networks) -> None:
        self._handler = handler
        self._trusted = trusted
        self._clients: Memo[tuple[str, bytes], str] = Memo(_MAX_REMEMBERED)
        self._faults = FaultLog()

    def respond_now(self, exchange: Exchange) -> bool:
        """Pass on, with the address set."""
        self._identify(exchange)
        return self._handler.respond_now(exchange)

    async def respond(self, exchange: Exchange) -> None:
        """Pass on, with the address set: a second time comes to the same."""
        self._identify(exchange)
        await self._handler.respond(exchange)

    def _identify(self, exchange: Exchange) -> None:
        forwarded_for = exchange.header(b"x-forwarded-for")
        if forwarded_for is None:
            return
        key = (exchange.remote, forwarded_for)
        client = self._clients.find(key)
        if client is None:
            client = self._find_client(exchange.remote, forwarded_for)
            if len(forwarded_for) <= _MAX_REMEMBERED_BYTES:
                self._clients.add(key, client)
        exchange.remote = client

    def _find_client(self, peer: str, forwarded_for: bytes) -> str:
        if peer not in self._trusted:
            return peer
        try:
            return find_client(peer, forwarded_for, self._trusted)
        except MalformedHop:
            suppressed = self._faults.admit(peer, time.monotonic())
            if suppressed is not None:
                logger.warning(
                    "X-Forwarded-For malformed, the proxy counts as the client remote=%s "
                    "value=%r suppressed=%d",
                    peer,
                    forwarded_for[:200],
                    suppressed,
                )
            return peer
