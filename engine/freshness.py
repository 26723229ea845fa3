"""Whether a tag may be served without asking upstream.

Pure. Invariant: only a check that upstream answered, less than `tagttl` ago by a clock that has not
gone back since, lets a tag be served unasked.
"""

from enum import Enum, auto

from engine.index_records import TagRecord


class Freshness(Enum):
    """What to do for a pull by tag."""

    FRESH = auto()  # serve what is recorded
    REVALIDATE = auto()  # ask upstream; what is recorded is a fallback
    ABSENT = auto()  # ask upstream; there is no fallback


def decide(record: TagRecord | None, now: float, tagttl_s: float) -> Freshness:
    """Judge `record` at `now` (unix seconds). With `tagttl_s` 0 no tag is ever fresh."""
    if record is None:
        return Freshness.ABSENT
    age_s = now - record.checked_at
    # A check from the future means that the clock was set back. Its true age is unknown, and taking
    # it for young would keep the tag fresh until the clock has caught up.
    return Freshness.FRESH if 0 <= age_s < tagttl_s else Freshness.REVALIDATE
