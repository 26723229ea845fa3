"""Rounds become figures: ratios within a round first, then the median; failures add up."""

import pytest

from tools.bench_model import Metric, Sample, compare, measure, summarize


def sample(count: int = 1_000, elapsed_s: float = 1.0, **more: float) -> Sample:
    known: dict[str, float] = {"p99_s": 0.0, "cpu_s": 0.0, "peak_rss_bytes": 0, "failed_count": 0}
    known |= more
    return Sample(
        count,
        count * 1_000_000,
        elapsed_s,
        p99_s=known["p99_s"],
        cpu_s=known["cpu_s"],
        peak_rss_bytes=int(known["peak_rss_bytes"]),
        failed_count=int(known["failed_count"]),
    )


@pytest.mark.parametrize(
    ("metric", "figure"),
    [
        (Metric.RATE, 500.0),
        (Metric.THROUGHPUT, 500.0),
        (Metric.TIME, 2.0),
        (Metric.P99, 30.0),
        (Metric.CPU, 4.0),
    ],
)
def test_each_metric_is_in_its_unit(metric: Metric, figure: float) -> None:
    assert measure(metric, sample(elapsed_s=2.0, p99_s=0.03, cpu_s=4.0)) == pytest.approx(figure)


def test_costs_are_by_gigabyte_and_by_ten_thousand_requests() -> None:
    one = sample(count=2_000, cpu_s=1.0)
    assert one.cpu_s_per_gb == pytest.approx(0.5)
    assert one.cpu_s_per_10k == pytest.approx(5.0)
    assert Sample(0, 0, 1.0, cpu_s=1.0).cpu_s_per_gb == 0.0


def test_a_ratio_above_one_means_better_whatever_the_metric() -> None:
    fast = sample(2_000, 0.5, p99_s=0.01, cpu_s=1.0)
    slow = sample(1_000, 1.0, p99_s=0.02, cpu_s=1.0)
    for metric in Metric:
        assert compare(metric, [fast], [slow]) > 1
        assert compare(metric, [slow], [fast]) < 1
        assert compare(metric, [slow], [slow]) == pytest.approx(1)


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was ten times slower in the second round: of medians the ratio would be 5.5.
    ours, theirs = (
        [sample(2_000), sample(200), sample(20)],
        [sample(1_000), sample(100), sample(10)],
    )
    assert compare(Metric.RATE, ours, theirs) == pytest.approx(2)


def test_rounds_that_do_not_pair_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare(Metric.RATE, [sample()], [sample(), sample()])


def test_a_summary_has_medians_the_sum_of_failures_and_the_most_memory() -> None:
    rounds = [
        sample(100, peak_rss_bytes=2**20, failed_count=1),
        sample(900, peak_rss_bytes=3 * 2**20),
        sample(200, peak_rss_bytes=2 * 2**20, failed_count=2),
    ]
    figures = summarize(rounds)
    assert figures.req_s == pytest.approx(200)
    assert figures.failed_count == 3
    assert figures.peak_rss_mib == 3
