"""What the cache did for a response, as clients are told. Pure.

Invariant: a stale response says so, and why.
Source: RFC 9211 (Cache-Status); OCI distribution-spec "Warnings" (warn-code 299, at most 4,096
bytes in all).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.lookup import CacheStatus
from server.response import NOT_VISIBLE, build_fields

_MAX_WARNING_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the cache did for a response, as it is told.

    `word` is for the access log, `lines` are for the head. `is_validated`: upstream has just
    confirmed what is stored.
    """

    word: str
    lines: bytes
    is_validated: bool


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
    visible = NOT_VISIBLE.sub("?", text)
    quoted = "".join(f"\\{char}" if char in '\\"' else char for char in visible)
    room = _MAX_WARNING_BYTES - len('299 - ""')
    if len(quoted) > room:
        quoted = quoted[:room]
        # The cut must not leave half an escape to swallow the closing quote.
        if (len(quoted) - len(quoted.rstrip("\\"))) % 2:
            quoted = quoted[:-1]
    return f'299 - "{quoted}"'


HIT = trace(CacheStatus.HIT)
