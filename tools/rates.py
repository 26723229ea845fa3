"""What happened between two moments of a running mirror, per second. Pure."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from server.facts import Facts, FillFacts, Sample


@dataclass(frozen=True, slots=True)
class Rates:
    """`hit_share` None: nothing was asked of the cache."""

    requests_s: float
    sent_bytes_s: float
    hit_share: float | None


def between(before: Sample, after: Sample) -> Rates:
    """Compare two samples of the same run."""
    span_s = max(after.at - before.at, 0.001)
    cached_count = after.cached_count - before.cached_count
    hits = after.hit_count - before.hit_count
    return Rates(
        max(0, after.request_count - before.request_count) / span_s,
        max(0, after.sent_bytes - before.sent_bytes) / span_s,
        hits / cached_count if cached_count > 0 else None,
    )


def rates_of(facts: Facts, before: Facts | None) -> Rates:
    """Compare with what was shown before, else with the last sample that the server kept."""
    now = facts.samples[-1]
    if before is not None and before.server.pid == facts.server.pid:
        return between(before.samples[-1], now)
    return between(facts.samples[-2] if len(facts.samples) > 1 else now, now)


def fill_bytes_s(fill: FillFacts, facts: Facts, before: Facts | None) -> float:
    """How fast a fill goes: since it was seen last, else since it began."""
    for earlier in before.fills if before else ():
        if earlier.digest == fill.digest and earlier.begun_at == fill.begun_at and before:
            span_s = max(facts.server.now - before.server.now, 0.001)
            return max(0, fill.written_bytes - earlier.written_bytes) / span_s
    return fill.written_bytes / max(facts.server.now - fill.begun_at, 0.001)


def series(samples: Sequence[Sample]) -> list[Rates]:
    """Rates from each sample to the next."""
    return [between(*pair) for pair in itertools.pairwise(samples)]
