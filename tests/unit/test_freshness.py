"""Which tags are served without asking upstream."""

from dataclasses import replace

import pytest

from engine.freshness import Freshness, decide
from engine.index_records import TagRecord
from engine.names import Digest, Tag

RECORD = TagRecord(
    tag=Tag("latest"),
    digest=Digest("sha256:" + "0" * 64),
    media_type="",
    size_bytes=None,
    etag=None,
    checked_at=1_000.0,
    changed_at=0.0,
)


@pytest.mark.parametrize(
    ("now", "tagttl_s", "expected"),
    [
        (1_000.0, 0.0, Freshness.REVALIDATE),
        (1_000.0, 60.0, Freshness.FRESH),
        (1_059.9, 60.0, Freshness.FRESH),
        (1_060.0, 60.0, Freshness.REVALIDATE),
        (9_999.0, 60.0, Freshness.REVALIDATE),
        # The clock was set back after the check.
        (999.9, 60.0, Freshness.REVALIDATE),
        (0.0, 1e12, Freshness.REVALIDATE),
    ],
)
def test_a_tag_is_fresh_while_it_is_younger_than_tagttl(
    now: float, tagttl_s: float, expected: Freshness
) -> None:
    assert decide(RECORD, now, tagttl_s) is expected


def test_a_tag_never_seen_is_absent() -> None:
    assert decide(None, 1_000.0, 60.0) is Freshness.ABSENT


def test_how_long_a_tag_has_been_so_does_not_matter() -> None:
    assert decide(replace(RECORD, changed_at=999.0), 1_001.0, 60.0) is Freshness.FRESH
