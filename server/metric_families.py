"""Prometheus' families made of plain rows. Pure.

Invariant: every row has as many label values as the family has labels; a family without rows is
still there, with its help.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from server.counted import Durations
from server.series import BOUNDS_S

Rows = Iterable[tuple[tuple[str, ...], float]]

_ALONE = ()


def counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Make a counter; its samples are called `NAME_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def count(name: str, text: str, number: float) -> Metric:
    """Make a counter without labels."""
    return counter(name, text, _ALONE, [(_ALONE, number)])


def gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Make a gauge."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def level(name: str, text: str, number: float) -> Metric:
    """Make a gauge without labels."""
    return gauge(name, text, _ALONE, [(_ALONE, number)])


def histogram(
    name: str,
    text: str,
    labels: Sequence[str],
    rows: Iterable[tuple[tuple[str, ...], Durations]],
    bounds_s: Sequence[float] = BOUNDS_S,
) -> Metric:
    """Make a histogram. `bounds_s` are some of `BOUNDS_S`."""
    family = HistogramMetricFamily(name, text, labels=labels)
    kept = [BOUNDS_S.index(bound_s) for bound_s in bounds_s]
    names = [str(bound_s) for bound_s in bounds_s]
    for values, durations in rows:
        cumulative = list(accumulate(durations.counts))
        buckets = [(name, cumulative[at]) for name, at in zip(names, kept, strict=True)]
        family.add_metric(values, [*buckets, ("+Inf", cumulative[-1])], durations.total_s)
    return family
