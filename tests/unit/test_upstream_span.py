"""Which bytes of a response were asked for: the same as a slice, whatever upstream sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UpstreamProtocolError
from engine.upstream.span import Span, range_header, read_span

sizes = st.integers(0, 40)
ends = st.none() | st.integers(0, 60)


def yielded(span: Span, body: bytes) -> bytes:
    """Read a response's body as a span says."""
    kept = body[span.skip_bytes :]
    return kept if span.count_bytes is None else kept[: span.count_bytes]


@given(size=sizes, start=st.integers(0, 40), end=ends, has_length=st.booleans())
def test_a_whole_answer_yields_the_slice(
    size: int, start: int, end: int | None, has_length: bool
) -> None:
    data = bytes(range(size))
    headers = {"Content-Length": str(size)} if has_length else {}
    if has_length and start > size:
        with pytest.raises(UpstreamProtocolError):
            read_span(200, headers, start, end, "blob")
        return
    span = read_span(200, headers, start, end, "blob")
    assert yielded(span, data) == data[start : max(start, end) if end is not None else None]
    assert span.size_bytes == (size if has_length else None)
    assert not span.is_short


@given(
    size=st.integers(1, 40),
    start=st.integers(0, 39),
    length=st.integers(1, 40),
    end=ends,
    has_size=st.booleans(),
)
def test_a_part_yields_what_it_has_of_the_slice(
    size: int, start: int, length: int, end: int | None, has_size: bool
) -> None:
    stop = min(start + length, size)
    if stop <= start or (end is not None and end <= start):
        return
    data = bytes(range(size))
    total = str(size) if has_size else "*"
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{total}"}
    span = read_span(206, headers, start, end, "blob")
    asked = data[start:end]
    got = yielded(span, data[start:stop])
    assert asked.startswith(got)
    if has_size:
        assert span.is_short == (got != asked)
    assert span.is_cut == (end is not None and stop > end)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, None),
        (5, None, "bytes=5-"),
        (0, 1, "bytes=0-0"),
        (5, 10, "bytes=5-9"),
        (0, 0, None),
        (5, 5, None),
    ],
)
def test_a_range_is_closed_where_its_end_is_known(
    start: int, end: int | None, expected: str | None
) -> None:
    assert range_header(start, end) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes 6-9/10",
        "bytes 4-9/10",
        "bytes 5-4/10",
        "bytes 5-10/10",
        "bytes */10",
        "items 5-9/10",
        "bytes 5-9",
        "bytes 5-9/ten",
        "bytes +5-9/10",
    ],
)
def test_a_content_range_that_is_not_as_asked_is_refused(value: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        read_span(206, {"Content-Range": value}, 5, 10, "blob")


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity, gzip"])
def test_encoded_bytes_are_refused(encoding: str) -> None:
    with pytest.raises(UpstreamProtocolError, match="identity was asked"):
        read_span(200, {"Content-Encoding": encoding}, 0, None, "blob")


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_identity_may_be_said(encoding: str) -> None:
    assert read_span(200, {"Content-Encoding": encoding}, 0, None, "blob") == Span(None)
