"""Stored content leaves: whole or in part, small in one write, large by `sendfile`.

Invariant: nothing is awaited here, and nothing was sent when an error is raised. What most heads of
a piece of content share is built once and kept with it.
"""

from collections.abc import Callable

from engine.cache import Cache
from engine.hot import SMALL_BODY_BYTES, Content
from server.conditional import RangeSpec, find_range, is_not_modified
from server.exchange import Exchange
from server.provenance import HIT, Provenance
from server.reply import send_not_modified
from server.response import (
    Prepared,
    content_fields,
    namespace_line,
    prepare,
)


class StoredSender:
    """Sends what is stored. `clock` tells unix seconds, for `Age`."""

    def __init__(self, cache: Cache, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._clock = clock
        # Heads of whole hits of this second: they differ by `Age` only, and all clients of a fleet
        # ask for the same.
        self._second = -1
        self._heads: dict[tuple[Content, str], bytes] = {}

    def send(
        self, exchange: Exchange, content: Content, provenance: Provenance, namespace: str
    ) -> None:
        """Answer with `content`, as `If-None-Match` and, for a blob, `Range` ask.

        Raises `RangeUnsatisfiable`, or `StorageError` where the file is gone or unreadable.
        """
        exchange.digest = content.digest
        exchange.cache_status = provenance.word
        # Of a tag, and of what was not here, upstream or the clock has a say as well.
        exchange.stands_on = content if provenance is HIT else None
        if exchange.header(b"range") is None and exchange.header(b"if-none-match") is None:
            head = self._find_whole_head(content, provenance, namespace)
            exchange.status = 200
            self._send_bytes(exchange, head, content, 0, content.size_bytes)
        else:
            self._send_conditionally(exchange, content, provenance, namespace)

    def _send_conditionally(
        self, exchange: Exchange, content: Content, provenance: Provenance, namespace: str
    ) -> None:
        etag = _prepared(content).etag
        last_lines = self.last_lines(provenance, namespace, content.stored_at)
        if is_not_modified(exchange.header(b"if-none-match"), etag):
            send_not_modified(exchange, content_fields(content), last_lines)
            return
        spec = None if content.media_type else asked_range(exchange, etag)
        part = spec.resolve(content.size_bytes) if spec else None
        if part is None:
            exchange.status = 200
            head = _prepared(content).head_whole(content.size_bytes) + last_lines
            self._send_bytes(exchange, head, content, 0, content.size_bytes)
        else:
            exchange.status = 206
            head = _prepared(content).head_part(part, content.size_bytes) + last_lines
            self._send_bytes(exchange, head, content, part.start, part.end)

    def _find_whole_head(self, content: Content, provenance: Provenance, namespace: str) -> bytes:
        """Find, or build, the head of a 200 with all of `content`."""
        if provenance is not HIT:
            last_lines = self.last_lines(provenance, namespace, content.stored_at)
            return _prepared(content).head_whole(content.size_bytes) + last_lines
        second = int(self._clock())
        if second != self._second:
            self._second, self._heads = second, {}
        key = (content, namespace)
        head = self._heads.get(key)
        if head is None:
            last_lines = self.last_lines(provenance, namespace, content.stored_at)
            whole = _prepared(content).head_whole(content.size_bytes)
            head = self._heads[key] = whole + last_lines
        return head

    def last_lines(self, provenance: Provenance, namespace: str, stored_at: float | None) -> bytes:
        """Build the lines that differ by request: Cache-Status, and where they apply, Warning,
        OCI-Namespace and, for what is stored, Age.
        """
        lines = provenance.lines + namespace_line(namespace)
        if stored_at is None:
            return lines
        # What upstream has just confirmed is as good as new (RFC 9111 §4.2.3).
        age_s = 0 if provenance.is_validated else max(0, int(self._clock() - stored_at))
        return b"%bAge: %d\r\n" % (lines, age_s)

    def _send_bytes(
        self, exchange: Exchange, head: bytes, content: Content, start: int, end: int
    ) -> None:
        if exchange.method == b"HEAD":
            exchange.send(head)
            return
        body = content.body
        if body is None and content.size_bytes <= SMALL_BODY_BYTES:
            body = self._cache.load_body(content)
        if body is None:
            exchange.send_file(head, self._cache.open_file(content), start, end)
        else:
            exchange.send(head, body[start:end])  # all of it is not copied


def _prepared(content: Content) -> Prepared:
    prepared = content.prepared
    if not isinstance(prepared, Prepared):
        prepared = content.prepared = prepare(content)
    return prepared


def asked_range(exchange: Exchange, etag: bytes) -> RangeSpec | None:
    """Find the range that is to be honoured; one on HEAD is not (RFC 9110 §14.2)."""
    value = exchange.header(b"range")
    if value is None or exchange.method != b"GET":
        return None
    return find_range(value, exchange.header(b"if-range"), etag)
