"""What a well-formed request head is, byte by byte. Pure.

Invariant: whatever leaves here as a `Request` means the same to every HTTP implementation in front
of or behind us; what could be read in two ways is refused with `BadRequest`, and the connection
ends with it. The tokenising is llhttp's (server/protocol.py); this module closes the gaps it has:
bare line feeds in a head that never ends, repeated or missing `Host`, superfluous spaces in the
request line, foreign versions, transfer codings, and all sizes.
"""

from typing import NamedTuple

from server.limits import Limits
from server.memo import Memo

HTTP_11 = "1.1"
HTTP_10 = "1.0"

# At most 4 MiB of them, in the memo's two generations; real clients' heads have 200 to 600 bytes.
_KNOWN_HEADS = 2_048
KNOWN_HEAD_BYTES = 1_024

_HEAD_END = b"\r\n\r\n"
# How a tracing client's line begins, as Go's HTTP client writes it, and how long it is: version 00
# (W3C Trace Context §3.2).
TRACE_START = b"\r\nTraceparent: "
_TRACE_BYTES = len(TRACE_START) + 55
_TRACE_VALUE_BYTES = b"0123456789abcdef-"
# Two lines of these, even if equal, are two readings of one request (RFC 9112 §3.2, §6.3).
_SINGLE_FIELDS = frozenset({b"host", b"content-length", b"transfer-encoding"})
# uri-host and port as RFC 3986 §3.2 has them, without userinfo.
_HOST_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=:[]"


class BadRequest(Exception):
    """A request that is refused before anybody looks at what it asks for."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


class Request(NamedTuple):
    """A checked request head. Field names are in lower case, repeated ones joined by `, `.

    `has_body`: bytes of a body follow. They are never read as anything, so nothing can be smuggled
    in them: such a request is the last of its connection.
    """

    method: bytes
    target: bytes
    version: str
    fields: dict[bytes, bytes]
    has_body: bool
    keeps_alive: bool


class KnownHeads:
    """Requests by the bytes of their heads, so that what a fleet asks again is not read again.

    Heads with credentials are not kept, nor those that announce a body.
    """

    __slots__ = ("_memo",)

    def __init__(self) -> None:
        self._memo: Memo[bytes, Request] = Memo(_KNOWN_HEADS)

    def find(self, head: bytes) -> Request | None:
        """Find the request that exactly `head` makes."""
        # Looking a key up reads all of it.
        return self._memo.find(head) if len(head) <= KNOWN_HEAD_BYTES else None

    def add(self, head: bytes, request: Request) -> None:
        """Keep a request that was read from `head`, if it is one to be kept."""
        is_kept = not request.has_body and b"authorization" not in request.fields
        if is_kept and len(head) <= KNOWN_HEAD_BYTES:
            self._memo.add(head, request)


def drop_trace(head: bytes) -> bytes:
    """Leave out a well-formed `Traceparent`, which differs in each request and is not read here.

    What was valid stays so, and what was not, too: the line that follows begins a line still.
    """
    start = head.find(TRACE_START)
    end = start + _TRACE_BYTES
    value = head[start + len(TRACE_START) : end]
    if start < 0 or head[end : end + 2] != b"\r\n" or value.translate(None, _TRACE_VALUE_BYTES):
        return head
    return head[:start] + head[end:]


def find_head_end(data: bytes, start: int, limits: Limits) -> int:
    """Find where the head that begins at `start` ends; -1 while it is incomplete.

    Raises `BadRequest` for a head that is too large, or can never end as it should. Looks at no
    byte past the limit, so that the answer does not depend on how the bytes were cut into pieces.
    """
    window = start + limits.head_bytes
    end = data.find(_HEAD_END, start, window)
    seen_end = end if end >= 0 else window
    line_count = data.count(b"\r\n", start, seen_end)
    if data.count(b"\n", start, seen_end) != line_count:
        raise BadRequest(400, "a line does not end in CRLF")
    if end >= 0:
        if line_count >= limits.head_lines:
            raise BadRequest(431, "too many header lines")
        return end + len(_HEAD_END)
    if len(data) >= window:
        if data.find(b"\r\n", start, window) < 0:
            raise BadRequest(414, "the request target is too long")
        raise BadRequest(431, "the header is too large")
    return -1


def check_request(
    head: bytes, method: bytes, target: bytes, pairs: list[tuple[bytes, bytes]], limits: Limits
) -> Request:
    """Check a head that llhttp has taken apart; raises `BadRequest`."""
    if len(target) > limits.target_bytes:
        raise BadRequest(414, "the request target is too long")
    if b"#" in target:
        raise BadRequest(400, "the request target has a fragment")
    version = _read_version(head, method, target)
    fields = _join_fields(pairs)
    if not target.startswith(b"/"):
        target = _to_origin_form(target, fields)
    _check_host(fields, version)
    has_body = _announces_body(fields, version)
    return Request(
        method, target, version, fields, has_body, not has_body and _asks_to_stay(fields, version)
    )


def _read_version(head: bytes, method: bytes, target: bytes) -> str:
    # Rebuilding the line finds superfluous spaces and RTSP, ICE and HTTP/0.9, all fine to llhttp.
    line = b"%b %b HTTP/1." % (method, target)
    if head.startswith(line):
        minor = head[len(line) : len(line) + 3]
        if minor == b"1\r\n":
            return HTTP_11
        if minor == b"0\r\n":
            return HTTP_10
    if head.startswith(b"%b %b HTTP/" % (method, target)):
        raise BadRequest(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    raise BadRequest(400, "malformed request line")


def _join_fields(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.lower()
        value = raw_value.rstrip()
        earlier = fields.get(name)
        if earlier is None:
            fields[name] = value
        elif name in _SINGLE_FIELDS:
            raise BadRequest(400, f"repeated {raw_name.decode('ascii')}")
        else:
            fields[name] = b"%b, %b" % (earlier, value)
    return fields


def _to_origin_form(target: bytes, fields: dict[bytes, bytes]) -> bytes:
    """Take an absolute target apart: its authority replaces Host (RFC 9112 §3.2.2)."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return target  # `*`, or an authority: no resource of ours has such a name
    authority, slash, path = rest.partition(b"/")
    if not slash:
        authority, mark, query = rest.partition(b"?")
        path = mark + query
    if b"host" in fields:
        fields[b"host"] = authority
    return b"/" + path


def _check_host(fields: dict[bytes, bytes], version: str) -> None:
    host = fields.get(b"host")
    if host is None:
        if version == HTTP_11:
            raise BadRequest(400, "Host is missing")
    elif host.translate(None, _HOST_BYTES):
        raise BadRequest(400, "invalid Host")


def _announces_body(fields: dict[bytes, bytes], version: str) -> bool:
    """Whether bytes of a body follow (RFC 9112 §6.3); llhttp has refused invalid lengths."""
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is None:
        return length is not None and length.strip(b"0") != b""
    if length is not None or version == HTTP_10:
        raise BadRequest(400, "Transfer-Encoding is not possible here")
    if coding.lower() != b"chunked":
        raise BadRequest(501, "unknown transfer coding")
    return True


def _asks_to_stay(fields: dict[bytes, bytes], version: str) -> bool:
    """Whether the client wants the connection to persist (RFC 9112 §9.3)."""
    field = fields.get(b"connection")
    if field is None:
        return version == HTTP_11
    options = {option.strip() for option in field.lower().split(b",")}
    if b"close" in options:
        return False
    return version == HTTP_11 or b"keep-alive" in options
