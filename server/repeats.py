"""Answers that leave again as they are, found by the bytes of the request's head.

Invariant: an answer is repeated only while the content that it was made of is hot, so what was
purged, evicted or revoked is not served from here from that moment on; and only within the second
in which it was made, so that `Date` and `Age` are right and the cache notes each second that the
content is in use. Heads with credentials are never among them (see `KnownHeads`).

A fleet asks for the same again and again, and so most of the work for a hit is the same as the last
time. What is left of it here: to look the head up, to send, and to tell the observers.
"""

from copy import copy
from time import time

from engine.hot import Content
from server.connection_exchange import ConnectionExchange
from server.parcel import Parcel

# Of one second; what is beyond them is answered the longer way.
MAX_ANSWERS = 4_096
MAX_BYTES = 8 * 1024 * 1024


class Repeat:
    """An answer to be sent again, and the exchange that it was made for, as observers see it."""

    __slots__ = ("content", "exchange", "parcel")

    def __init__(self, exchange: ConnectionExchange, parcel: Parcel, content: Content) -> None:
        self.exchange = exchange
        self.parcel = parcel
        self.content = content


class Repeats:
    """The answers of this second. `is_used`: the handler answers everybody alike."""

    __slots__ = ("_all", "_bytes", "_is_used", "_until")

    def __init__(self, *, is_used: bool) -> None:
        self._is_used = is_used
        self._all: dict[bytes, Repeat] = {}
        self._bytes = 0
        self._until = 0.0  # by the clock of `now`, which is monotonic

    def find(self, head: bytes, now: float) -> Repeat | None:
        """Find what was answered to exactly `head`, if that is still right."""
        repeat = self._all.get(head)
        if repeat is None or now >= self._until or not repeat.content.is_hot:
            return None
        return repeat

    def add(self, head: bytes, exchange: ConnectionExchange, now: float) -> None:
        """Keep what was answered to `head`, if it is of the kind that stands for a while."""
        parcel, content = exchange.parcel, exchange.stands_on
        exchange.parcel = None
        if parcel is None or content is None or not self._is_used:
            return
        if now >= self._until:
            self._begin_second(now)
        size_bytes = len(head) + parcel.memory_bytes
        if len(self._all) < MAX_ANSWERS and self._bytes + size_bytes <= MAX_BYTES:
            # A copy, for the exchange itself may not be over yet, and end badly.
            self._all[head] = Repeat(copy(exchange), parcel, content)
            self._bytes += size_bytes

    def expire(self, now: float) -> None:
        """Drop what is of no use any more, with the connections that it was made for."""
        if now >= self._until:
            self.forget()

    def forget(self) -> None:
        """Drop all answers: the next ones will be others."""
        self._all.clear()
        self._bytes = 0

    def _begin_second(self, now: float) -> None:
        self.expire(now)
        self._until = now + 1 - time() % 1
