"""Response heads as bytes. Pure.

Invariant: a field value that came from outside (a media type, a warning) leaves here as visible
ASCII on one line, so nothing an upstream says can add a header or end the head.
A head has no empty line: the exchange adds its own fields and ends it.
Source: RFC 9110 §5.5, §8, §15; OCI distribution-spec "Pulling manifests", "Pulling blobs".
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from engine.hot import Content
from engine.names import Digest
from server.conditional import Part

JSON = "application/json"
OCTETS = "application/octet-stream"
# Content under a digest never changes: a year is what distribution says of blobs.
IMMUTABLE = "max-age=31536000, immutable"
NOT_VISIBLE = re.compile(r"[^\x20-\x7e]")
_MEDIA_TYPE = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}")

Field = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What responses with a piece of stored content share: its entity tag, and the header lines
    that are the same for all of it and for a part. There may be 50,000 of these.
    """

    etag: bytes
    lines: bytes

    def head_whole(self, size_bytes: int) -> bytes:
        """Build the head of a 200 with all of the content."""
        return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n" % (self.lines, size_bytes)

    def head_part(self, part: Part, size_bytes: int) -> bytes:
        """Build the head of a 206 with a part of the content."""
        return (
            b"HTTP/1.1 206 Partial Content\r\n%b"
            b"Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n"
        ) % (self.lines, part.start, part.end - 1, size_bytes, len(part))


def build_fields(fields: Iterable[Field]) -> bytes:
    """Build header lines. Values are made visible ASCII; names are ours."""
    lines = (f"{name}: {NOT_VISIBLE.sub('?', value)}\r\n" for name, value in fields)
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
    return Prepared(quote_etag(content.digest), build_fields(content_fields(content)))


@lru_cache(maxsize=256)
def namespace_line(namespace: str) -> bytes:
    """Build the `OCI-Namespace` line, nothing where no `ns` chose the upstream."""
    if not namespace:
        return b""
    return build_fields([("OCI-Namespace", namespace)])
