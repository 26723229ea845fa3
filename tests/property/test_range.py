"""The range algebra for any header and any size."""

from hypothesis import given
from hypothesis import strategies as st

from server.conditional import Part, parse_range
from server.refusals import RangeUnsatisfiable

SIZES = st.integers(0, 1 << 50)


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50), SIZES)
def test_a_range_yields_exactly_the_bytes_it_names(first: int, last: int, size: int) -> None:
    spec = parse_range(b"bytes=%d-%d" % (first, last))
    if last < first:
        assert spec is None
        return
    assert spec is not None
    try:
        part = spec.resolve(size)
    except RangeUnsatisfiable:
        assert first >= size
        return
    assert part == Part(first, min(last + 1, size))


@given(st.integers(0, 1 << 50), SIZES)
def test_consecutive_resumes_cover_the_content_once(start: int, size: int) -> None:
    spec = parse_range(b"bytes=%d-" % start)
    assert spec is not None
    if start < size:
        part = spec.resolve(size)
        assert part is not None
        assert (part.start, part.end, len(part)) == (start, size, size - start)


@given(st.binary(max_size=64), SIZES)
def test_any_bytes_are_ignored_refused_or_a_part_inside(value: bytes, size: int) -> None:
    for header in (value, b"bytes=" + value):
        spec = parse_range(header)
        if spec is None:
            continue
        try:
            part = spec.resolve(size)
        except RangeUnsatisfiable:
            continue
        assert part is None or 0 <= part.start < part.end <= size


@given(st.from_regex(rb"bytes=[0-9]{0,3}-[0-9]{0,3}(,[0-9]{0,3}-[0-9]{0,3}){0,2}", fullmatch=True))
def test_several_ranges_are_never_served_as_one(value: bytes) -> None:
    if b"," in value:
        assert parse_range(value) is None
