"""Reading upstream's status and headers: pure.

Statuses become errors here and nowhere else; only what upstream itself says is `NotFound`.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec
from yarl import URL

from engine.errors import (
    InvalidDigest,
    NotFound,
    UpstreamDenied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from engine.json_text import MalformedJSON, decode_json
from engine.names import Digest
from engine.upstream.kinds import RateLimit
from engine.upstream.shown import show_url

_MAX_REASON_CHARS = 300
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
# Longer numbers mean nothing, and int() refuses very long ones.
_RATE = re.compile(r"\s*(\d{1,18})(?!\d)(?:\s*;\s*w=(\d{1,18})(?!\d))?")
_SECONDS = re.compile(r"\s*([0-9]{1,9})\s*")
_LINK = re.compile(r"<([^>]*)>([^<]*)")
_NEXT = re.compile(r""";\s*rel\s*=\s*(?:"next"|next\b)""", re.IGNORECASE)


class _RawError(msgspec.Struct):
    code: str = ""
    message: str = ""


class _RawErrors(msgspec.Struct):
    errors: list[_RawError] = []


def reason_of(body: bytes) -> str:
    """Upstream's own words: its first OCI error, else nothing. One line, safe to show."""
    try:
        errors = decode_json(body, _RawErrors).errors
    except MalformedJSON:
        return ""
    if not errors:
        return ""
    text = ": ".join(filter(None, (errors[0].code, errors[0].message)))
    return _UNPRINTABLE.sub(" ", text)[:_MAX_REASON_CHARS]


def error_of(
    status: int, where: str, body: bytes, *, method: str, not_found: type[NotFound] | None
) -> NotFound | UpstreamError:
    """Translate a status that is not a success, apart from 429. `not_found`: what a 404 means."""
    reason = reason_of(body)
    message = f"{where} answered {status}" + (f" ({reason})" if reason else "")
    match status:
        case 404 if not_found is not None:
            return not_found(message)
        case 401 | 403:
            return UpstreamDenied(message, upstream_status=status)
        case 501 if method == "HEAD":
            return UpstreamProtocolError(message, upstream_status=status)
        case 408:
            return UpstreamUnavailable(message, upstream_status=status)
        case _ if status >= 500:
            return UpstreamUnavailable(message, upstream_status=status)
        case _:
            return UpstreamProtocolError(message, upstream_status=status)


def retry_after_s(value: str | None, now_unix: float) -> float | None:
    """Read Retry-After, seconds or a date (RFC 9110 §10.2.3); None where there is none."""
    if value is None:
        return None
    if found := _SECONDS.fullmatch(value):
        return float(found[1])
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for a day or an offset of ten digits
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(when.timestamp() - now_unix, 0.0)


def digest_header(headers: Mapping[str, str]) -> Digest | None:
    """Read Docker-Content-Digest; a malformed one counts as missing."""
    try:
        return Digest.parse(headers.get("Docker-Content-Digest", "").strip())
    except InvalidDigest:
        return None


def content_length(headers: Mapping[str, str]) -> int | None:
    """Read Content-Length."""
    value = headers.get("Content-Length", "")
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


def media_type(headers: Mapping[str, str]) -> str | None:
    """Read Content-Type without its parameters, which clients do not expect on manifests."""
    return headers.get("Content-Type", "").partition(";")[0].strip() or None


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Read Docker Hub's `ratelimit-*` headers; None where there are none."""
    limit = _RATE.match(headers.get("ratelimit-limit", ""))
    remaining = _RATE.match(headers.get("ratelimit-remaining", ""))
    if limit is None and remaining is None:
        return None
    window = (limit and limit[2]) or (remaining and remaining[2])
    return RateLimit(
        limit=int(limit[1]) if limit else None,
        remaining=int(remaining[1]) if remaining else None,
        window_s=int(window) if window else None,
    )


def next_page(current: URL, headers: Mapping[str, str]) -> URL | None:
    """Find the next page by `Link: <…>; rel="next"` (RFC 8288).

    Raises `UpstreamProtocolError` where it is at another origin: the token is not for there.
    """
    for target, parameters in _LINK.findall(headers.get("Link", "")):
        if _NEXT.search(parameters):
            url = next_hop(current, target)
            if origin_of(url) != origin_of(current):
                raise UpstreamProtocolError(f"{current.host}: next page is at {url.host}")
            return url
    return None


def next_hop(current: URL, location: str) -> URL:
    """Resolve a Location or Link against the URL it came from, without touching its escapes.

    Signed URLs break when they are quoted anew. Userinfo is dropped: it would become a login.
    Raises `UpstreamProtocolError` for what is no http(s) URL, and for a step from https to http.
    """
    try:
        if not location.isprintable():
            raise ValueError("it holds characters that no request line may")
        url = current.join(URL(location, encoded=location.isascii() and " " not in location))
        url = url.with_user(None).with_fragment(None)
        host = url.host  # it is decoded only now, and may be no IDNA
    except ValueError as exc:
        raise UpstreamProtocolError(f"{current.host}: bad location {show_url(location)}") from exc
    if url.scheme not in ("http", "https") or not host:
        raise UpstreamProtocolError(f"{current.host}: location is no http URL: {url.scheme}:")
    if current.scheme == "https" and url.scheme == "http":
        raise UpstreamProtocolError(f"{current.host}: redirect from https to http://{url.host}")
    return url


def origin_of(url: URL) -> tuple[str, str, int | None]:
    """Give scheme, host and port, comparable (RFC 6454 §4): a default port may be left out."""
    return url.scheme.lower(), (url.host or "").lower(), url.port
