"""Conditional and range requests as pure algebra over one strong validator, the digest.

Invariant: whatever cannot be honoured exactly (several ranges, bad syntax, another unit, a failed
`If-Range`) is as if it had not been sent; only a single well-formed range outside the content is
refused. Content never changes under its digest, so no date is a validator here.
Source: RFC 9110 §13 (preconditions), §14 (ranges).
"""

import re
from dataclasses import dataclass

from server.refusals import RangeUnsatisfiable

# Longer numbers exceed every size; refusing to read them bounds the work.
_SINGLE_RANGE = re.compile(
    rb"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))[ \t]*", re.I
)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` up to without `end`; never empty."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class RangeSpec:
    """One range as asked for: `first`-`last` inclusive, or the last `suffix_bytes`."""

    first: int = 0
    last: int | None = None
    suffix_bytes: int | None = None

    def resolve(self, size_bytes: int) -> Part | None:
        """Apply it to content of `size_bytes`. None = the range is to be ignored.

        Raises `RangeUnsatisfiable` where it shares no byte with the content.
        """
        if self.suffix_bytes is None:
            start, end = self.first, size_bytes if self.last is None else self.last + 1
        elif self.suffix_bytes and not size_bytes:
            # "All of nothing" has no Content-Range that could say so: a plain 200 does.
            return None
        else:
            start, end = max(0, size_bytes - self.suffix_bytes), size_bytes
        if start >= size_bytes:
            raise RangeUnsatisfiable(size_bytes)
        return Part(start, min(end, size_bytes))


def parse_range(value: bytes | None) -> RangeSpec | None:
    """Read a `Range` header. None where there is none, or one that is to be ignored."""
    if value is None:
        return None
    match = _SINGLE_RANGE.fullmatch(value)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return RangeSpec(suffix_bytes=int(suffix))
    if last is not None and int(last) < int(first):
        return None  # invalid by RFC 9110 §14.1.1, so ignored
    return RangeSpec(int(first), None if last is None else int(last))


def find_range(range_value: bytes | None, if_range: bytes | None, etag: bytes) -> RangeSpec | None:
    """Read `Range` where `If-Range` allows it: strong comparison, a date never matches."""
    if range_value is None or (if_range is not None and if_range.strip() != etag):
        return None
    return parse_range(range_value)


def is_not_modified(if_none_match: bytes | None, etag: bytes) -> bool:
    """Tell whether `If-None-Match` names what is here (weak comparison, RFC 9110 §13.1.2).

    The bare digest is taken too, as distribution's clients may send it.
    """
    if if_none_match is None:
        return False
    known = (etag, etag.strip(b'"'), b"*")
    return any(tag.strip().removeprefix(b"W/") in known for tag in if_none_match.split(b","))
