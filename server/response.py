"""Response heads as bytes, and what they say of the cache. Pure.

Invariant: a field value that came from outside (a media type, a warning) leaves here as visible
ASCII on one line, so nothing an upstream says can add a header or end the head.
A head has no empty line: the exchange adds its own fields and ends it.
Source: RFC 9110 §5.5, §15; RFC 9211 (Cache-Status); RFC 9111 §5.1 (Age); OCI distribution-spec
"Warnings".
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from engine.hot import Content
from engine.lookup import CacheStatus
from engine.names import Digest
from server.conditional import Part

JSON = "application/json"
OCTETS = "application/octet-stream"
# Content under a digest never changes: a year is what distribution says of blobs.
IMMUTABLE = "max-age=31536000, immutable"
_MAX_WARNING_BYTES = 4_096
_NOT_VISIBLE = re.compile(r"[^\x20-\x7e]")
_MEDIA_TYPE = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}")

Field = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the cache did for a response, as it is told.

    `word` is for the access log, `lines` are for the head. `is_validated`: upstream has just
    confirmed what is stored.
    """

    word: str
    lines: bytes
    is_validated: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """What most responses with a piece of stored content need: the head of a 200 of all of it.

    Heads of 206 and 304 are built as they are asked for: there may be 50,000 of these.
    """

    etag: bytes
    whole: bytes


def build_fields(fields: Iterable[Field]) -> bytes:
    """Build header lines. Values are made visible ASCII; names are ours."""
    lines = (f"{name}: {_NOT_VISIBLE.sub('?', value)}\r\n" for name, value in fields)
    return "".join(lines).encode("ascii")


def build_head(status: int, fields: Iterable[Field]) -> bytes:
    """Build a head: status line and header lines."""
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    return line.encode("ascii") + build_fields(fields)


def quote_etag(digest: Digest) -> bytes:
    """Make the entity tag: the quoted digest."""
    return b'"%b"' % digest.encode("ascii")


def blob_fields(digest: Digest) -> list[Field]:
    """List what each response with a blob says, but for its length."""
    return [
        ("Content-Type", OCTETS),
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Cache-Control", IMMUTABLE),
        ("Accept-Ranges", "bytes"),
    ]


def manifest_fields(digest: Digest, media_type: str) -> list[Field]:
    """List what each response with a manifest says, but for its length."""
    return [
        ("Content-Type", media_type if _MEDIA_TYPE.fullmatch(media_type) else OCTETS),
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
    ]


def content_fields(content: Content) -> list[Field]:
    """List what each response with `content` says; a blob is what has no media type."""
    if content.media_type:
        return manifest_fields(content.digest, content.media_type)
    return blob_fields(content.digest)


def content_range(part: Part, size_bytes: int) -> Field:
    """Make the field of a 206 that says which part of the whole it is (RFC 9110 §14.4)."""
    return ("Content-Range", f"bytes {part.start}-{part.end - 1}/{size_bytes}")


def content_length(size_bytes: int) -> Field:
    """Make the field that frames a body."""
    return ("Content-Length", str(size_bytes))


def prepare(content: Content) -> Prepared:
    """Build what the responses with `content` share."""
    fields = [*content_fields(content), content_length(content.size_bytes)]
    return Prepared(quote_etag(content.digest), build_head(200, fields))


def trace(
    status: CacheStatus,
    *,
    is_stored: bool = True,
    upstream_status: int | None = None,
    warning: str = "",
) -> Provenance:
    """Say what the cache did. `is_stored`: what was fetched is kept (a HEAD fetches nothing)."""
    parts = ["moorage", *_forwarding(status, upstream_status, is_stored=is_stored)]
    fields = [("Cache-Status", "; ".join(parts))]
    if warning:
        fields.append(("Warning", _quote_warning(warning)))
    is_validated = status is CacheStatus.REVALIDATED
    return Provenance(status.name.lower(), build_fields(fields), is_validated)


HIT = trace(CacheStatus.HIT)


@lru_cache(maxsize=256)
def namespace_line(namespace: str) -> bytes:
    """Build the `OCI-Namespace` line, nothing where no `ns` chose the upstream."""
    if not namespace:
        return b""
    return build_fields([("OCI-Namespace", namespace)])


def _forwarding(
    status: CacheStatus, upstream_status: int | None, *, is_stored: bool
) -> Iterable[str]:
    """List the parameters of our member of Cache-Status (RFC 9211 §2)."""
    answer = [] if upstream_status is None else [f"fwd-status={upstream_status}"]
    match status:
        case CacheStatus.HIT:
            return ["hit"]
        case CacheStatus.MISS:
            # Upstream's 200 is why there is a response to send at all.
            stored = ["stored"] if is_stored else []
            return ["fwd=uri-miss", *(answer or ["fwd-status=200"]), *stored]
        case CacheStatus.COLLAPSED:
            return ["fwd=uri-miss", *answer, "collapsed"]
        case CacheStatus.REVALIDATED:
            return ["fwd=stale", *(answer or ["fwd-status=200"]), "detail=revalidated"]
        case CacheStatus.STALE:
            return ["fwd=stale", *answer, "detail=served-stale"]
        case CacheStatus.BYPASS:
            return ["fwd=bypass", *(answer or ["fwd-status=200"])]


def _quote_warning(text: str) -> str:
    """Quote for warn-code 299, agent `-`; cut to what the spec allows in all."""
    visible = _NOT_VISIBLE.sub("?", text)
    quoted = "".join(f"\\{char}" if char in '\\"' else char for char in visible)
    room = _MAX_WARNING_BYTES - len('299 - ""')
    if len(quoted) > room:
        quoted = quoted[:room]
        # The cut must not leave half an escape to swallow the closing quote.
        if (len(quoted) - len(quoted.rstrip("\\"))) % 2:
            quoted = quoted[:-1]
    return f'299 - "{quoted}"'
