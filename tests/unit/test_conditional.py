"""The algebra of conditions and ranges, by RFC 9110's own examples and the edges between."""

import pytest

from server.conditional import Part, RangeSpec, find_range, is_not_modified, parse_range
from server.refusals import RangeUnsatisfiable

ETAG = b'"sha256:abc"'


@pytest.mark.parametrize(
    ("value", "size_bytes", "part"),
    [
        (b"bytes=0-499", 10_000, Part(0, 500)),
        (b"bytes=500-999", 10_000, Part(500, 1000)),
        (b"bytes=-500", 10_000, Part(9_500, 10_000)),
        (b"bytes=9500-", 10_000, Part(9_500, 10_000)),
        (b"bytes=0-0", 10_000, Part(0, 1)),
        (b"bytes=-1", 10_000, Part(9_999, 10_000)),
        (b"bytes=0-", 10_000, Part(0, 10_000)),
        (b"bytes=0-99999", 10_000, Part(0, 10_000)),
        (b"bytes=-99999", 10_000, Part(0, 10_000)),
        (b"BYTES= 5-6 ", 10, Part(5, 7)),
        (b"bytes=9-9", 10, Part(9, 10)),
        (b"bytes=007-008", 10, Part(7, 9)),
    ],
)
def test_a_single_range_is_cut_to_the_content(value: bytes, size_bytes: int, part: Part) -> None:
    spec = parse_range(value)
    assert spec is not None
    assert spec.resolve(size_bytes) == part


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=-",
        b"bytes=a-b",
        b"bytes=5-4",
        b"bytes=0-1,3-4",
        b"bytes=0-1,",
        b"bytes=-5-",
        b"bytes=--5",
        b"bytes=1 - 2",
        b"bytes = 1-2",
        b"bytes=0x1-2",
        b"bytes=\xb2-3",
        b"items=0-5",
        b"bytes=1-2\n",
        b"bytes=" + b"9" * 5_000 + b"-",
    ],
)
def test_what_is_not_one_well_formed_range_is_ignored(value: bytes | None) -> None:
    assert parse_range(value) is None


@pytest.mark.parametrize(
    ("value", "size_bytes"),
    [
        (b"bytes=10-", 10),
        (b"bytes=10-20", 10),
        (b"bytes=0-", 0),
        (b"bytes=0-0", 0),
        (b"bytes=-0", 10),
        (b"bytes=-0", 0),
    ],
)
def test_a_range_outside_the_content_is_refused(value: bytes, size_bytes: int) -> None:
    spec = parse_range(value)
    assert spec is not None
    with pytest.raises(RangeUnsatisfiable) as caught:
        spec.resolve(size_bytes)
    assert caught.value.size_bytes == size_bytes


def test_the_last_bytes_of_nothing_are_all_of_it() -> None:
    assert RangeSpec(suffix_bytes=5).resolve(0) is None


@pytest.mark.parametrize(
    ("if_range", "is_honoured"),
    [
        (None, True),
        (ETAG, True),
        (b'"sha256:other"', False),
        (b"W/" + ETAG, False),
        (b"sha256:abc", False),
        (b"Sat, 29 Oct 1994 19:43:31 GMT", False),
        (b"*", False),
        (b"", False),
    ],
)
def test_if_range_needs_the_strong_tag(if_range: bytes | None, is_honoured: bool) -> None:
    assert (find_range(b"bytes=1-2", if_range, ETAG) is not None) is is_honoured


@pytest.mark.parametrize(
    ("if_none_match", "is_same"),
    [
        (None, False),
        (b"", False),
        (ETAG, True),
        (b"W/" + ETAG, True),
        (b"*", True),
        (b'"other", ' + ETAG, True),
        (b'"other",W/' + ETAG + b' , "third"', True),
        (b"sha256:abc", True),
        (b'"other"', False),
        (b'"sha256:abcd"', False),
        (b'sha256:abc"', False),
        (b"w/" + ETAG, False),
    ],
)
def test_if_none_match_compares_weakly(if_none_match: bytes | None, is_same: bool) -> None:
    assert is_not_modified(if_none_match, ETAG) is is_same
