"""Which bytes a blob's response holds, and which of them were asked for: pure.

Source: RFC 9110 §14, §15.3.7. Some registries ignore Range (200), and some lie about the offset;
a body is never appended where it does not belong.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import UpstreamProtocolError
from engine.upstream.reply import content_length

_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*")


@dataclass(frozen=True, slots=True)
class Span:
    """How to read a body: drop `skip_bytes`, then yield `count_bytes` (None = to its end).

    `is_short`: the response stops before the end that was asked for. `is_cut`: it goes on after
    it. `size_bytes` is the whole blob's size, None where the headers do not say.
    """

    size_bytes: int | None
    skip_bytes: int = 0
    count_bytes: int | None = None
    is_short: bool = False
    is_cut: bool = False


def range_header(start: int, end: int | None) -> str | None:
    """Ask for bytes `start` up to without `end`; closed where possible, no Range for all.

    All large registries answer a closed range, some refuse an open one. An empty range cannot be
    said; it is cut from the whole.
    """
    if end is not None and end <= start:
        return None
    if end is not None:
        return f"bytes={start}-{end - 1}"
    return f"bytes={start}-" if start else None


def read_span(
    status: int, headers: Mapping[str, str], start: int, end: int | None, where: str
) -> Span:
    """Compare a 200 or 206 with what was asked; raises `UpstreamProtocolError`."""
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UpstreamProtocolError(f"{where} is encoded as {encoding!r}, identity was asked")
    if status == 206:
        return _partial(headers, start, end, where)
    size = content_length(headers)
    if size is not None and size < start:
        raise UpstreamProtocolError(f"{where} has {size} bytes, asked from {start} on")
    stop = size if end is None else end if size is None else min(end, size)
    return Span(
        size_bytes=size,
        skip_bytes=start,
        count_bytes=None if stop is None else max(stop - start, 0),
        is_cut=stop is not None and stop != size,
    )


def _partial(headers: Mapping[str, str], start: int, end: int | None, where: str) -> Span:
    value = headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(value)
    if found is None:
        raise UpstreamProtocolError(f"{where}: 206 with Content-Range {value[:100]!r}")
    first, last = int(found[1]), int(found[2])
    size = None if found[3] == "*" else int(found[3])
    if first != start or last < first or (size is not None and last >= size):
        raise UpstreamProtocolError(f"{where}: asked from byte {start} on, got {value[:100]!r}")
    stop = last + 1
    wanted = size if end is None else end if size is None else min(end, size)
    return Span(
        size_bytes=size,
        count_bytes=(stop if wanted is None else min(stop, wanted)) - start,
        is_short=wanted is not None and stop < wanted,
        is_cut=wanted is not None and stop > wanted,
    )
