"""What a response says of the cache."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.lookup import CacheStatus
from server.provenance import HIT, trace


@pytest.mark.parametrize(
    ("status", "upstream_status", "is_stored", "line"),
    [
        (CacheStatus.HIT, None, True, "moorage; hit"),
        (CacheStatus.MISS, None, True, "moorage; fwd=uri-miss; fwd-status=200; stored"),
        (CacheStatus.MISS, 206, True, "moorage; fwd=uri-miss; fwd-status=206; stored"),
        (CacheStatus.MISS, None, False, "moorage; fwd=uri-miss; fwd-status=200"),
        (CacheStatus.COLLAPSED, None, True, "moorage; fwd=uri-miss; collapsed"),
        (CacheStatus.COLLAPSED, 200, True, "moorage; fwd=uri-miss; fwd-status=200; collapsed"),
        (
            CacheStatus.REVALIDATED,
            None,
            True,
            "moorage; fwd=stale; fwd-status=200; detail=revalidated",
        ),
        (CacheStatus.STALE, 503, True, "moorage; fwd=stale; fwd-status=503; detail=served-stale"),
        (CacheStatus.STALE, None, True, "moorage; fwd=stale; detail=served-stale"),
        (CacheStatus.BYPASS, None, False, "moorage; fwd=bypass; fwd-status=200"),
    ],
)
def test_cache_status_says_what_was_done(
    status: CacheStatus, upstream_status: int | None, is_stored: bool, line: str
) -> None:
    provenance = trace(status, upstream_status=upstream_status, is_stored=is_stored)
    assert provenance.word == status.name.lower()
    assert provenance.lines.decode() == f"Cache-Status: {line}\r\n"


def test_a_hit_is_the_word_of_a_hit() -> None:
    assert (HIT.word, HIT.is_validated) == ("hit", False)


def test_stale_says_why_in_a_quoted_warning() -> None:
    provenance = trace(CacheStatus.STALE, warning='stale 3 h: "hub" said \\429\r\nX: ü')
    assert provenance.lines.decode().split("\r\n")[1] == (
        'Warning: 299 - "stale 3 h: \\"hub\\" said \\\\429??X: ?"'
    )


@given(st.text(max_size=20_000) | st.text(alphabet='\\"a', min_size=4_000, max_size=9_000))
def test_any_warning_is_one_bounded_quoted_string(text: str) -> None:
    line = trace(CacheStatus.STALE, warning=text or "x").lines.split(b"\r\n")[1].decode("ascii")
    value = line.removeprefix("Warning: ")
    assert len(value) <= 4_096
    quoted = value.removeprefix('299 - "')
    escaped = False
    for position, char in enumerate(quoted):
        if char == '"' and not escaped:
            assert position == len(quoted) - 1, "the string ends early"
            break
        escaped = char == "\\" and not escaped
    else:
        pytest.fail("the string does not end")
